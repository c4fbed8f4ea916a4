"""How compiled code wants its matrices: rounded, and cut into panels that it reads from one end to the other.

Knows nothing of compiling.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.rnn.quantize import Array, rounded

LANES = 16  # hidden units, or characters, that are computed side by side


class Panels(NamedTuple):
    """A matrix of G blocks of rows, as P panels that hold LANES rows of each block."""

    weights: NDArray[np.int8]  # (P, K / 2, G, LANES, 2): two neighbours in a row of K, padded, lie together
    scales: Array  # (P, G, LANES), of the whole numbers that are sums
    biases: Array  # (P, G, LANES)


def padded(size: int) -> int:
    """So many, and as many more as it takes to fill all lanes."""
    return -(-size // LANES) * LANES


def panels(weights: Array, biases: Array, gates: int, levels: np.float32, rest: float = 0) -> Panels:
    """Rounds weights (G*H, K) and arranges them.

    Args:
        weights: the matrix.
        biases: (G*H,).
        gates: how many blocks of rows.
        levels: the whole number that stands for a state of 1.
        rest: the biases of rows that fill up a panel.
    """
    whole, scales = rounded(weights)
    columns = np.pad(whole, ((0, 0), (0, padded(weights.shape[1]) - weights.shape[1])))
    pairs = in_lanes(columns.T, gates).reshape(columns.shape[1] // 2, 2, -1, gates, LANES)  # (K / 2, 2, P, G, LANES)
    return Panels(
        np.ascontiguousarray(pairs.transpose(2, 0, 3, 4, 1)),
        in_lanes(scales / levels, gates),
        in_lanes(biases, gates, rest),
    )


def in_lanes(rows: NDArray[Any], gates: int, rest: float = 0) -> NDArray[Any]:
    """What belongs to the rows of a matrix, (..., G*H), in the order of its panels: (..., P, G, LANES)."""
    blocks = rows.reshape(*rows.shape[:-1], gates, -1)
    missing = padded(blocks.shape[-1]) - blocks.shape[-1]
    filled = np.pad(blocks, [(0, 0)] * (blocks.ndim - 1) + [(0, missing)], constant_values=rest)
    lanes = filled.reshape(*rows.shape[:-1], gates, -1, LANES)
    return np.ascontiguousarray(lanes.swapaxes(-2, -3))
