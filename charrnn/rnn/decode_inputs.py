"""What a decoder that runs by itself is to read and to choose."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DecodeInputs:
    """T steps of B streams."""

    forced_ids: NDArray[np.intp]  # (T, B), ids to be read after each step; where they are negative, an id is chosen
    uniforms: NDArray[np.float64]  # (T, B), random numbers from 0 to below 1 for the decode_inputs
    temperatures: NDArray[np.float64]  # (T, B)
    forbidden: NDArray[np.bool_]  # (V,), which ids are never chosen; or (0,), where none is chosen

    @classmethod
    def forced(cls, ids: NDArray[np.intp]) -> "DecodeInputs":
        """Return what reads ids (T, B) and chooses nothing."""
        unused = np.zeros(ids.shape)
        return cls(ids, unused, unused, np.zeros(0, dtype=bool))
