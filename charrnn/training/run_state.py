"""Everything a run needs to go on bit for bit, as bytes, and the rules by which it may go on.

The state of a run is a container (``io/container.py``) that is complete alone: its header holds the plan, the user's
settings, the identity of the text, the vocabulary and the `Progress`; its tensors are those of the `TrainerState` it
goes on from, of the one it would roll back to and of the best model, each stored once. There are no random generators
to save: dropout's numbers follow from seed and step (`TrainStep.step`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from charrnn.checkpoint import Tensors, check_tensors
from charrnn.config import ModelConfig, ReadConfig, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.data.corpus import Corpus
from charrnn.data.vocabulary import Vocabulary
from charrnn.errors import CharrnnError, ModelFileError, ResumeError, SettingError
from charrnn.io import container
from charrnn.io.container import RUN_STATE
from charrnn.training.plan import Plan
from charrnn.training.trainer_state import Progress, TrainerState
from charrnn.units import format_duration

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

BUDGETS = ("epochs", "steps", "minutes")
MACHINE_SETTINGS = ("device", "threads", "precision", "engine")  # where and how it is computed, not what
_AGAIN = "start again with --force"


@dataclass(frozen=True)
class Run:
    """What a run is, which never changes but for its budget."""

    plan: Plan
    overrides: Overrides  # the settings that the user chose
    name: str  # of the text
    sha256: str
    vocabulary: Vocabulary
    read_config: ReadConfig  # how the text is read
    history: Mapping[str, Any] = field(default_factory=dict)  # for the record: ``from`` which model the first weights
    # came, and what was ``changed`` on the way

    @classmethod
    def create(
        cls, plan: Plan, overrides: Overrides, corpus: Corpus, history: Mapping[str, Any] = MappingProxyType({})
    ) -> "Run":
        """A run on a text."""
        return cls(plan, overrides, corpus.name, corpus.sha256, corpus.vocabulary, corpus.read_config, history)


@dataclass(frozen=True)
class SavedRun:
    """A run and how far it came."""

    run: Run
    current: TrainerState
    last_good: TrainerState  # where it rolls back to
    best: Tensors
    rollbacks: int

    @classmethod
    def capture(cls, run: Run, trainer: "Trainer") -> "SavedRun":
        """The run of a trainer as it is now, between two steps."""
        return cls(run, trainer.snapshot(), trainer.last_good, trainer.best, trainer.rollbacks)

    def trainer(self, corpus: Corpus) -> "Trainer":
        """A trainer that goes on from here; needs torch."""
        from charrnn.training.trainer import Trainer

        trainer = Trainer(corpus, self.run.plan, self.run.history)
        trainer.resume(self.current, self.last_good, self.best, self.rollbacks)
        return trainer


def to_bytes(saved: SavedRun) -> bytes:
    """The state of a run as a file."""
    run = saved.run
    header = {
        "plan": asdict(run.plan),
        "overrides": dict(run.overrides.chosen()),
        "corpus": {"name": run.name, "sha256": run.sha256},
        "vocabulary": run.vocabulary.symbols,
        "read_config": asdict(run.read_config),
        "history": dict(run.history),
        "current": asdict(saved.current.progress),
        "last_good": asdict(saved.last_good.progress),
        "rollbacks": saved.rollbacks,
    }
    groups: dict[str, Tensors] = {
        "current": saved.current.tensors,
        "last_good": saved.last_good.tensors,
        "best": saved.best,
    }
    arrays, names = {}, {}
    places: dict[int, str] = {}
    for group, tensors in groups.items():
        for name, array in tensors.items():
            place = places.setdefault(id(array), f"{group}.{name}")  # the same array goes by its first name
            arrays[place] = array
            names[f"{group}.{name}"] = place
    header["aliases"] = {name: place for name, place in names.items() if name != place}
    return container.to_bytes(RUN_STATE, header, arrays)


def from_bytes(data: bytes, path: Path) -> SavedRun:
    """The inverse of `to_bytes`.

    Raises:
        ModelFileError: it is damaged, or not the state of a run.
    """
    return _build(path, *container.from_bytes(RUN_STATE, data, path))


def read(path: Path) -> SavedRun:
    """`from_bytes` of a file.

    Raises:
        ModelFileError: it cannot be read, is damaged, or not the state of a run.
    """
    return _build(path, *container.read(RUN_STATE, path))


def check_same(run: Run, name: str, sha256: str, overrides: Overrides) -> None:
    """Check that a run may go on with this text and these settings.

    Only the budget may change, and what computes. The vocabulary is the run's own, and the same text fits it.

    Raises:
        ResumeError: the text is another one.
        SettingError: a setting is another one.
    """
    if sha256 != run.sha256:
        reason = f"is not the text of this run (SHA-256 {sha256[:12]}..., it was {run.sha256[:12]}...)"
        raise ResumeError(name, reason, f"give the text as it was, or {_AGAIN}")
    configs = (run.plan.model_config, run.plan.train_config, run.read_config)
    for setting, value in overrides.chosen():
        chosen = getattr(run.overrides, setting)
        planned = next((getattr(config, setting) for config in configs if hasattr(config, setting)), None)
        if setting not in (*BUDGETS, *MACHINE_SETTINGS) and value not in (
            chosen,
            planned,
        ):  # the plan may have cut it
            before = chosen if planned is None else planned
            has = "was not given it" if before is None else f"has {before}"
            reason = f"cannot be {value} in a run that {has}"
            raise SettingError(setting, reason, f"leave it out to go on, or {_AGAIN}")


def extend(saved: SavedRun, overrides: Overrides) -> tuple[SavedRun, list[str]]:
    """Return the run with another budget and on another machine, if they are chosen, and what to say about it.

    A larger budget stretches the schedule: the learning rate is what it would have been at this share of the new one.

    Raises:
        SettingError: a budget that is spent already.
    """
    plan, now, notes = saved.run.plan, saved.current.progress, []
    if changes := _changed_machine_settings(plan.train_config, overrides):
        listed = ", ".join(f"{name} {value}" for name, value in changes.items())
        notes.append(f"goes on with {listed}: from here on not the same to the last bit")
        plan = replace(plan, train_config=replace(plan.train_config, **changes))
    budgets = [name for name in BUDGETS if getattr(overrides, name) is not None]
    if any(getattr(overrides, name) != getattr(plan.train_config, name) for name in budgets):
        before = _describe_budget(plan)
        train = replace(plan.train_config, epochs=overrides.epochs, steps=overrides.steps, minutes=overrides.minutes)
        plan = plan.with_budget(train)
        if plan.budget_spent(now.step, now.seconds) >= 1:
            name = next(
                name for name in budgets if _with_only_budget(plan, name).budget_spent(now.step, now.seconds) >= 1
            )
            amounts = {"minutes": format_duration(now.seconds), "steps": f"{now.step:,} steps"}
            spent = amounts.get(name, f"{now.step / plan.steps_per_epoch:.1f} epochs")
            reason = f"cannot be {getattr(overrides, name)}, {spent} are behind it"
            raise SettingError(name, reason, "give more, all of it counted")
        change = "stretches" if plan.steps > saved.run.plan.steps else "shrinks"
        now, good = (_rescaled(progress, plan) for progress in (now, saved.last_good.progress))
        saved = replace(saved, last_good=replace(saved.last_good, progress=good))
        notes.append(f"the budget is {_describe_budget(plan)} instead of {before}; the schedule {change} with it")
    changed = [*saved.run.history.get("changed", ()), *(f"step {now.step}: {note}" for note in notes)]
    history = {**saved.run.history, **({"changed": changed} if changed else {})}
    run = replace(saved.run, plan=plan, history=history)
    return replace(saved, run=run, current=replace(saved.current, progress=now)), notes


def _changed_machine_settings(train: TrainConfig, overrides: Overrides) -> dict[str, Any]:
    """Return the settings of `MACHINE_SETTINGS` that are chosen and differ from those of a run."""
    places = {
        name: getattr(overrides, name)
        for name in MACHINE_SETTINGS
        if getattr(overrides, name) not in (None, "auto", 0)
    }
    places = {name: value for name, value in places.items() if value != getattr(train, name)}
    if places.get("device", "cpu") != "cpu":
        places["engine"] = "torch"  # our kernels run on the CPU only
    return places


def _with_only_budget(plan: Plan, budget: str) -> Plan:
    """The plan with one of its budgets only."""
    others: dict[str, Any] = {name: None for name in BUDGETS if name != budget}
    return plan.with_budget(replace(plan.train_config, **others))


def _rescaled(progress: Progress, plan: Plan) -> Progress:
    """The same progress under another budget, which it hasn't spent."""
    fraction, waited = (
        plan.budget_spent(progress.step, progress.seconds),
        0 if progress.outcome else progress.evaluations_since_best,
    )
    return replace(
        progress,
        fraction=fraction,
        outcome=None,
        finished=False,
        early_best_nats=progress.best_nats,
        evaluations_since_best=waited,
    )


def _describe_budget(plan: Plan) -> str:
    train = plan.train_config
    budgets = {
        "minutes": train.minutes and format_duration(60 * train.minutes),
        "epochs": train.epochs and f"{train.epochs:g} epochs",
        "steps": train.steps and f"{train.steps:,} steps",
    }
    return " or ".join(budget for budget in budgets.values() if budget)


def _build(path: Path, header: Mapping[str, Any], arrays: Tensors) -> SavedRun:
    try:
        plan = dict(header["plan"])
        plan["model_config"] = ModelConfig(**plan["model_config"])
        plan["train_config"] = TrainConfig(**plan["train_config"])
        plan["notes"] = tuple(plan["notes"])
        read_config = ReadConfig(**header["read_config"])
        vocabulary = Vocabulary(header["vocabulary"], read_config.unit)
        name, sha256 = header["corpus"]["name"], header["corpus"]["sha256"]
        run = Run(
            Plan(**plan), Overrides(**header["overrides"]), name, sha256, vocabulary, read_config, header["history"]
        )
        whole = {**arrays, **{name: arrays[place] for name, place in header["aliases"].items()}}
        groups = [TrainerState(Progress(), whole).part(group) for group in ("current", "last_good", "best")]
        now, good = (
            TrainerState(Progress.from_json(header[name]), tensors)
            for name, tensors in zip(("current", "last_good"), groups[:2], strict=True)
        )
        saved = SavedRun(run, now, good, groups[2], int(header["rollbacks"]))
    except (KeyError, TypeError, ValueError, AttributeError, CharrnnError) as error:
        raise ModelFileError(str(path), f"does not describe a run ({error})", _AGAIN) from None
    check_tensors(path, run.plan.model_config, vocabulary, saved.best)
    return saved
