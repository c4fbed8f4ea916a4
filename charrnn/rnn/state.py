"""The recurrent state: a value that is passed in and passed out, never kept by a network.

One type serves NumPy and torch, from a single step to the files of a run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig
from charrnn.rnn.cells import EQUATIONS

Array = Any  # an NDArray[np.float32] or a torch.Tensor
Zeros = Callable[[tuple[int, int]], Array]  # makes an array of a shape


@dataclass(frozen=True)
class State:
    """The state of B streams between two characters.

    Every operation returns a new state and leaves this one as it was.
    """

    layers: tuple[tuple[Array, ...], ...]  # of each layer (h,), or (h, c) for an LSTM; each (B, H)

    @classmethod
    def zeros(cls, config: ModelConfig, batch: int, zeros: Zeros | None = None) -> "State":
        """Return the state of ``batch`` streams before their first character, in NumPy unless told otherwise."""
        parts = range(EQUATIONS[config.cell].parts)
        make = zeros or (lambda shape: np.zeros(shape, dtype=np.float32))
        return cls(tuple(tuple(make((batch, config.hidden)) for _ in parts) for _ in range(config.layers)))

    @staticmethod
    def join(states: Sequence["State"]) -> "State":
        """Return the streams of several states as one."""
        if len(states) == 1:
            return states[0]
        layers = zip(*(state.layers for state in states), strict=True)
        return State(tuple(tuple(map(_concatenate, zip(*parts, strict=True))) for parts in layers))

    @property
    def batch(self) -> int:
        """B, how many streams there are."""
        return len(self.layers[0][0])

    def map(self, function: Callable[[Array], Array]) -> "State":
        """Return the state with a function applied to each array."""
        return State(tuple(tuple(function(part) for part in layer) for layer in self.layers))

    def select(self, streams: Any) -> "State":
        """Return the state of some streams, given by a slice or by their numbers (N,)."""
        return self.map(lambda part: part[streams])

    def reset(self, mask: NDArray[np.bool_]) -> "State":
        """Return the state with zeros where ``mask`` (B,) is true. For NumPy."""
        return self.map(lambda part: np.where(mask[:, None], np.float32(0), part)) if mask.any() else self

    def flatten(self) -> NDArray[np.float32]:
        """Return the state as (B, all numbers of it). For NumPy."""
        return np.concatenate([part for layer in self.layers for part in layer], axis=1)

    def unflatten(self, flat: NDArray[np.float32]) -> "State":
        """Return what `flatten` gave as a state of this form."""
        widths = [part.shape[1] for layer in self.layers for part in layer]
        parts = iter(np.split(flat, np.cumsum(widths)[:-1], axis=1))
        return self.map(lambda _: next(parts))

    def named(self) -> Iterator[tuple[str, Array]]:
        """Yield each array with its name in files: ``state.LAYER.PART``."""
        for index, layer in enumerate(self.layers):
            for number, part in enumerate(layer):
                yield f"state.{index}.{number}", part

    def from_named(self, arrays: Mapping[str, Array]) -> "State":
        """Return the arrays that `named` gave as a state of this form.

        Raises:
            KeyError: one is missing.
        """
        names = (name for name, _ in self.named())
        return self.map(lambda _: arrays[next(names)])


def _concatenate(parts: Sequence[Array]) -> Array:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(tuple(parts))
