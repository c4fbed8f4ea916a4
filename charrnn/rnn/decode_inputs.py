"""Inputs of the compiled decoder: which ids to read, and how to choose the others."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DecodeInputs:
    """Inputs for T steps of B streams."""

    forced_ids: NDArray[np.intp]  # (T, B), ids to read after each step; where negative, an id is chosen
    uniforms: NDArray[np.float64]  # (T, B), random numbers in [0, 1) with which ids are chosen
    temperatures: NDArray[np.float64]  # (T, B), sampling temperatures; 0 chooses the most probable id
    forbidden: NDArray[np.bool_]  # (V,), ids that are never chosen; (0,) if all ids are allowed or forced

    @classmethod
    def forced(cls, ids: NDArray[np.intp]) -> "DecodeInputs":
        """Return inputs that force all ids, (T, B)."""
        unused = np.zeros(ids.shape)
        return cls(ids, unused, unused, np.zeros(0, dtype=bool))
