"""Quantization of weights to 8 bits and of hidden states to 16 bits.

Products of quantized values are sums of integers. These don't depend on the order of the additions, so every backend
computes the same ones.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

STEPS = 127  # integer that represents the largest absolute weight of a row


def quantize_rows(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """Return integers (R, K) and a scale for each row (R,). Their products approximate the weights (R, K)."""
    scales = np.abs(weights).max(axis=1, initial=0) / np.float32(STEPS)
    scales[scales == 0] = 1
    integers = np.clip(np.rint(weights / scales[:, None]), -STEPS, STEPS)  # clip: subnormal scales are inexact
    return integers.astype(np.int8), scales.astype(np.float32)


def state_levels(size: int) -> np.float32:
    """Return the integer that represents a hidden state of 1, for layers of ``size`` units.

    It is the largest that fits in 16 bits and keeps sums of products with weights within 32 bits.
    """
    return np.float32(min(32767, (2**31 - 1) // (STEPS * size)))


def quantize_state(hidden: Array, levels: np.float32) -> Array:
    """Return hidden states as integers, clipped to the range from -1 to 1, which is -levels to levels."""
    return np.asarray(np.floor(np.minimum(np.maximum(hidden * levels + np.float32(0.5), -levels), levels)))
