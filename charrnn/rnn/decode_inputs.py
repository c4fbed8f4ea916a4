"""Inputs of the compiled decoder: which ids are forced, and how to sample the others."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DecodeInputs:
    """Inputs for T steps of B streams."""

    forced_ids: NDArray[np.intp]  # (T, B), ids to read after each step; where negative, an id is sampled
    uniforms: NDArray[np.float64]  # (T, B), random numbers in [0, 1) for sampling
    temperatures: NDArray[np.float64]  # (T, B), sampling temperatures; 0 means the most probable id
    forbidden: NDArray[np.bool_]  # (V,), mask of ids that are never sampled; (0,) if there are none

    @classmethod
    def forced(cls, ids: NDArray[np.intp]) -> "DecodeInputs":
        """Return inputs that force all ids, (T, B)."""
        unused = np.zeros(ids.shape)
        return cls(ids, unused, unused, np.zeros(0, dtype=bool))
