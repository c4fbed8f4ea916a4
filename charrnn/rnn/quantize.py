"""Weights in 8 bits and hidden states in 16: what a network loses when it is quantized, and nothing else.

Sums of integers don't depend on their order, so that every backend gets the same ones.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

STEPS = 127  # of a row's largest weight


def quantize_rows(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """Return the integers (R, K) and the scales (R,) whose product is nearest to weights (R, K)."""
    scales = np.abs(weights).max(axis=1, initial=0) / np.float32(STEPS)
    scales[scales == 0] = 1
    integers = np.clip(np.rint(weights / scales[:, None]), -STEPS, STEPS)  # a subnormal scale is not exact
    return integers.astype(np.int8), scales.astype(np.float32)


def state_levels(size: int) -> np.float32:
    """Return the integer that stands for a hidden state of 1, for layers of ``size`` units.

    It is as large as 16 bits, and sums of products in 32 bits, allow.
    """
    return np.float32(min(32767, (2**31 - 1) // (STEPS * size)))


def quantize_state(hidden: Array, levels: np.float32) -> Array:
    """Return the integers that stand for hidden states; what lies beyond -1 and 1 counts as these."""
    return np.asarray(np.floor(np.minimum(np.maximum(hidden * levels + np.float32(0.5), -levels), levels)))
