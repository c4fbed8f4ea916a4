"""Weights in 8 bits and hidden states in 16: what a network loses when it is made small, and nothing else.

Whole numbers have sums that do not depend on their order, so that whoever computes gets the same.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

STEPS = 127  # of a row's largest weight


def rounded(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """The whole numbers (R, H) and the scales (R,) whose product is nearest to weights (R, H)."""
    scales = np.abs(weights).max(axis=1, initial=0) / np.float32(STEPS)
    scales[scales == 0] = 1
    return np.rint(weights / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def levels(size: int) -> np.float32:
    """The whole number that stands for a hidden state of 1, for layers of ``size`` units.

    As large as 16 bits allow, and a sum of products 32.
    """
    return np.float32(min(32767, (2**31 - 1) // (STEPS * size)))


def whole_state(hidden: Array, levels: np.float32) -> Array:
    """The whole numbers that stand for hidden states."""
    return np.asarray(np.floor(hidden * levels + np.float32(0.5)))
