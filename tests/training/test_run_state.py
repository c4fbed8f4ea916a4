"""A resumed run equals an uninterrupted run bit for bit, wherever it was interrupted."""

import copy
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import checkpoint
from charrnn.config import Cell, Precision
from charrnn.config.overrides import Overrides
from charrnn.data.corpus import Corpus
from charrnn.data.corpus_reader import corpus_from_text
from charrnn.errors import DamagedFileError, ModelFileError, ResumeError, SettingError
from charrnn.io import container
from charrnn.io.container import RUN_STATE
from charrnn.training import run_log
from charrnn.training.events import Evaluation, Finished, Step
from charrnn.training.plan import Plan, StepTiming, make_plan
from charrnn.training.run_state import Run, SavedRun, check_same, extend, from_bytes, to_bytes
from charrnn.training.trainer import Trainer

LINE = "she sells sea shells by the sea shore, the shells she sells are sea shells for sure.\n"
LONG, SHORT = LINE * 45, LINE * 9  # with B 4 and T 16: epochs of more than 50 steps, and of 9 steps
STEPS = 50


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def corpus(text: str = LONG) -> Corpus:
    return corpus_from_text(text, name="test")


def plan(text: str = LONG, **settings: Any) -> Plan:
    settings = {"device": "cpu", "hidden": 8, "layers": 2, "batch_size": 4, "seq_length": 16, "steps": STEPS,
             "evaluations": 7, "validation": 0.3 if text is SHORT else 0.1, "patience": 0, **settings}  # fmt: skip
    timing = StepTiming(
        0.01, settings.get("precision", "fp32"), settings.get("engine", "torch"), settings.get("threads", 1)
    )
    return make_plan(len(text), len(set(text)), Overrides(**settings), lambda *_: timing)


def run_of(run_plan: Plan, text: str = LONG) -> Run:
    run_corpus = corpus(text)
    return Run.create(run_plan, Overrides(), run_corpus)


def outcome(trainer: Trainer) -> tuple[bytes, list[dict[str, Any]]]:
    """Run to the end and return the model file and the log without times."""
    for _ in trainer.run():
        pass
    lines = [asdict(entry) for entry in trainer.snapshot().progress.evaluations]
    for line in lines:
        del line["seconds"]
    return checkpoint.to_bytes(trainer.checkpoint), lines


class InterruptedTrainer(Trainer):
    """A trainer that stops after step ``at``, or inside the first evaluation from this step on."""

    at, inside = 0, False

    def _step(self) -> Any:
        event = super()._step()
        self.stop = self._progress.step == self.at and not self.inside
        return event

    def _check_stop(self, _: int = 0) -> None:
        self.stop = self.inside and self._progress.step >= self.at
        super()._check_stop()


def interrupted(run_plan: Plan, text: str, at: int, *, inside: bool = False) -> SavedRun:
    """Return the state of an interrupted run after saving and loading."""
    trainer = InterruptedTrainer(corpus(text), run_plan)
    trainer.at, trainer.inside = at, inside
    *_, finished = trainer.run()
    assert isinstance(finished, Finished)
    assert finished.outcome == "stopped"
    return from_bytes(to_bytes(SavedRun.capture(run_of(run_plan, text), trainer)), Path("run"))


KINDS = [
    pytest.param(
        cell,
        precision,
        dropout,
        id=f"{cell}-{precision}-{dropout}",
        marks=[] if (precision == "bf16") == (dropout > 0) else pytest.mark.slow,
    )
    for cell in ("lstm", "gru", "rnn")
    for precision in ("fp32", "bf16")
    for dropout in (0.0, 0.3)
]
INTERRUPTIONS = [
    pytest.param(LONG, False, id="mid-epoch"),
    pytest.param(SHORT, False, id="epoch-edge"),
    pytest.param(LONG, True, id="inside-an-evaluation"),
]


def check_resuming(steps: Any, cell: Cell, precision: Precision, dropout: float, text: str, inside: bool) -> None:
    run_plan = plan(
        text,
        cell=cell,
        precision=precision,
        dropout=dropout,
        engine="torch" if (cell, precision, dropout) == ("lstm", "fp32", 0.0) else "native",
    )
    uninterrupted = outcome(Trainer(corpus(text), run_plan))
    for step in steps:
        assert outcome(interrupted(run_plan, text, step, inside=inside).trainer(corpus(text))) == uninterrupted, step


@pytest.mark.parametrize(("cell", "precision", "dropout"), KINDS)
@pytest.mark.parametrize(("text", "inside"), INTERRUPTIONS)
def test_resumed_equals_uninterrupted(
    cell: Cell, precision: Precision, dropout: float, text: str, inside: bool
) -> None:
    check_resuming((1, 9, 18, 37), cell, precision, dropout, text, inside)


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "precision", "dropout"), KINDS)
@pytest.mark.parametrize(("text", "inside"), INTERRUPTIONS)
def test_resumed_equals_uninterrupted_at_every_step(
    cell: Cell, precision: Precision, dropout: float, text: str, inside: bool
) -> None:
    check_resuming(range(1, STEPS), cell, precision, dropout, text, inside)


@given(st.lists(st.integers(0, STEPS - 1), min_size=2, max_size=5, unique=True).map(sorted))
@settings(max_examples=5)
def test_a_run_can_be_interrupted_repeatedly(stops: list[int]) -> None:
    run_plan = plan(SHORT, dropout=0.3)
    trainer = Trainer(corpus(SHORT), run_plan)
    for stop in stops:
        if stop:
            for event in trainer.run():
                trainer.stop = isinstance(event, Step) and event.step == stop
        saved = from_bytes(to_bytes(SavedRun.capture(run_of(run_plan, SHORT), trainer)), Path("run"))
        trainer = saved.trainer(corpus(SHORT))
    assert outcome(trainer) == outcome(Trainer(corpus(SHORT), run_plan))


@pytest.mark.parametrize("threads", [1, 2])
def test_resuming_is_exact_with_several_threads(threads: int) -> None:
    run_plan = plan(dropout=0.3, engine="native", precision="bf16", threads=threads, batch_size=5)
    uninterrupted = outcome(Trainer(corpus(), run_plan))
    assert outcome(interrupted(run_plan, LONG, 23).trainer(corpus())) == uninterrupted


def test_patience_is_part_of_the_state() -> None:
    noise = "".join("abcd"[index] for index in np.random.default_rng(0).integers(4, size=1500))
    run_plan = plan(noise, hidden=64, steps=400, evaluations=100, validation=0.3, patience=4, learning_rate=0.01)
    uninterrupted = Trainer(corpus(noise), run_plan)
    expected = outcome(uninterrupted)
    last = uninterrupted.snapshot().progress.step
    assert last < 400
    assert outcome(interrupted(run_plan, noise, last - 5).trainer(corpus(noise))) == expected


def test_saving_a_loaded_state_gives_the_same_bytes() -> None:
    saved = interrupted(plan(dropout=0.3), LONG, 20)
    assert to_bytes(from_bytes(to_bytes(saved), Path("run"))) == to_bytes(saved)


def test_equal_weights_are_stored_once() -> None:
    run_plan, sizes = plan(hidden=64), {}
    for at in (7, 8):  # step 8 is an evaluation, after which the weights, best and last_good are equal
        trainer = Trainer(corpus(), run_plan)
        for event in trainer.run():
            if isinstance(event, Evaluation if at == 8 else Step) and event.step == at:
                sizes[at] = len(to_bytes(SavedRun.capture(run_of(run_plan), trainer)))
                break
    parameters = 4 * run_plan.model_config.num_parameters(run_plan.vocab_size)
    assert sizes[8] < 4.5 * parameters
    assert sizes[7] < 8.5 * parameters


# A larger budget


def test_a_finished_run_continues_with_a_larger_budget() -> None:
    run_plan = plan()
    trainer = Trainer(corpus(), run_plan)
    outcome(trainer)
    saved, notes = extend(SavedRun.capture(run_of(run_plan), trainer), Overrides(steps=2 * STEPS))
    assert notes == ["the budget is 100 steps instead of 50 steps; the learning-rate schedule is stretched"]
    resumed = saved.trainer(corpus())
    steps = [event.step for event in resumed.run() if isinstance(event, Step)]
    assert steps == list(range(STEPS + 1, 2 * STEPS + 1))
    assert resumed.checkpoint.training.steps == 2 * STEPS


def test_a_larger_budget_resets_patience() -> None:
    noise = "".join("abcd"[index] for index in np.random.default_rng(0).integers(4, size=1500))
    run_plan = plan(noise, hidden=64, steps=400, evaluations=100, validation=0.3, patience=4, learning_rate=0.01)
    trainer = Trainer(corpus(noise), run_plan)
    *_, finished = trainer.run()
    assert finished.outcome in ("overfitting", "stuck")
    saved, _ = extend(SavedRun.capture(run_of(run_plan, noise), trainer), Overrides(steps=500))
    resumed = list(saved.trainer(corpus(noise)).run())
    assert sum(isinstance(event, Evaluation) for event in resumed) >= 4
    assert isinstance(resumed[-1], Finished)
    assert resumed[-1].late_gain == 0


def test_a_stretched_schedule_equals_that_of_the_larger_budget() -> None:
    rates = []
    for run_plan, budget in ((plan(), {"steps": 200}), (plan(steps=200), {})):
        saved = extend(interrupted(run_plan, LONG, 20), Overrides(**budget))[0]
        trainer = saved.trainer(corpus())
        step = trainer._train_step.step
        trainer._train_step.step = lambda *given, step=step: rates.append(given[-1]) or step(*given)  # type: ignore[method-assign]
        next(trainer.run())
    assert rates[0] == rates[1]


@pytest.mark.parametrize("budget", [{"epochs": 3.0}, {"minutes": 1.0}, {"steps": 60}])
def test_the_new_budget_may_be_of_another_kind(budget: dict[str, Any]) -> None:
    saved = extend(interrupted(plan(SHORT), SHORT, 20), Overrides(**budget))[0]
    train = saved.run.plan.train_config
    assert {name: getattr(train, name) for name in ("epochs", "steps", "minutes")} == {
        "epochs": None, "steps": None, "minutes": None, **budget
    }  # fmt: skip
    assert 0 < saved.current.progress.fraction < 1


@pytest.mark.parametrize("budget", [{"steps": 20}, {"epochs": 0.3}, {"minutes": 1e-6}])
def test_a_spent_budget_is_rejected(budget: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"the run has already taken .*; give a larger total"):
        extend(interrupted(plan(), LONG, 20), Overrides(**budget))


def test_the_spent_one_of_two_budgets_is_named() -> None:
    saved = interrupted(plan(), LONG, 20)
    late = replace(saved, current=replace(saved.current, progress=replace(saved.current.progress, seconds=120.0)))
    with pytest.raises(SettingError, match=r"minutes: cannot be 1\.0, because the run has already taken 2 min"):
        extend(late, Overrides(steps=10_000, minutes=1.0))


def test_a_resumed_run_can_roll_back() -> None:
    run_plan = plan()
    trainer = Trainer(corpus(), run_plan)
    outcome(trainer)
    resumed = extend(SavedRun.capture(run_of(run_plan), trainer), Overrides(steps=2 * STEPS))[0].trainer(corpus())
    events = resumed.run()
    assert any(event.step == STEPS + 3 for event in events)
    resumed._network.output.bias.data.fill_(float("nan"))
    following = list(events)
    assert following[0].back_to == STEPS
    assert (following[-1].outcome, following[-1].step) == ("done", 2 * STEPS)


def test_repeating_the_budget_changes_nothing() -> None:
    saved = interrupted(plan(), LONG, 20)
    assert extend(saved, Overrides(steps=STEPS)) == (saved, [])


def test_minutes_include_the_time_before_the_interruption() -> None:
    run_plan = plan(minutes=1.0, steps=None)
    saved = interrupted(run_plan, LONG, 3)
    late = replace(saved, current=replace(saved.current, progress=replace(saved.current.progress, seconds=59.9)))
    *_, finished = late.trainer(corpus()).run()
    assert finished.outcome == "done"
    assert 60 <= finished.seconds < 70


def test_other_machine_settings_cause_a_note() -> None:
    saved, notes = extend(interrupted(plan(), LONG, 20), Overrides(threads=2, precision="auto", device="auto"))
    assert saved.run.plan.train_config.threads == 2
    assert "results may differ in the last bits" in notes[0]
    assert extend(saved, Overrides(threads=0))[1] == []
    assert (
        extend(interrupted(plan(engine="native"), LONG, 5), Overrides(device="cuda"))[0].run.plan.train_config.engine
        == "torch"
    )


# Settings that must stay the same


def test_another_text_is_rejected() -> None:
    run = run_of(plan())
    other = replace(corpus(), sha256="0" * 64, display_name="other.txt")
    with pytest.raises(ResumeError, match=r"other\.txt: is not the text of this run"):
        check_same(run, other, Overrides())


def test_a_text_of_another_length_is_rejected() -> None:
    other = replace(run_of(plan()), plan=replace(plan(), characters=plan().characters + 1))
    with pytest.raises(ResumeError, match="is not the text of this run: it has"):
        check_same(other, corpus(), Overrides())


@pytest.mark.parametrize(
    ("name", "value"), [("hidden", 9), ("cell", "gru"), ("seed", 1), ("learning_rate", 1.0), ("from_model", "x")]
)
def test_another_setting_is_rejected_and_named(name: str, value: Any) -> None:
    run = run_of(plan())
    with pytest.raises(SettingError) as caught:
        check_same(run, corpus(), Overrides(**{name: value}))
    assert caught.value.subject == name


def test_repeated_settings_are_accepted_even_if_the_plan_reduced_them() -> None:
    run = replace(run_of(plan()), overrides=Overrides(batch_size=4000, hidden=8))
    check_same(run, corpus(), Overrides(batch_size=4000, hidden=8, seq_length=16, steps=99))


# Damage


def test_a_flipped_bit_in_a_state_is_detected() -> None:
    data = bytearray(to_bytes(interrupted(plan(), LONG, 20)))
    for index in [*range(0, 4000, 41), *range(4000, len(data), 997)]:
        data[index] ^= 4
        with pytest.raises(ModelFileError):
            from_bytes(bytes(data), Path("run"))
        data[index] ^= 4


def test_a_state_whose_best_weights_are_not_finite_is_damaged() -> None:
    """So `Checkpointer.find` takes the backup."""
    saved = interrupted(plan(), LONG, 9)
    name, array = next(iter(saved.best.items()))
    data = to_bytes(replace(saved, best={**saved.best, name: np.full_like(array, np.nan)}))
    with pytest.raises(DamagedFileError, match="the best weights are not finite"):
        from_bytes(data, Path("state"))


def test_model_and_state_files_are_not_interchangeable(tmp_path: Path) -> None:
    saved = interrupted(plan(), LONG, 20)
    model = checkpoint.to_bytes(saved.trainer(corpus()).checkpoint)
    with pytest.raises(ModelFileError, match="is a charrnn model, but not the state of a training run"):
        from_bytes(model, Path("run"))
    path = tmp_path / "run.safetensors"
    path.write_bytes(to_bytes(saved))
    with pytest.raises(ModelFileError, match="is the state of a training run, but not a charrnn model"):
        checkpoint.load(path)


def test_the_log_is_json() -> None:
    trainer = Trainer(corpus(), plan())
    outcome(trainer)
    lines = [json.loads(line) for line in run_log.to_bytes(trainer.snapshot().progress.evaluations).splitlines()]
    assert [line["step"] for line in lines] == [8, 15, 22, 29, 36, 43, 50]
    assert {"step", "epoch", "train_nats", "validation_nats", "learning_rate", "seconds", "best"} <= set(lines[0])


@cache
def saved_bytes() -> bytes:
    """Return the training state of a run after 20 steps, whose best model is an earlier one."""
    saved = interrupted(plan(), LONG, 20)
    best = {name: array.copy() for name, array in saved.best.items()}
    return to_bytes(replace(saved, best=best))


def set_at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return a function that sets a value in a header, given the names on the way to it."""

    def change(header: dict[str, Any]) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            header = header[parent]
        header[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("current.evaluations_since_best", -5), "current.evaluations_since_best: invalid value -5"),
        (
            lambda header: header["current"].update(step=1, best_step=0),
            "current: the last evaluation is later",
        ),
        (set_at("current.best_step", 21), "current: best_step is larger than step"),
        (set_at("current.seconds", math.nan), "is damaged: its header is invalid"),
        (set_at("current.seconds", 10**400), "current.seconds is 1000"),
        (set_at("current.finished", True), "current: the run is finished without an outcome"),
        (lambda header: header["current"].update(evaluation_due=True, nats_count=0), "current: an evaluation is due"),
        (lambda header: header["current"]["evaluations"].reverse(), "step 8 follows step 15"),
        (set_at("corpus", None), "corpus is None, not an object"),
        (set_at("corpus.sha256", "x"), "corpus.sha256: invalid value x"),
        (set_at("read_config.separator", 5), "read_config.separator is 5, not a string"),
        (set_at("read_config.documents", "lines"), "vocabulary: has no document boundary, but documents is lines"),
        (set_at("vocabulary", "ab"), "vocabulary: does not have plan.vocab_size symbols"),
        (set_at("vocabulary", "aa"), "vocabulary: a vocabulary needs one or more distinct symbols"),
        (set_at("plan.train_config.steps", None), "plan: the run has no budget"),
        (set_at("plan.train_config.seq_length", 10**6), "plan: the batches are larger than the text"),
        (set_at("plan.train_config.batch_size", 5), "is missing, unknown, or of the wrong shape"),
        (set_at("plan.train_config.device", "auto"), "device, precision, engine or threads are not decided"),
        (set_at("plan.validation_characters", 10**6), "plan: the validation text leaves nothing to train on"),
        (set_at("plan.model_config.hidden", 9), "is missing, unknown, or of the wrong shape"),
        (
            set_at("plan.model_config.layers", 10**12),
            "plan.model_config.layers: is larger than the number of tensors",
        ),
        (set_at("aliases", {"best.output.bias": "nothing"}), "aliases: there is no tensor nothing"),
        (set_at("overrides.steps", 1.5), "overrides.steps is 1.5, not an integer"),
        (set_at("rollbacks", -1), "rollbacks: invalid value -1"),
        (lambda header: header.pop("history"), "history is missing"),
    ],
)
def test_a_contradictory_state_is_rejected(change: Callable[[dict[str, Any]], object], message: str) -> None:
    contents = container.from_bytes(RUN_STATE, saved_bytes(), Path("run"))
    header = copy.deepcopy(contents.header)
    change(header)
    with pytest.raises(DamagedFileError, match=re.escape(message)):
        from_bytes(container.to_bytes(RUN_STATE, header, contents.arrays), Path("run"))


@pytest.mark.parametrize(
    "change",
    [lambda array: array[:-1], lambda array: array.astype(np.float64), lambda array: array * np.float32(math.nan)],
    ids=["shape", "type", "not finite"],
)
def test_senseless_weights_of_the_best_model_are_rejected(change: Callable[[Any], Any]) -> None:
    contents = container.from_bytes(RUN_STATE, saved_bytes(), Path("run"))
    arrays = {name: change(array) if name == "best.output.bias" else array for name, array in contents.arrays.items()}
    assert arrays.keys() & {"best.output.bias"}
    with pytest.raises(ModelFileError):
        from_bytes(container.to_bytes(RUN_STATE, contents.header, arrays), Path("run"))
