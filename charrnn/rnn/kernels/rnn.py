"""The recurrence of a plain RNN, compiled; ``lstm.py`` tells how it is built.

Compiled by Numba at first use, then kept on disk; importing this module raises ImportError where Numba is missing.
"""

from typing import Any

from charrnn.rnn.kernels.jit import ONE, inlined, kernel, tanh
from charrnn.rnn.kernels.tiles import HEIGHT, LANES, add_rows, clear, fill, forget, product, put, recall, take


@inlined
def _rnn_state(state: Any) -> None:
    """A flat tile before its nonlinearity becomes the state."""
    for n in range(state.shape[0]):
        state[n] = tanh(state[n])


@kernel
def forward(
    weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any,
    fresh: Any, kept_hidden: Any, kept_carry: Any, room: Any,
) -> None:  # fmt: skip
    """All steps of a plain RNN; arguments as `lstm.forward`, with one gate: h_t. Of ``carry``, only its shape."""
    units = carry.shape[1]
    now = room[0]
    count = 0
    for start in range(0, steps * batch, batch):
        count += forget(fresh, start, batch, hidden, carry, kept_hidden[count:], kept_carry[count:])
        for tile in range(weights.shape[0]):
            column = tile * LANES
            width = min(LANES, units - column)
            for row in range(start, start + batch, HEIGHT):
                height = min(HEIGHT, start + batch - row)
                take(now, gates, row, column, height, width)
                product(weights[tile, 0], hidden[row : row + height], now)
                _rnn_state(now[:height].reshape(-1))
                put(gates, row, column, now, height, width)
                put(hidden, row + batch, column, now, height, width)


@inlined
def _rnn_gradients(gates: Any, above: Any, later: Any) -> None:
    """Flat tiles: h_t becomes the gradient of what it was before its nonlinearity; the others: gradients."""
    for n in range(gates.shape[0]):
        gates[n] = (above[n] + later[n]) * (ONE - gates[n] * gates[n])


@kernel
def backward(
    weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any,
    fresh: Any, kept_carry: Any,
    grad_outputs: Any, grad_hidden: Any, grad_carry: Any, grad_gates: Any, grad_bias: Any, room: Any,
) -> None:  # fmt: skip
    """The same backwards; arguments as `lstm.backward`, where K is H and the carries are unused."""
    units = carry.shape[1]
    now, above, later = room[0], room[1], room[2]
    count = len(kept_carry)
    for step in range(steps - 1, -2, -1):
        count = recall(fresh, (step + 1) * batch, batch, carry, kept_carry[:count], grad_carry)
        for tile in range(weights.shape[0]):
            column = tile * LANES
            width = min(LANES, units - column)
            for stream in range(0, batch, HEIGHT):
                row, height = step * batch + stream, min(HEIGHT, batch - stream)
                of_product = grad_gates[row + batch : row + batch + height]
                fill(later, weights[tile, 0], of_product, grad_hidden, (stream, column, height, width))
                clear(later, fresh, row + batch, height)
                if step < 0:
                    put(grad_hidden, stream, column, later, height, width)
                    continue
                take(now, gates, row, column, height, width)
                take(above, grad_outputs, row, column, height, width)
                _rnn_gradients(now[:height].reshape(-1), above.reshape(-1), later.reshape(-1))
                put(grad_gates, row, column, now, height, width)
                add_rows(grad_bias[column:], now, height, width)
