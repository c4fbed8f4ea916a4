"""The trainer: training, carried states, evaluations, budgets and rollbacks."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from charrnn import checkpoint
from charrnn.config.overrides import Overrides
from charrnn.data.corpus import Corpus
from charrnn.data.corpus_reader import corpus_from_text
from charrnn.data.dataloader import IGNORE_INDEX
from charrnn.errors import TrainingError
from charrnn.evaluation.metrics import mean_nats
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.torch_scorer import TorchScorer
from charrnn.training import run_clock
from charrnn.training import trainer as module
from charrnn.training.events import Evaluation, Event, Finished, RolledBack, Step
from charrnn.training.plan import Plan, StepTiming, make_plan, schedule
from charrnn.training.trainer import Trainer

TEXT = "she sells sea shells by the sea shore, the shells she sells are sea shells for sure.\n" * 40

NOISE = "".join("abcd"[index] for index in np.random.default_rng(0).integers(4, size=1500))
OVERFITTING = {
    "hidden": 64,
    "learning_rate": 0.01,
    "validation": 0.3,
    "evaluations": 100,
}  # settings that memorize noise


def corpus(text: str = TEXT) -> Corpus:
    return corpus_from_text(text, name="test")


def plan(text: str = TEXT, **settings: Any) -> Plan:
    settings = {"hidden": 16, "layers": 1, "device": "cpu", "batch_size": 4, "seq_length": 16, **settings}
    timing = StepTiming(
        0.01, settings.get("precision", "fp32"), settings.get("engine", "native"), settings.get("threads", 1)
    )
    return make_plan(len(text), len(set(text)), Overrides(**settings), lambda *_: timing)


def run(text: str = TEXT, **settings: Any) -> tuple[Trainer, list[Event]]:
    trainer = Trainer(corpus(text), plan(text, **settings))
    return trainer, list(trainer.run())


def evaluations(events: list[Event]) -> list[Evaluation]:
    return [event for event in events if isinstance(event, Evaluation)]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_loss_decreases() -> None:
    _, events = run(steps=200)
    first, last = evaluations(events)[0], evaluations(events)[-1]
    assert last.validation_nats is not None
    assert first.validation_nats is not None
    assert last.validation_nats < 0.7 * first.validation_nats


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_bytes(cell: str, precision: str) -> None:
    one, other = (run(steps=12, cell=cell, precision=precision, dropout=0.3, seed=5)[0] for _ in range(2))
    assert checkpoint.to_bytes(one.checkpoint) == checkpoint.to_bytes(other.checkpoint)


def test_another_seed_gives_another_model() -> None:
    one, other = (run(steps=5, seed=seed)[0].checkpoint.tensors["output.weight"] for seed in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_number_of_evaluations_does_not_change_training(dropout: float) -> None:
    rarely, often = (run(steps=30, evaluations=n, dropout=dropout, patience=0)[1] for n in (1, 15))
    assert [e.nats for e in rarely if isinstance(e, Step)] == [e.nats for e in often if isinstance(e, Step)]


def test_the_state_is_carried_across_chunks_and_reset_at_each_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state_norms: list[float] = []
    step = module.TrainStep.step

    def recording(self: Any, number: int, inputs: Any, targets: Any, state: Any, rate: float) -> Any:
        state_norms.append(sum(float(part.abs().sum()) for _, part in state.named()))
        return step(self, number, inputs, targets, state, rate)

    monkeypatch.setattr(module.TrainStep, "step", recording)
    trainer, _ = run(steps=100, patience=0)
    chunks = trainer._loader.steps_per_epoch
    assert 3 < chunks < 99
    zero = [index for index, size in enumerate(state_norms) if size == 0]
    assert zero == list(range(0, 100, chunks))


def test_the_carried_state_provides_context_beyond_a_chunk() -> None:
    text = "hello\n" * 400  # with T = 1, only a carried state distinguishes the two l
    _, events = run(text, steps=1500, seq_length=1, batch_size=4, hidden=24, learning_rate=0.01, patience=0)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.validation_nats is not None
    assert finished.validation_nats < 0.15  # 0.23 = ln(2) / 6 * 2 without telling them apart


def test_a_budget_in_steps_is_exact() -> None:
    _, events = run(steps=17)
    assert sum(isinstance(event, Step) for event in events) == 17
    assert isinstance(events[-1], Finished)
    assert events[-1].outcome == "done"


def test_a_budget_in_epochs_reads_the_text_that_often() -> None:
    trainer, events = run(epochs=2.0, patience=0)
    assert sum(isinstance(event, Step) for event in events) == 2 * trainer._loader.steps_per_epoch
    assert evaluations(events)[-1].epoch == pytest.approx(2)


def test_a_budget_in_minutes_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10**6))
    monkeypatch.setattr(run_clock.time, "monotonic", lambda: 0.5 * next(now))
    _, events = run(minutes=0.5)
    fractions = [event.fraction for event in events if isinstance(event, Step)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert 8 < len(fractions) < 60


def test_the_smaller_of_two_budgets_ends_the_run() -> None:
    _, events = run(minutes=60, steps=7)
    assert sum(isinstance(event, Step) for event in events) == 7
    assert events[-1].outcome == "done"


def test_evaluations_are_evenly_spaced_with_one_at_the_end() -> None:
    _, events = run(steps=40, evaluations=4, patience=0)
    assert [event.step for event in evaluations(events)] == [10, 20, 30, 40]


def test_stopping_ends_the_run_after_the_current_step_with_a_model() -> None:
    trainer = Trainer(corpus(), plan(steps=1000))
    events = []
    for event in trainer.run():
        events.append(event)
        if isinstance(event, Step) and event.step == 3:
            trainer.stop = True
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.outcome, finished.step) == ("stopped", 3)
    assert finished.validation_nats is None  # an evaluation would delay the end
    np.testing.assert_equal(trainer.checkpoint.tensors, trainer.latest()[1])
    assert trainer.checkpoint.training.outcome == "stopped"


def test_a_stopped_run_has_averaged_weights_that_beat_the_current_ones() -> None:
    text = "".join("ab cd. efg"[index] for index in np.random.default_rng(0).integers(10, size=30_000).cumsum() % 10)
    trainer = Trainer(corpus(text), plan(text, steps=600, hidden=32, learning_rate=0.03, batch_size=16))
    for event in trainer.run():
        if isinstance(event, Step) and event.step == 300:
            trainer.stop = True
    last, average = trainer.snapshot().part("weights"), trainer.latest()[1]
    ids, network = corpus(text).split(6000)[1], CharRNN(trainer._plan.model_config, len(set(text)))
    nats = []
    for tensors in (last, average):
        network.load_tensors(tensors)
        nats.append(mean_nats(TorchScorer(network), ids))
    assert nats[1] < nats[0]


def test_before_the_first_step_the_model_has_the_initial_weights() -> None:
    other = CharRNN(plan().model_config, len(set(TEXT)))
    other.initialize(seed=7)
    trainer = Trainer(corpus(), plan(steps=5))
    trainer.load_weights(other.tensors())
    np.testing.assert_equal(trainer.checkpoint.tensors, other.tensors())


def test_overfitting_ends_the_run_early_with_the_best_model() -> None:
    trainer, events = run(NOISE, steps=4000, **OVERFITTING, patience=4)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.outcome == "overfitting"
    assert finished.step < 4000
    validation_nats = [event.validation_nats for event in evaluations(events)]
    assert min(validation_nats) < validation_nats[-1]
    assert trainer.checkpoint.training.best_step == evaluations(events)[int(np.argmin(validation_nats))].step


def test_without_patience_the_run_continues_to_the_end() -> None:
    _, events = run(NOISE, steps=300, **OVERFITTING, patience=0)
    assert events[-1].step == 300


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_final_figure_is_that_of_the_saved_model(precision: str) -> None:
    trainer, events = run(steps=60, precision=precision)
    model = trainer.checkpoint
    network = CharRNN(model.model_config, len(model.vocabulary))
    network.load_tensors(model.tensors)
    _, validation = corpus().split(len(TEXT) - int(0.9 * len(TEXT)))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.validation_nats == pytest.approx(mean_nats(TorchScorer(network), validation), abs=1e-6)
    assert model.training.validation_nats == finished.validation_nats


def test_the_record_contains_the_steps_and_the_outcome() -> None:
    record = run(steps=9)[0].checkpoint.training
    assert (record.steps, record.outcome) == (9, "done")


def test_the_late_gain_is_the_improvement_in_the_last_fifth() -> None:
    _, events = run(steps=50, evaluations=10, patience=0, learning_rate=0.003)
    validation_nats = [event.validation_nats for event in evaluations(events)]
    assert events[-1].late_gain == pytest.approx(min(validation_nats[:8]) - min(validation_nats))
    assert events[-1].late_gain > 0


def test_a_constant_loss_is_stuck_and_not_overfitting() -> None:
    _, events = run("a" * 3000, steps=400, evaluations=100, patience=3)
    assert events[-1].outcome == "stuck"


def test_nan_weights_are_never_the_best_model(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(corpus(), plan(steps=3, evaluations=3, validation=0.0))
    for event in trainer.run():
        if event.step == 2:
            break
    trainer._network.output.bias.data.fill_(math.nan)
    assert not trainer._evaluate().best
    assert all(np.isfinite(array).all() for array in trainer.checkpoint.tensors.values())


def test_unused_weights_decay() -> None:
    text = "ab" * 300 + "c" + "ab" * 300  # the gradient of the input weights of c is almost always zero
    one, other = (
        run(text, steps=40, weight_decay=decay, warmup=0.0, validation=0.0, seq_length=8)[0] for decay in (0.0, 1.0)
    )
    norms = [np.abs(trainer.checkpoint.tensors["layers.0.weight_ih"][:, 2]).sum() for trainer in (one, other)]
    assert norms[1] < 0.9 * norms[0]


def test_without_validation_the_last_weights_are_saved_without_a_figure() -> None:
    trainer, events = run(steps=20, validation=0.0)
    assert events[-1].validation_nats is None
    assert trainer.checkpoint.training.best_step == 20


def test_the_validation_text_is_never_trained_on() -> None:
    training_text = TEXT[: len(TEXT) // 2]
    text = training_text + training_text.swapcase()
    trainer, _ = run(text, steps=20, validation=0.5)
    chunks = [trainer._loader.get_batch(step) for step in range(2 * trainer._loader.steps_per_epoch)]
    read = {symbol for inputs, targets in chunks for symbol in np.unique([inputs, targets]).tolist()} - {IGNORE_INDEX}
    assert read == set(corpus(text).vocabulary.encode(training_text).tolist())


def set_nan_weights(trainer: Trainer, events: Iterator[Event], step: int) -> None:
    """Run to a step, and then set weights to NaN."""
    assert any(event.step == step for event in events)
    trainer._network.output.bias.data.fill_(math.nan)


def test_a_nan_loss_rolls_back_and_halves_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(corpus(), plan(steps=100, evaluations=20, learning_rate=0.01))
    events = trainer.run()
    set_nan_weights(trainer, events, 33)
    back = next(event for event in events if isinstance(event, RolledBack))
    assert (back.step, back.back_to, back.learning_rate) == (34, 30, 0.005)
    assert math.isnan(back.nats)
    rates, step = [], trainer._train_step.step
    monkeypatch.setattr(trainer._train_step, "step", lambda *args: rates.append(args[-1]) or step(*args))
    following = list(events)
    assert following[0].step == 31
    assert rates[0] == pytest.approx(0.005 * schedule(0.3, 0.02))
    assert (following[-1].step, following[-1].outcome) == (100, "done")
    logged = [entry.step for entry in trainer.snapshot().progress.evaluations]
    assert logged == sorted(set(logged))


def test_a_rollback_restores_the_exact_state() -> None:
    failing, intact = (Trainer(corpus(), plan(steps=100, evaluations=20, dropout=0.2)) for _ in range(2))
    failing_events, intact_events = failing.run(), intact.run()
    set_nan_weights(failing, failing_events, 33)
    assert any(event.step == 30 and isinstance(event, Evaluation) for event in intact_events)
    intact.rollbacks = 1
    assert next(event.nats for event in failing_events if isinstance(event, Step)) == next(intact_events).nats
    assert next(failing_events) == next(intact_events)


def test_a_loss_that_stays_infinite_ends_the_run_and_keeps_the_best_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(corpus(), plan(steps=100, evaluations=20, learning_rate=0.01))
    step = trainer._train_step.step
    monkeypatch.setattr(
        trainer._train_step, "step", lambda *args: step(*args) if args[0] < 33 else (math.inf, args[3])
    )
    seen = []
    with pytest.raises(
        TrainingError, match=r"the loss is inf at step 34, even with .* 0\.00031; start again .*--lr below"
    ):
        seen.extend(trainer.run())
    assert sum(isinstance(event, RolledBack) for event in seen) == 5
    assert trainer.checkpoint.training.best_step > 0
    assert all(np.isfinite(array).all() for array in trainer.checkpoint.tensors.values())


@pytest.mark.parametrize("text", ["ab", "hello", "aaaa", "aaaaaaaaaaaaaaaaaaaaaaaaaa"])
def test_tiny_texts_train(text: str) -> None:
    timing = StepTiming(0.01, "fp32", "native", 2)
    run_plan = make_plan(len(text), len(set(text)), Overrides(device="cpu", steps=5), lambda *_: timing)
    trainer = Trainer(corpus(text), run_plan)
    assert isinstance(list(trainer.run())[-1], Finished)


def test_the_gradient_is_clipped() -> None:
    one, other = (run(steps=1, grad_clip=clip, warmup=0.0)[0] for clip in (1e-9, 0.0))
    # The first step of AdamW is learning_rate * g / (|g| + 1e-8), almost zero if g is clipped far below 1e-8.
    start = CharRNN(plan().model_config, len(set(TEXT)))
    start.initialize(0)
    moved = [
        np.abs(trainer.checkpoint.tensors["output.bias"] - start.tensors()["output.bias"]).max()
        for trainer in (one, other)
    ]
    assert moved[0] < 0.1 * moved[1]


def test_the_schedule_rises_and_then_falls_to_zero() -> None:
    rates = [schedule(fraction / 1000, 0.1) for fraction in range(1001)]
    top = rates.index(max(rates))
    assert 0 < rates[0] < 0.05
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 80 <= top <= 110
    assert max(rates) <= 1
    assert rates[-1] == pytest.approx(0)


def test_dropout_applies_to_training_but_not_to_evaluation() -> None:
    with_dropout, without_dropout = run(steps=1, dropout=0.5), run(steps=1, dropout=0.0)
    assert evaluations(with_dropout[1])[0].train_nats != evaluations(without_dropout[1])[0].train_nats
    trainer = Trainer(corpus(), replace(plan(steps=1), model_config=replace(plan().model_config, dropout=0.5)))
    trainer._progress = replace(trainer._progress, nats_count=1)
    first = trainer._evaluate().validation_nats
    trainer._progress = replace(trainer._progress, nats_count=1)
    assert trainer._evaluate().validation_nats == first
