"""The recurrence of a GRU, compiled; ``lstm.py`` tells how it is built.

Compiled by Numba at first use, then kept on disk; importing this module raises ImportError where Numba is missing.
"""

from typing import Any

from charrnn.rnn.kernels.jit import ONE, inlined, kernel, sigmoid, tanh
from charrnn.rnn.kernels.tiles import HEIGHT, LANES, add_rows, clear, fill, forget, product, put, recall, take


@inlined
def _gru_gates(gates: Any, state: Any) -> None:
    """Flat tiles: four of gates n, r, u, m before their nonlinearities become the gates; the state goes on."""
    for k in range(state.shape[0]):
        r, u = sigmoid(gates[1, k]), sigmoid(gates[2, k])
        n = tanh(gates[0, k] + r * gates[3, k])
        gates[0, k], gates[1, k], gates[2, k] = n, r, u
        state[k] = (ONE - u) * n + u * state[k]


@kernel
def forward(
    weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any,
    fresh: Any, kept_hidden: Any, kept_carry: Any, room: Any,
) -> None:  # fmt: skip
    """All steps of a GRU; arguments as `lstm.forward`, but for three.

    ``weights`` are in tiles of three gates. ``gates`` has blocks n, r, u, m: W_x x + b_x of the candidate and of the
    gates (these with b_h, too), and b_h of the candidate, to which W_h h is added for the reset gate to multiply.
    ``carry`` is the hidden state in full.
    """
    units = carry.shape[1]
    now, state = room[:4], room[4]
    count = 0
    for start in range(0, steps * batch, batch):
        count += forget(fresh, start, batch, hidden, carry, kept_hidden[count:], kept_carry[count:])
        for tile in range(weights.shape[0]):
            column = tile * LANES
            width = min(LANES, units - column)
            for row in range(start, start + batch, HEIGHT):
                height = min(HEIGHT, start + batch - row)
                for gate in range(4):
                    take(now[gate], gates, row, gate * units + column, height, width)
                    if gate > 0:
                        product(weights[tile, gate - 1], hidden[row : row + height], now[gate])
                take(state, carry, row, column, height, width)
                _gru_gates(now.reshape(4, -1), state[:height].reshape(-1))
                for gate in range(4):
                    put(gates, row, gate * units + column, now[gate], height, width)
                put(carry, row + batch, column, state, height, width)
                put(hidden, row + batch, column, state, height, width)


@inlined
def _gru_gradients(gates: Any, before: Any, above: Any, later: Any, kept: Any) -> None:
    """Flat tiles: the gates become their gradients; before: h_{t-1}; the others: gradients."""
    for k in range(kept.shape[0]):
        n, r, u, m = gates[0, k], gates[1, k], gates[2, k], gates[3, k]
        h = above[k] + later[k] + kept[k]
        grad_n = h * (ONE - u) * (ONE - n * n)
        gates[0, k] = grad_n
        gates[1, k] = grad_n * m * r * (ONE - r)
        gates[2, k] = h * (before[k] - n) * u * (ONE - u)
        gates[3, k] = grad_n * r
        kept[k] = h * u


@kernel
def backward(
    weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any,
    fresh: Any, kept_carry: Any,
    grad_outputs: Any, grad_hidden: Any, grad_carry: Any, grad_gates: Any, grad_bias: Any, room: Any,
) -> None:  # fmt: skip
    """The same backwards; arguments as `lstm.backward`, where K is 3H."""
    units = carry.shape[1]
    now, before, kept, above, later = room[:4], room[4], room[5], room[6], room[7]
    count = len(kept_carry)
    for step in range(steps - 1, -2, -1):
        count = recall(fresh, (step + 1) * batch, batch, carry, kept_carry[:count], grad_carry)
        for tile in range(weights.shape[0]):
            column = tile * LANES
            width = min(LANES, units - column)
            for stream in range(0, batch, HEIGHT):
                row, height = step * batch + stream, min(HEIGHT, batch - stream)
                of_product = grad_gates[row + batch : row + batch + height, units:]
                fill(later, weights[tile, 0], of_product, grad_hidden, (stream, column, height, width))
                clear(later, fresh, row + batch, height)
                if step < 0:
                    put(grad_hidden, stream, column, later, height, width)
                    continue
                for gate in range(4):
                    take(now[gate], gates, row, gate * units + column, height, width)
                take(before, carry, row, column, height, width)
                take(above, grad_outputs, row, column, height, width)
                take(kept, grad_carry, stream, column, height, width)
                flat = before.reshape(-1), above.reshape(-1), later.reshape(-1), kept[:height].reshape(-1)
                _gru_gradients(now.reshape(4, -1), *flat)
                put(grad_carry, stream, column, kept, height, width)
                for gate in range(4):
                    put(grad_gates, row, gate * units + column, now[gate], height, width)
                    add_rows(grad_bias[gate * units + column :], now[gate], height, width)
