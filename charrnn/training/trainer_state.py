"""How far a run has come: one value from which it goes on, bit for bit.

What a run *is* (text, plan) doesn't change and isn't here. Resuming, rolling back and saving are all the same: taking
a `TrainerState`, or going on from one.
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
    """The numbers of a run; JSON types only."""

    step: int = 0  # optimizer steps taken; the cursor of every stream is this modulo the chunks of an epoch
    seconds: float = 0.0  # spent so far
    fraction: float = 0.0  # of the budget spent, after the last step
    nats_sum: float = 0.0  # training losses since the last evaluation
    nats_count: int = 0
    evaluation_due: bool = False  # an evaluation comes before the next step
    evaluations_since_best: int = 0  # evaluations without a better one
    best_step: int = 0
    best_nats: float | None = None  # validation loss of the best model, as measured in training
    best_train_nats: float | None = None  # training loss when it was
    early_best_nats: float | None = None  # the best before the last fifth of the run
    final_nats: float | None = None  # validation loss of the best model, in fp32 once the run is over
    outcome: Outcome | None = None  # why the run ended; None while it goes on
    finished: bool = False  # and the best model was measured
    evaluations: tuple[Mapping[str, Any], ...] = ()  # the log

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Progress":
        """The inverse of `to_json`."""
        return cls(**{**data, "evaluations": tuple(data["evaluations"])})


@dataclass(frozen=True)
class TrainerState:
    """A run at a moment between two steps.

    ``tensors`` holds, with the names of `ModelConfig.tensor_shapes` in place of NAME, ``weights.NAME``,
    ``mean.NAME`` and ``square.NAME`` (AdamW's moving averages of the gradient and its square), ``average.NAME`` (of
    the weights: what is measured, kept and written with), and ``state.L.P``:
    part P of the state of layer L after the last step, (B, H), a row for each stream in the order of their numbers.
    """

    progress: Progress
    tensors: Arrays

    def part(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """The tensors whose names begin with ``prefix`` and a dot, under the rest of their names."""
        return {
            name.removeprefix(prefix + "."): array
            for name, array in self.tensors.items()
            if name.startswith(prefix + ".")
        }
