"""The recurrence itself, compiled to the processor's vectors: all T steps of a layer, forward and backward.

A step takes the units of the layer tile by tile: their gates' products with the whole state of the step before, then
their gate arithmetic at once, while the tile is in the nearest cache. It runs on one thread and without the
interpreter's lock, so that several may run abreast.

Matrices outside are token-major, (T * B, units): a row is one stream at one step, and the B streams of a step are
adjacent. The recurrent weights come in tiles, (tiles of units, gates, K, LANES), as `tiles.product` has them.
Equations and symbols are those of ``cells.py``.

Compiled by Numba at first use, then kept on disk; importing this module raises ImportError where Numba is missing.
"""

from typing import Any

import numpy as np

from charrnn.model.tiles import HEIGHT, LANES, add_rows, product, put, take
from charrnn.vectors import ONE, inlined, kernel, sigmoid, tanh


@inlined
def _lstm_gates(gates: Any, cell: Any, state: Any) -> None:
    """Flat tiles: four of gates before their nonlinearities become the gates; cell and state go a step on."""
    for n in range(cell.shape[0]):
        i, f, g, o = sigmoid(gates[0, n]), sigmoid(gates[1, n]), tanh(gates[2, n]), sigmoid(gates[3, n])
        c = f * cell[n] + i * g
        gates[0, n], gates[1, n], gates[2, n], gates[3, n] = i, f, g, o
        cell[n], state[n] = c, o * tanh(c)


@kernel
def lstm_forward(weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any) -> None:
    """All steps of an LSTM.

    Args:
        weights: the recurrent ones in tiles of four gates.
        steps: T.
        batch: B.
        gates: (T * B, 4H), blocks i, f, g, o: W_x x + b; replaced by the gates.
        hidden: ((T + 1) * B, H): h_0, and room for h_1 to h_T.
        carry: ((T + 1) * B, H): c_0, and room for c_1 to c_T.
    """
    units = carry.shape[1]
    now = np.zeros((4, HEIGHT, LANES), carry.dtype)
    cell, state = np.zeros((HEIGHT, LANES), carry.dtype), np.zeros((HEIGHT, LANES), carry.dtype)
    for start in range(0, steps * batch, batch):
        for tile in range(weights.shape[0]):
            column = tile * LANES
            width = min(LANES, units - column)
            for row in range(start, start + batch, HEIGHT):
                height = min(HEIGHT, start + batch - row)
                for gate in range(4):
                    take(now[gate], gates, row, gate * units + column, height, width)
                    product(weights[tile, gate], hidden[row : row + height], now[gate])
                take(cell, carry, row, column, height, width)
                _lstm_gates(now.reshape(4, -1), cell[:height].reshape(-1), state.reshape(-1))
                for gate in range(4):
                    put(gates, row, gate * units + column, now[gate], height, width)
                put(carry, row + batch, column, cell, height, width)
                put(hidden, row + batch, column, state, height, width)


@inlined
def _fill(later: Any, weights: Any, following: Any, last: Any, place: Any) -> None:
    """Makes a tile the gradient that h_t has by way of the following step's gates; of the last h, it is given."""
    if following.shape[0] == 0:
        take(later, last, *place)
    else:
        later[:] = 0
        product(weights, following, later)


@inlined
def _lstm_gradients(gates: Any, before: Any, after: Any, above: Any, later: Any, cell: Any) -> None:
    """Flat tiles: the gates become their gradients; before, after: c_{t-1} and c_t; the others: gradients."""
    for n in range(cell.shape[0]):
        i, f, g, o = gates[0, n], gates[1, n], gates[2, n], gates[3, n]
        h, tanh_c = above[n] + later[n], tanh(after[n])
        c = cell[n] + h * o * (ONE - tanh_c * tanh_c)
        gates[0, n] = c * g * i * (ONE - i)
        gates[1, n] = c * before[n] * f * (ONE - f)
        gates[2, n] = c * i * (ONE - g * g)
        gates[3, n] = h * tanh_c * o * (ONE - o)
        cell[n] = c * f


@kernel
def lstm_backward(
    weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any,
    grad_outputs: Any, grad_hidden: Any, grad_carry: Any, grad_gates: Any, grad_bias: Any,
) -> None:  # fmt: skip
    """The same backwards.

    Args:
        weights: the recurrent ones, transposed: K is 4H, and units are those of the step before.
        steps: T.
        batch: B.
        gates: as forward leaves them.
        hidden: the same.
        carry: the same.
        grad_outputs: (T * B, H), gradient of h_1 to h_T as the layer above sees them.
        grad_hidden: (B, H), of h_T as the next chunk sees it; replaced by the gradient of h_0.
        grad_carry: (B, H), of c_T; replaced by that of c_0.
        grad_gates: (T * B, 4H), room for the gradient of what the gates were before their nonlinearities.
        grad_bias: (4H,), to which the sum of those is added.
    """
    units = carry.shape[1]
    now = np.zeros((4, HEIGHT, LANES), carry.dtype)
    before, after = np.zeros((HEIGHT, LANES), carry.dtype), np.zeros((HEIGHT, LANES), carry.dtype)
    above, later = np.zeros((HEIGHT, LANES), carry.dtype), np.zeros((HEIGHT, LANES), carry.dtype)
    cell = np.zeros((HEIGHT, LANES), carry.dtype)
    for step in range(steps - 1, -2, -1):
        for tile in range(weights.shape[0]):
            column = tile * LANES
            width = min(LANES, units - column)
            for stream in range(0, batch, HEIGHT):
                row, height = step * batch + stream, min(HEIGHT, batch - stream)
                of_product = grad_gates[row + batch : row + batch + height]
                _fill(later, weights[tile, 0], of_product, grad_hidden, (stream, column, height, width))
                if step < 0:
                    put(grad_hidden, stream, column, later, height, width)
                    continue
                for gate in range(4):
                    take(now[gate], gates, row, gate * units + column, height, width)
                take(before, carry, row, column, height, width)
                take(after, carry, row + batch, column, height, width)
                take(above, grad_outputs, row, column, height, width)
                take(cell, grad_carry, stream, column, height, width)
                flat = before.reshape(-1), after.reshape(-1), above.reshape(-1), later.reshape(-1)
                _lstm_gradients(now.reshape(4, -1), *flat, cell[:height].reshape(-1))
                put(grad_carry, stream, column, cell, height, width)
                for gate in range(4):
                    put(grad_gates, row, gate * units + column, now[gate], height, width)
                    add_rows(grad_bias[gate * units + column :], now[gate], height, width)


@inlined
def _gru_gates(gates: Any, state: Any) -> None:
    """Flat tiles: four of gates n, r, u, m before their nonlinearities become the gates; the state goes on."""
    for k in range(state.shape[0]):
        r, u = sigmoid(gates[1, k]), sigmoid(gates[2, k])
        n = tanh(gates[0, k] + r * gates[3, k])
        gates[0, k], gates[1, k], gates[2, k] = n, r, u
        state[k] = (ONE - u) * n + u * state[k]


@kernel
def gru_forward(weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any) -> None:
    """All steps of a GRU; arguments as `lstm_forward`, but for three.

    ``weights`` are in tiles of three gates. ``gates`` has blocks n, r, u, m: W_x x + b_x of the candidate and of the
    gates (these with b_h, too), and b_h of the candidate, to which W_h h is added for the reset gate to multiply.
    ``carry`` is the hidden state in full.
    """
    units = carry.shape[1]
    now, state = np.zeros((4, HEIGHT, LANES), carry.dtype), np.zeros((HEIGHT, LANES), carry.dtype)
    for start in range(0, steps * batch, batch):
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
def gru_backward(
    weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any,
    grad_outputs: Any, grad_hidden: Any, grad_carry: Any, grad_gates: Any, grad_bias: Any,
) -> None:  # fmt: skip
    """The same backwards; arguments as `lstm_backward`, where K is 3H."""
    units = carry.shape[1]
    now = np.zeros((4, HEIGHT, LANES), carry.dtype)
    before, kept = np.zeros((HEIGHT, LANES), carry.dtype), np.zeros((HEIGHT, LANES), carry.dtype)
    above, later = np.zeros((HEIGHT, LANES), carry.dtype), np.zeros((HEIGHT, LANES), carry.dtype)
    for step in range(steps - 1, -2, -1):
        for tile in range(weights.shape[0]):
            column = tile * LANES
            width = min(LANES, units - column)
            for stream in range(0, batch, HEIGHT):
                row, height = step * batch + stream, min(HEIGHT, batch - stream)
                of_product = grad_gates[row + batch : row + batch + height, units:]
                _fill(later, weights[tile, 0], of_product, grad_hidden, (stream, column, height, width))
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


@inlined
def _rnn_state(state: Any) -> None:
    """A flat tile before its nonlinearity becomes the state."""
    for n in range(state.shape[0]):
        state[n] = tanh(state[n])


@kernel
def rnn_forward(weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any) -> None:
    """All steps of a plain RNN; arguments as `lstm_forward`, with one gate: h_t. Of ``carry``, only its shape."""
    units = carry.shape[1]
    now = np.zeros((HEIGHT, LANES), carry.dtype)
    for start in range(0, steps * batch, batch):
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
def rnn_backward(
    weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any,
    grad_outputs: Any, grad_hidden: Any, grad_carry: Any, grad_gates: Any, grad_bias: Any,
) -> None:  # fmt: skip
    """The same backwards; arguments as `lstm_backward`, where K is H and the carries are unused."""
    units = carry.shape[1]
    now, above = np.zeros((HEIGHT, LANES), carry.dtype), np.zeros((HEIGHT, LANES), carry.dtype)
    later = np.zeros((HEIGHT, LANES), carry.dtype)
    for step in range(steps - 1, -2, -1):
        for tile in range(weights.shape[0]):
            column = tile * LANES
            width = min(LANES, units - column)
            for stream in range(0, batch, HEIGHT):
                row, height = step * batch + stream, min(HEIGHT, batch - stream)
                of_product = grad_gates[row + batch : row + batch + height]
                _fill(later, weights[tile, 0], of_product, grad_hidden, (stream, column, height, width))
                if step < 0:
                    put(grad_hidden, stream, column, later, height, width)
                    continue
                take(now, gates, row, column, height, width)
                take(above, grad_outputs, row, column, height, width)
                _rnn_gradients(now[:height].reshape(-1), above.reshape(-1), later.reshape(-1))
                put(grad_gates, row, column, now, height, width)
                add_rows(grad_bias[column:], now, height, width)
