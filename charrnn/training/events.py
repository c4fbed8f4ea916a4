"""What happens in a run: what `Trainer.run` yields to whoever listens."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["done", "overfitting", "stuck", "stopped"]


@dataclass(frozen=True)
class Step:
    """One optimizer step was taken."""

    step: int  # 1 for the first
    fraction: float  # of the budget spent, 0 to 1
    nats: float  # training loss of this step
    characters: int  # read since the run began


@dataclass(frozen=True)
class Evaluation:
    """The validation text was measured."""

    step: int
    epoch: float
    fraction: float
    train_nats: float  # mean since the evaluation before, dropout included
    validation_nats: float | None  # None without a validation text
    best: bool  # the best so far; `Trainer.checkpoint` holds it


@dataclass(frozen=True)
class RolledBack:
    """The loss was no finite number; the step was not taken, and the run is back where it was sound."""

    step: int  # the one that failed
    nats: float  # its loss
    back_to: int  # steps taken by the state that it went back to
    learning_rate: float  # the schedule's peak from here on


@dataclass(frozen=True)
class Finished:
    """The run is over, or stopped where it can be resumed; `Trainer.checkpoint` holds the best model."""

    outcome: Outcome
    step: int
    best_step: int
    best_epoch: float
    validation_nats: float | None  # of the best model; once done in fp32, as `charrnn eval` gives it
    late_gain: float  # nats by which the last fifth of the run bettered the validation loss
    seconds: float  # of the whole run, what was spent before it was resumed included


Event = Step | Evaluation | RolledBack | Finished
