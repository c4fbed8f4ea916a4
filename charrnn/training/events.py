"""The events that `Trainer.run` yields."""

from dataclasses import dataclass

from charrnn.checkpoint import Outcome


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    step: int  # number of the step, from 1
    fraction: float  # share of the budget that is spent, 0 to 1
    nats: float  # training loss of this step, in nats per character
    characters: int  # characters read since the start of the run


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation text."""

    step: int  # steps taken so far
    epoch: float  # epochs read so far
    fraction: float  # share of the budget that is spent, 0 to 1
    train_nats: float  # mean training loss since the last evaluation, with dropout
    validation_nats: float | None  # validation loss; None without a validation text
    best: bool  # whether these weights are the best so far; if so, `Trainer.checkpoint` contains them


@dataclass(frozen=True)
class RolledBack:
    """A step with an infinite or NaN loss. The run is back at the last good state, with half the learning rate."""

    step: int  # number of the failed step
    nats: float  # loss of the failed step
    back_to: int  # number of steps taken by the restored state
    learning_rate: float  # new peak of the learning-rate schedule


@dataclass(frozen=True)
class Finished:
    """The end of a run. If the run was stopped, it can be resumed. `Trainer.checkpoint` is the best model."""

    outcome: Outcome  # reason: "done" (budget spent), "overfitting", "stuck" (no progress) or "stopped"
    step: int  # steps taken
    best_step: int  # steps taken by the best model
    best_epoch: float  # epochs read by the best model
    validation_nats: float | None  # validation loss of the best model, measured in fp32 unless the run was stopped
    late_gain: float  # decrease of the validation loss in the last fifth of the run, in nats
    seconds: float  # duration of the run, including the time before it was resumed


Event = Step | Evaluation | RolledBack | Finished
