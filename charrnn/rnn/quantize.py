"""Quantization of weights to int8 and of hidden states to int16.

Products of quantized values are sums of integers. The order of the additions doesn't change these sums, so all
backends compute the same results.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MAX_INT8 = 127  # integer for the largest absolute weight of a row


def quantize_rows(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """Quantize weights (R, K) to int8. Return the integers (R, K), and the scale of each row (R,)."""
    scales = np.abs(weights).max(axis=1, initial=0) / np.float32(MAX_INT8)
    scales[scales == 0] = 1
    integers = np.clip(np.rint(weights / scales[:, None]), -MAX_INT8, MAX_INT8)  # clip: subnormal scales are inexact
    return integers.astype(np.int8), scales.astype(np.float32)


def state_levels(size: int) -> np.float32:
    """Return the integer that represents a hidden state of 1, for layers of ``size`` units.

    It is the largest that fits in 16 bits and keeps sums of products with weights within 32 bits.
    """
    return np.float32(min(32767, (2**31 - 1) // (MAX_INT8 * size)))


def quantize_state(hidden: Array, levels: np.float32) -> Array:
    """Return hidden states times ``levels``, rounded to integers and clipped to the range from -levels to levels."""
    return np.asarray(np.floor(np.minimum(np.maximum(hidden * levels + np.float32(0.5), -levels), levels)))
