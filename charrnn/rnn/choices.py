"""What a decoder that runs by itself is to read and to choose."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Choices:
    """T steps of B streams."""

    given: NDArray[np.intp]  # (T, B), ids to be read after each step; where they are negative, an id is chosen
    uniforms: NDArray[np.float64]  # (T, B), random numbers from 0 to below 1 for the choices
    temperatures: NDArray[np.float64]  # (T, B)
    forbidden: NDArray[np.bool_]  # (V,), which ids are never chosen; or (0,), where none is chosen

    @classmethod
    def known(cls, ids: NDArray[np.intp]) -> "Choices":
        """Return what reads ids (T, B) and chooses nothing."""
        unused = np.zeros(ids.shape)
        return cls(ids, unused, unused, np.zeros(0, dtype=bool))
