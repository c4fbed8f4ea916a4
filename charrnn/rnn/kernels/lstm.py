"""The recurrence of an LSTM, compiled to the processor's vectors: all T steps of a layer, forward and backward.

A step takes the units of the layer tile by tile: their gates' products with the whole state of the step before, then
their gate arithmetic at once, while the tile is in the nearest cache. It runs on one thread and without the
interpreter's lock, so that several may run abreast. ``gru.py`` and ``rnn.py`` are built alike.

Matrices outside are token-major, (T * B, units): a row is one stream at one step, and the B streams of a step are
adjacent. The recurrent weights come in tiles, (tiles of units, gates, K, LANES), as `tiles.product` has them.
Equations and symbols are those of ``cells.py``.

Compiled by Numba at first use, then kept on disk; importing this module raises ImportError where Numba is missing.
"""

from typing import Any

from charrnn.rnn.kernels.jit import ONE, inlined, kernel, sigmoid, tanh
from charrnn.rnn.kernels.tiles import HEIGHT, LANES, add_rows, clear, fill, forget, product, put, recall, take


@inlined
def _lstm_gates(gates: Any, cell: Any, state: Any) -> None:
    """Flat tiles: four of gates before their nonlinearities become the gates; cell and state go a step on."""
    for n in range(cell.shape[0]):
        i, f, g, o = sigmoid(gates[0, n]), sigmoid(gates[1, n]), tanh(gates[2, n]), sigmoid(gates[3, n])
        c = f * cell[n] + i * g
        gates[0, n], gates[1, n], gates[2, n], gates[3, n] = i, f, g, o
        cell[n], state[n] = c, o * tanh(c)


@kernel
def forward(
    weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any,
    fresh: Any, kept_hidden: Any, kept_carry: Any, room: Any,
) -> None:  # fmt: skip
    """All steps of an LSTM.

    Args:
        weights: the recurrent ones in tiles of four gates.
        steps: T.
        batch: B.
        gates: (T * B, 4H), blocks i, f, g, o: W_x x + b; replaced by the gates.
        hidden: ((T + 1) * B, H): h_0, and room for h_1 to h_T.
        carry: ((T + 1) * B, H): c_0, and room for c_1 to c_T.
        fresh: ((T + 1) * B,), whether a stream begins anew before a step, where its state becomes zero.
        kept_hidden: room for a row of each time that one does, in this order: what its hidden state was.
        kept_carry: the same of its carry.
        room: (ROOM, HEIGHT, LANES), tiles to work in, zeros.
    """
    units = carry.shape[1]
    now, cell, state = room[:4], room[4], room[5]
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
                    product(weights[tile, gate], hidden[row : row + height], now[gate])
                take(cell, carry, row, column, height, width)
                _lstm_gates(now.reshape(4, -1), cell[:height].reshape(-1), state.reshape(-1))
                for gate in range(4):
                    put(gates, row, gate * units + column, now[gate], height, width)
                put(carry, row + batch, column, cell, height, width)
                put(hidden, row + batch, column, state, height, width)


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
def backward(
    weights: Any, steps: int, batch: int, gates: Any, hidden: Any, carry: Any,
    fresh: Any, kept_carry: Any,
    grad_outputs: Any, grad_hidden: Any, grad_carry: Any, grad_gates: Any, grad_bias: Any, room: Any,
) -> None:  # fmt: skip
    """The same backwards.

    Args:
        weights: the recurrent ones, transposed: K is 4H, and units are those of the step before.
        steps: T.
        batch: B.
        gates: as forward leaves them.
        hidden: the same.
        carry: the same; left with what was kept where streams began anew.
        fresh: as of forward.
        kept_carry: as forward leaves it.
        grad_outputs: (T * B, H), gradient of h_1 to h_T as the layer above sees them.
        grad_hidden: (B, H), of h_T as the next chunk sees it; replaced by the gradient of h_0.
        grad_carry: (B, H), of c_T; replaced by that of c_0.
        grad_gates: (T * B, 4H), room for the gradient of what the gates were before their nonlinearities.
        grad_bias: (4H,), to which the sum of those is added.
        room: as of forward.
    """
    units = carry.shape[1]
    now, before, after, above, later, cell = room[:4], room[4], room[5], room[6], room[7], room[8]
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
