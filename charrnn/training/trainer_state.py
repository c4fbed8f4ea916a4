"""Everything that changes during a run, as one value from which the run continues bit for bit.

`Trainer.snapshot` returns a `TrainerState` to save. Resuming and rolling back restore one. The corpus and the plan
do not change during a run and are not included.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint import Outcome
from charrnn.config.checks import FINITE, Integer, Range
from charrnn.config.settings import setting
from charrnn.training.run_log import MAX_SECONDS, LogEntry

AVERAGES = ("mean", "square", "average")  # prefixes of the moving averages in a `TrainerState`

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Progress:
    """Progress of a run."""

    # optimizer steps taken; modulo the steps per epoch, the number of chunks read from every stream
    step: int = setting(0, Integer(0))
    seconds: float = setting(0.0, Range(0, MAX_SECONDS, "a number of seconds"))  # duration of the run so far
    # share of the budget that was spent after the last step
    fraction: float = setting(0.0, Range(0, 1, "a number from 0 to 1"))
    nats_sum: float = setting(0.0, FINITE)  # sum of the training losses since the last evaluation
    nats_count: int = setting(0, Integer(0))  # number of these losses
    evaluation_due: bool = False  # whether an evaluation precedes the next step
    evaluations_since_best: int = setting(0, Integer(0))  # evaluations since the best one
    best_step: int = setting(0, Integer(0))  # steps taken by the best model
    best_nats: float | None = setting(None, FINITE)  # validation loss of the best model, as measured during the run
    best_train_nats: float | None = setting(None, FINITE)  # training loss of the best model
    early_best_nats: float | None = setting(None, FINITE)  # lowest validation loss before the last fifth of the run
    # validation loss of the best model, measured in fp32 once the run is finished
    final_nats: float | None = setting(None, FINITE)
    outcome: Outcome | None = None  # reason why the run ended; None before its end
    finished: bool = False  # whether the run ended and its best model was measured in fp32
    evaluations: tuple[LogEntry, ...] = ()  # the log

    def __post_init__(self) -> None:
        if self.best_step > self.step:
            raise ValueError("best_step is larger than step")
        if self.evaluations and self.evaluations[-1].step > self.step:
            raise ValueError("the last evaluation is later than step")
        if self.evaluation_due and not self.nats_count:
            raise ValueError("an evaluation is due before the first step")
        if self.finished and self.outcome is None:
            raise ValueError("the run is finished without an outcome")


@dataclass(frozen=True)
class TrainerState:
    """State of a run between two steps.

    Attributes:
        progress: Step, losses and log.
        tensors: Arrays by name. NAME is a name of `ModelConfig.tensor_shapes`.

            - ``weights.NAME``: weights that the optimizer updates
            - ``mean.NAME``, ``square.NAME``: AdamW's moving averages of the gradient and of its square
            - ``average.NAME``: averaged weights, which are evaluated and saved as the model
            - ``state.L.P``: part P of the recurrent state of layer L after the last step, (B, H), by stream number
    """

    progress: Progress
    tensors: Arrays

    def part(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """Return the tensors whose names start with ``prefix`` and a dot, without this prefix."""
        return {
            name.removeprefix(prefix + "."): array
            for name, array in self.tensors.items()
            if name.startswith(prefix + ".")
        }
