"""The training state file, from which a run continues bit for bit, and the changes that --resume allows.

The file is a container (``io/container.py``). The header contains the plan, the settings that the user chose, the
identity of the text, the vocabulary and the `Progress` (`_Header`). The tensors are those of the current
`TrainerState`, of the last good one, and of the best model. Tensors that they share are stored once. Random
generators are not saved, because the random numbers of dropout depend only on the seed and the step
(`TrainStep.step`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from charrnn.checkpoint import BaseRecord, Tensors, are_finite, read_vocabulary
from charrnn.config import ReadConfig, TrainConfig
from charrnn.config.checks import Integer, check_digest, check_text
from charrnn.config.overrides import Overrides
from charrnn.config.schema import SchemaError, from_json, to_json
from charrnn.config.settings import checked
from charrnn.data.corpus import Corpus
from charrnn.data.vocabulary import Vocabulary
from charrnn.errors import DamagedFileError, ResumeError, SettingError
from charrnn.io import container
from charrnn.io.container import RUN_STATE, Contents
from charrnn.rnn.state import State
from charrnn.training.plan import Plan
from charrnn.training.run_log import check_order
from charrnn.training.trainer_state import AVERAGES, Progress, TrainerState
from charrnn.units import format_duration

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

BUDGETS = ("epochs", "steps", "minutes")
MACHINE_SETTINGS = ("device", "threads", "precision", "engine")  # change the speed of a run, and rounding errors
_START_AGAIN = "start again with --force"


@dataclass(frozen=True, kw_only=True)
class History:
    """The model that a run started from, and the changes of its settings."""

    from_: BaseRecord | None = None  # model with the initial weights
    changed: tuple[str, ...] = ()  # changes of the settings on --resume

    def __post_init__(self) -> None:
        for change in self.changed:
            check_text("changed", change)


NO_HISTORY = History()


@dataclass(frozen=True)
class Run:
    """The identity of a run. Only the budget and the `MACHINE_SETTINGS` of its plan can change."""

    plan: Plan
    overrides: Overrides  # settings that the user chose
    name: str  # name of the text
    sha256: str  # digest of the text
    vocabulary: Vocabulary
    read_config: ReadConfig  # how the text is read
    history: History = NO_HISTORY

    @classmethod
    def create(cls, plan: Plan, overrides: Overrides, corpus: Corpus, history: History = NO_HISTORY) -> "Run":
        """Return a new run on a corpus."""
        return cls(plan, overrides, corpus.name, corpus.sha256, corpus.vocabulary, corpus.read_config, history)


@dataclass(frozen=True)
class SavedRun:
    """A run and its state between two steps."""

    run: Run
    current: TrainerState
    last_good: TrainerState  # state to which the run rolls back
    best: Tensors  # weights of the best model
    rollbacks: int  # number of rollbacks so far

    @classmethod
    def capture(cls, run: Run, trainer: "Trainer") -> "SavedRun":
        """Return the run with the current state of its trainer, between two steps."""
        return cls(run, trainer.snapshot(), trainer.last_good, trainer.best, trainer.rollbacks)

    def trainer(self, corpus: Corpus) -> "Trainer":
        """Return a trainer that continues the run. This imports torch."""
        from charrnn.training.trainer import Trainer

        trainer = Trainer(corpus, self.run.plan, self.run.history)
        trainer.resume(self.current, self.last_good, self.best, self.rollbacks)
        return trainer


@dataclass(frozen=True, kw_only=True)
class _Text:
    name: str = checked(check_text)
    sha256: str = checked(check_digest)


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The header of the file: the fields of `Run` and `SavedRun` without the tensors."""

    plan: Plan
    overrides: Overrides
    corpus: _Text
    vocabulary: str
    read_config: ReadConfig
    history: History
    current: Progress
    last_good: Progress
    rollbacks: int = checked(Integer(0))
    aliases: Mapping[str, str]  # tensors that are stored once and used under several names: name -> stored name

    def __post_init__(self) -> None:
        train = self.plan.train_config
        if "auto" in (train.device, train.precision, train.engine) or not train.threads:
            raise ValueError("plan.train_config: device, precision, engine or threads are not decided")
        check_order(self.current.evaluations)
        check_order(self.last_good.evaluations)


def to_bytes(saved: SavedRun) -> bytes:
    """Return the training state as the bytes of a file."""
    groups: dict[str, Tensors] = {
        "current": saved.current.tensors,
        "last_good": saved.last_good.tensors,
        "best": saved.best,
    }
    stored, names = {}, {}
    stored_names: dict[int, str] = {}
    for group, tensors in groups.items():
        for name, array in tensors.items():
            stored_name = stored_names.setdefault(id(array), f"{group}.{name}")
            stored[stored_name] = array
            names[f"{group}.{name}"] = stored_name
    run = saved.run
    header = _Header(
        plan=run.plan, overrides=run.overrides, corpus=_Text(name=run.name, sha256=run.sha256),
        vocabulary=run.vocabulary.symbols, read_config=run.read_config, history=run.history,
        current=saved.current.progress, last_good=saved.last_good.progress, rollbacks=saved.rollbacks,
        aliases={name: stored_name for name, stored_name in names.items() if name != stored_name},
    )  # fmt: skip
    return container.to_bytes(RUN_STATE, to_json(header), stored)


def from_bytes(data: bytes, path: Path) -> SavedRun:
    """Return the training state from the result of `to_bytes`.

    Args:
        data: Bytes of a file.
        path: Path of the file, for error messages.

    Raises:
        ModelFileError: If the bytes are damaged, or not a training state.
    """
    return _from_contents(path, container.from_bytes(RUN_STATE, data, path))


def read(path: Path) -> SavedRun:
    """Return the training state from a file.

    Raises:
        ModelFileError: If the file cannot be read, is damaged, or is not a training state.
    """
    return _from_contents(path, container.read(RUN_STATE, path))


def check_same(run: Run, corpus: Corpus, overrides: Overrides) -> None:
    """Check that a run may continue with a text and settings.

    The text must be the same. Of the settings, only the budget and `MACHINE_SETTINGS` may change.

    Args:
        run: Run to continue.
        corpus: The text.
        overrides: Settings that the user chose for resuming.

    Raises:
        ResumeError: If the text differs.
        SettingError: If a setting differs.
    """
    difference = ""
    if corpus.sha256 != run.sha256:
        difference = f"its SHA-256 is {corpus.sha256[:12]}..., not {run.sha256[:12]}..."
    elif len(corpus.stored_ids) != run.plan.characters:
        difference = f"it has {len(corpus.stored_ids):,} characters, not {run.plan.characters:,}"
    if difference:
        reason = f"is not the text of this run: {difference}"
        raise ResumeError(corpus.display_name, reason, f"give the original text, or {_START_AGAIN}")
    configs = (run.plan.model_config, run.plan.train_config, run.read_config)
    for setting, value in overrides.chosen():
        if setting in (*BUDGETS, *MACHINE_SETTINGS):
            continue
        chosen = getattr(run.overrides, setting)
        planned = next((getattr(config, setting) for config in configs if hasattr(config, setting)), None)
        if value not in (chosen, planned):  # they differ if the plan reduced the chosen value
            current = chosen if planned is None else planned
            reason = f"cannot be {value}, because the run " + (
                "started without it" if current is None else f"started with {current}"
            )
            raise SettingError(setting, reason, f"leave it out to resume, or {_START_AGAIN}")


def extend(saved: SavedRun, overrides: Overrides) -> tuple[SavedRun, list[str]]:
    """Return the run with the chosen budget and `MACHINE_SETTINGS`, and notes about the changes.

    A new budget rescales the learning-rate schedule. The next learning rate is the one for the share of the new
    budget that is already spent.

    Raises:
        SettingError: If the new budget is already spent, or the chosen device and engine exclude each other.
    """
    plan, progress, notes = saved.run.plan, saved.current.progress, []
    if changes := _changed_machine_settings(plan.train_config, overrides):
        listed = ", ".join(f"{name} {value}" for name, value in changes.items())
        notes.append(f"resuming with {listed}; from here on, results may differ in the last bits")
        plan = replace(plan, train_config=replace(plan.train_config, **changes))
    budgets = [name for name in BUDGETS if getattr(overrides, name) is not None]
    if any(getattr(overrides, name) != getattr(plan.train_config, name) for name in budgets):
        old_budget = _describe_budget(plan)
        train = replace(plan.train_config, epochs=overrides.epochs, steps=overrides.steps, minutes=overrides.minutes)
        plan = plan.with_budget(train)
        if plan.budget_spent(progress.step, progress.seconds) >= 1:
            _refuse_spent_budget(plan, progress, budgets)
        change = "stretched" if plan.steps > saved.run.plan.steps else "shortened"
        progress, last_good = (_rescaled(old, plan) for old in (progress, saved.last_good.progress))
        saved = replace(saved, last_good=replace(saved.last_good, progress=last_good))
        new_budget = _describe_budget(plan)
        notes.append(f"the budget is {new_budget} instead of {old_budget}; the learning-rate schedule is {change}")
    changed = (*saved.run.history.changed, *(f"step {progress.step}: {note}" for note in notes))
    history = replace(saved.run.history, changed=changed)
    run = replace(saved.run, plan=plan, history=history)
    return replace(saved, run=run, current=replace(saved.current, progress=progress)), notes


def _changed_machine_settings(train: TrainConfig, overrides: Overrides) -> dict[str, Any]:
    """Return the settings of `MACHINE_SETTINGS` that are chosen and differ from those of a run."""
    chosen = {name: getattr(overrides, name) for name in MACHINE_SETTINGS}
    changes = {
        name: value
        for name, value in chosen.items()
        if value not in (None, "auto", 0) and value != getattr(train, name)
    }
    if changes.get("device", "cpu") != "cpu":
        if changes.get("engine") == "native":
            raise SettingError(
                "engine", f"native cannot be combined with --device {changes['device']}", "leave it out"
            )
        changes["engine"] = "torch"  # the compiled kernels run on the CPU only
    return changes


def _refuse_spent_budget(plan: Plan, progress: Progress, budgets: Sequence[str]) -> NoReturn:
    """Raise a SettingError about the first of the budgets that is spent."""
    step, seconds = progress.step, progress.seconds
    name = next(name for name in budgets if _with_only_budget(plan, name).budget_spent(step, seconds) >= 1)
    spent = {
        "minutes": format_duration(seconds),
        "steps": f"{step:,} steps",
        "epochs": f"{step / plan.steps_per_epoch:.1f} epochs",
    }
    value = getattr(plan.train_config, name)
    reason = f"cannot be {value}, because the run has already taken {spent[name]}"
    raise SettingError(name, reason, "give a larger total")


def _with_only_budget(plan: Plan, budget: str) -> Plan:
    """Return the plan without its other budgets."""
    others: dict[str, Any] = {name: None for name in BUDGETS if name != budget}
    return plan.with_budget(replace(plan.train_config, **others))


def _rescaled(progress: Progress, plan: Plan) -> Progress:
    """Return the progress of a run as part of a new budget."""
    return replace(
        progress,
        fraction=plan.budget_spent(progress.step, progress.seconds),
        outcome=None,
        finished=False,
        early_best_nats=progress.best_nats,
        evaluations_since_best=0 if progress.outcome else progress.evaluations_since_best,
    )


def _describe_budget(plan: Plan) -> str:
    train = plan.train_config
    budgets = {
        "minutes": train.minutes and format_duration(60 * train.minutes),
        "epochs": train.epochs and f"{train.epochs:g} epochs",
        "steps": train.steps and f"{train.steps:,} steps",
    }
    return " or ".join(budget for budget in budgets.values() if budget)


def _from_contents(path: Path, contents: Contents) -> SavedRun:
    """Check the contents of a file, and return the training state.

    Raises:
        DamagedFileError: If they are not a training state.
    """
    try:
        header = from_json(_Header, contents.header)
        vocabulary = read_vocabulary(header.vocabulary, header.read_config)
        if len(vocabulary) != header.plan.vocab_size:
            raise SchemaError("vocabulary: does not have plan.vocab_size symbols")
        tensors = _tensors(header, contents.arrays)
        states = {name: TrainerState(Progress(), tensors).part(name) for name in ("current", "last_good", "best")}
        if not are_finite(states["best"]):
            raise SchemaError("the best weights are not finite or far too large")
    except SchemaError as error:
        raise DamagedFileError(str(path), f"does not describe a run: {error}", _START_AGAIN) from None
    run = Run(
        header.plan, header.overrides, header.corpus.name, header.corpus.sha256, vocabulary, header.read_config,
        header.history,
    )  # fmt: skip
    current, last_good = (
        TrainerState(header.current, states["current"]), TrainerState(header.last_good, states["last_good"])
    )  # fmt: skip
    return SavedRun(run, current, last_good, states["best"], header.rollbacks)


def _tensors(header: _Header, arrays: Tensors) -> Tensors:
    """Return all tensors by name, including aliases.

    Infinite and NaN values are allowed: the trainer rolls back if the loss is not finite.

    Raises:
        SchemaError: If a tensor is missing or unknown, or has the wrong shape or type.
    """
    plan = header.plan
    if plan.model_config.layers > len(arrays):  # listing the expected names could take too much memory
        raise SchemaError("plan.model_config.layers: is larger than the number of tensors")
    if unknown := set(header.aliases.values()) - arrays.keys():
        raise SchemaError(f"aliases: there is no tensor {min(unknown)}")
    tensors = {**arrays, **{name: arrays[stored_name] for name, stored_name in header.aliases.items()}}
    weights = plan.model_config.tensor_shapes(plan.vocab_size)
    batch = np.broadcast_to(np.float32(0), (plan.train_config.batch_size, plan.model_config.hidden))
    state = {name: part.shape for name, part in State.zeros(plan.model_config, 1, lambda _: batch).named()}
    expected = {f"best.{name}": shape for name, shape in weights.items()}
    for group in ("current", "last_good"):
        expected |= {f"{group}.{name}": shape for name, shape in state.items()}
        for part in ("weights", *AVERAGES):
            expected |= {f"{group}.{part}.{name}": shape for name, shape in weights.items()}
    if wrong := expected.items() ^ {name: array.shape for name, array in tensors.items()}.items():
        raise SchemaError(f"the tensor {min(wrong)[0]} is missing, unknown, or of the wrong shape")
    if any(array.dtype != np.float32 for array in arrays.values()):
        raise SchemaError("the tensors are not of type float32")
    return tensors
