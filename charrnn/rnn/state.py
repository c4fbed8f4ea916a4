"""The recurrent state of a network, as a value.

Networks take a state as an argument and return a new one; they don't store it. The same type holds NumPy arrays and
torch tensors.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig
from charrnn.rnn.cells import EQUATIONS

Array = Any  # an NDArray[np.float32] or a torch.Tensor
Zeros = Callable[[tuple[int, int]], Array]  # returns an array of zeros of a shape


@dataclass(frozen=True)
class State:
    """The recurrent state of B streams between two characters.

    Every method returns a new state and leaves this one unchanged.
    """

    layers: tuple[tuple[Array, ...], ...]  # for each layer (h,), or (h, c) for an LSTM; arrays of shape (B, H)

    @classmethod
    def zeros(cls, config: ModelConfig, batch: int, zeros: Zeros | None = None) -> "State":
        """Return the zero state of B streams.

        Args:
            config: The shape of the network.
            batch: B.
            zeros: Creates the arrays; None creates NumPy arrays.
        """
        arrays = range(EQUATIONS[config.cell].num_state_arrays)
        create = zeros or (lambda shape: np.zeros(shape, dtype=np.float32))
        return cls(tuple(tuple(create((batch, config.hidden)) for _ in arrays) for _ in range(config.layers)))

    @staticmethod
    def join(states: Sequence["State"]) -> "State":
        """Return one state with the streams of several states, in order."""
        if len(states) == 1:
            return states[0]
        layers = zip(*(state.layers for state in states), strict=True)
        return State(tuple(tuple(map(_concatenate, zip(*layer, strict=True))) for layer in layers))

    @property
    def batch(self) -> int:
        """The number of streams, B."""
        return len(self.layers[0][0])

    def map(self, function: Callable[[Array], Array]) -> "State":
        """Return the state with a function applied to each array."""
        return State(tuple(tuple(function(array) for array in layer) for layer in self.layers))

    def select(self, streams: Any) -> "State":
        """Return the state of the streams with the given indices: a slice or an array (N,)."""
        return self.map(lambda array: array[streams])

    def reset(self, mask: NDArray[np.bool_]) -> "State":
        """Return the state with zeros for the streams where ``mask`` (B,) is true. For NumPy only."""
        return self.map(lambda array: np.where(mask[:, None], np.float32(0), array)) if mask.any() else self

    def flatten(self) -> NDArray[np.float32]:
        """Return the arrays of all layers as one of shape (B, N). For NumPy only."""
        return np.concatenate([array for layer in self.layers for array in layer], axis=1)

    def unflatten(self, flat: NDArray[np.float32]) -> "State":
        """Return a flattened state (B, N) as a state of this structure. The inverse of `flatten`."""
        widths = [array.shape[1] for layer in self.layers for array in layer]
        arrays = iter(np.split(flat, np.cumsum(widths)[:-1], axis=1))
        return self.map(lambda _: next(arrays))

    def named(self) -> Iterator[tuple[str, Array]]:
        """Yield each array with its name in files, ``state.LAYER.PART``. Part 0 is h, and part 1 is c."""
        for index, layer in enumerate(self.layers):
            for part, array in enumerate(layer):
                yield f"state.{index}.{part}", array

    def from_named(self, arrays: Mapping[str, Array]) -> "State":
        """Return named arrays as a state of this structure. The inverse of `named`.

        Raises:
            KeyError: If an array is missing.
        """
        names = (name for name, _ in self.named())
        return self.map(lambda _: arrays[next(names)])


def _concatenate(arrays: Sequence[Array]) -> Array:
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    import torch

    return torch.cat(tuple(arrays))
