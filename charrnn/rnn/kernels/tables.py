"""Products with one-hot rows: a row of a table is looked up for every id, and gradients are added up row by row.

Compiled by Numba at first use, then kept on disk; importing this module raises ImportError where Numba is missing.
"""

from typing import Any

from charrnn.rnn.kernels.jit import kernel, wide


@kernel
def look_up(table: Any, ids: Any, out: Any) -> None:
    """out[n] = table[ids[n]].

    Args:
        table: (V, R).
        ids: (N,), integers below V.
        out: (N, at least R).
    """
    for n in range(len(ids)):
        row, written = table[ids[n]], out[n]
        for r in range(table.shape[1]):
            written[r] = row[r]


@kernel
def look_up_backward(grad_out: Any, ids: Any, grad_table: Any) -> None:
    """grad_table[ids[n]] += grad_out[n] for every n; shapes as `look_up`, ``grad_table`` in full precision."""
    for n in range(len(ids)):
        row, read = grad_table[ids[n]], grad_out[n]
        for r in range(grad_table.shape[1]):
            row[r] += wide(read[r])
