"""Matrices as the int8 kernels read them: quantized, and cut into panels that lie one behind the other."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.rnn.quantize import Array, quantize_rows

LANES = 16  # hidden units, or characters, that are computed side by side; as in simd.py, which needs llvmlite


class Panels(NamedTuple):
    """A matrix of G blocks of rows, as P panels that hold LANES rows of each block."""

    weights: NDArray[np.int8]  # (P, K / 2, G, LANES, 2): two neighbours in a row of K, padded, lie together
    scales: Array  # (P, G, LANES), of the integers that are sums
    biases: Array  # (P, G, LANES)


def padded(size: int) -> int:
    """Return a size rounded up to whole vectors."""
    return -(-size // LANES) * LANES


def pack_panels(weights: Array, biases: Array, gates: int, levels: np.float32, fill: float = 0) -> Panels:
    """Quantize weights (G * H, K) and lay them out.

    Args:
        weights: the matrix.
        biases: (G * H,).
        gates: how many blocks of rows.
        levels: the integer that stands for a state of 1.
        fill: the biases of rows that fill up a panel.
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
    """Return what belongs to the rows of a matrix, (..., G * H), in the order of its panels: (..., P, G, LANES)."""
    blocks = rows.reshape(*rows.shape[:-1], gates, -1)
    missing = padded(blocks.shape[-1]) - blocks.shape[-1]
    filled = np.pad(blocks, [(0, 0)] * (blocks.ndim - 1) + [(0, missing)], constant_values=fill)
    lanes = filled.reshape(*rows.shape[:-1], gates, -1, LANES)
    return np.ascontiguousarray(lanes.swapaxes(-2, -3))
