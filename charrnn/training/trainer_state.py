"""Everything that changes during a run, as one value from which the run continues bit for bit.

`Trainer.snapshot` returns a `TrainerState` to save. Resuming and rolling back restore one. The corpus and the plan
do not change during a run and are not included.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.training.events import Outcome

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Progress:
    """Progress of a run, in JSON types only."""

    step: int = 0  # optimizer steps taken; modulo the steps per epoch, the number of chunks read from every stream
    seconds: float = 0.0  # duration of the run so far
    fraction: float = 0.0  # share of the budget that was spent after the last step
    nats_sum: float = 0.0  # sum of the training losses since the last evaluation
    nats_count: int = 0  # number of these losses
    evaluation_due: bool = False  # whether an evaluation precedes the next step
    evaluations_since_best: int = 0  # evaluations since the best one
    best_step: int = 0  # steps taken by the best model
    best_nats: float | None = None  # validation loss of the best model, as measured during the run
    best_train_nats: float | None = None  # training loss of the best model
    early_best_nats: float | None = None  # lowest validation loss before the last fifth of the run
    final_nats: float | None = None  # validation loss of the best model, measured in fp32 once the run is finished
    outcome: Outcome | None = None  # reason why the run ended; None before its end
    finished: bool = False  # whether the run ended and its best model was measured in fp32
    evaluations: tuple[Mapping[str, Any], ...] = ()  # entries of the log

    def to_json(self) -> dict[str, Any]:
        """Return the progress as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Progress":
        """Return the progress from the result of `to_json`."""
        return cls(**{**data, "evaluations": tuple(data["evaluations"])})


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
