"""The memory layout of matrices for the int8 kernels: quantized, and cut into contiguous panels.

Importing this module raises ImportError if llvmlite is missing.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.rnn.kernels.simd import LANES
from charrnn.rnn.quantize import Array, quantize_rows


class Panels(NamedTuple):
    """A matrix of G blocks of rows, cut into P panels of LANES rows of each block. K is padded."""

    weights: NDArray[np.int8]  # (P, K / 2, G, LANES, 2); the last axis holds two neighbouring columns
    scales: Array  # (P, G, LANES), by which integer sums are multiplied
    biases: Array  # (P, G, LANES)


def padded(size: int) -> int:
    """Return a size rounded up to a multiple of `LANES`."""
    return -(-size // LANES) * LANES


def pack_panels(weights: Array, biases: Array, gates: int, levels: np.float32, fill: float = 0) -> Panels:
    """Quantize a matrix and cut it into panels.

    Args:
        weights: The matrix, (G * H, K).
        biases: The biases, (G * H,).
        gates: G.
        levels: The integer that represents a hidden state of 1.
        fill: The bias of rows that pad the last panel.
    """
    integers, scales = quantize_rows(weights)
    columns = np.pad(integers, ((0, 0), (0, padded(weights.shape[1]) - weights.shape[1])))
    pairs = in_panels(columns.T, gates).reshape(columns.shape[1] // 2, 2, -1, gates, LANES)  # (K / 2, 2, P, G, LANES)
    return Panels(
        np.ascontiguousarray(pairs.transpose(2, 0, 3, 4, 1)),
        in_panels(scales / levels, gates),
        in_panels(biases, gates, fill),
    )


def in_panels(rows: NDArray[Any], gates: int, fill: float = 0) -> NDArray[Any]:
    """Return values for the rows of a matrix (..., G * H) in the order of its panels: (..., P, G, LANES)."""
    blocks = rows.reshape(*rows.shape[:-1], gates, -1)
    padding = padded(blocks.shape[-1]) - blocks.shape[-1]
    padded_blocks = np.pad(blocks, [(0, 0)] * (blocks.ndim - 1) + [(0, padding)], constant_values=fill)
    lanes = padded_blocks.reshape(*rows.shape[:-1], gates, -1, LANES)
    return np.ascontiguousarray(lanes.swapaxes(-2, -3))
