"""The loop of ``writer.py`` compiled: the network in int8, the choice, and again, without leaving the machine code.

A row of weights is 127 steps wide on either side, with a scale of its own; a hidden state, which lies between -1 and
1, is rounded to 16 bits. Their products are summed in whole numbers, so that a stream gets the very same sums
whatever others are computed beside it. All else is fp32, rounded as it is written, which is as NumPy does it: whoever
computes, the text is the same.

Compiled by Numba at first use, then kept on disk; importing this module raises ImportError where Numba is missing.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from charrnn.rational import FURTHEST, quotient
from charrnn.vectors import exact, exact_kernel

WIDE = 32  # weights that a product takes at a time; rows are padded to it with zeros
ROWS = 8  # of weights that it takes side by side, for one stream; matrices are padded to it
_BLOCK = 4  # rows and streams, where there are that many streams
LSTM, GRU, RNN = 0, 1, 2
_HALF = np.float32(0.5)


def _dots(rows: int, streams: int) -> Any:
    """A function for the sums of ``rows`` adjacent rows of weights with ``streams`` adjacent states."""

    @intrinsic
    def dots(typing_context: Any, weights: Any, states: Any, row: Any, stream: Any, sums: Any) -> Any:
        """Writes sums (rows * streams,): weights (R, K) int8 from a row on, states (S, K) int16 from a stream on."""

        def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            of_weights, of_states, of_sums = (
                context.make_array(signature.args[n])(context, builder, arguments[n]) for n in (0, 1, 4)
            )
            integer, whole = arguments[2].type, ir.IntType(32)
            length = cgutils.unpack_tuple(builder, of_weights.shape)[1]
            wide, sum_type = ir.VectorType(whole, WIDE), ir.VectorType(whole, WIDE // 2)

            def constant(n: int) -> ir.Constant:
                return ir.Constant(integer, n)

            def begins(of: Any, first: Any, count: int) -> list[Any]:
                starts = [builder.mul(builder.add(first, constant(n)), length) for n in range(count)]
                return [builder.gep(of.data, [start]) for start in starts]

            def load(begin: Any, k: Any, bits: int) -> Any:
                kind = ir.VectorType(ir.IntType(bits), WIDE)
                loaded = builder.load(builder.bitcast(builder.gep(begin, [k]), kind.as_pointer()))
                loaded.align = bits // 8
                return builder.sext(loaded, wide)

            def half(of: Any, first: int) -> Any:
                mask = ir.Constant(ir.VectorType(whole, WIDE // 2), list(range(first, WIDE, 2)))
                return builder.shuffle_vector(of, ir.Constant(wide, ir.Undefined), mask)

            weight_rows = begins(of_weights, arguments[2], rows)
            state_rows = begins(of_states, arguments[3], streams)
            before = builder.block
            loop, after = builder.append_basic_block("k"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(integer)
            k.add_incoming(constant(0), before)
            totals = [builder.phi(sum_type) for _ in range(rows * streams)]
            factors = [load(begin, k, 16) for begin in state_rows]
            following = []
            for r, begin in enumerate(weight_rows):
                row_k = load(begin, k, 8)
                for s, factor in enumerate(factors):
                    products = builder.mul(
                        row_k, factor
                    )  # of neighbours added: one instruction, vpmaddwd and its kin
                    pairs = builder.add(half(products, 0), half(products, 1))
                    following.append(builder.add(totals[r * streams + s], pairs))
            next_k = builder.add(k, constant(WIDE))
            k.add_incoming(next_k, loop)
            for total, then in zip(totals, following, strict=True):
                total.add_incoming(ir.Constant(sum_type, [0] * (WIDE // 2)), before)
                total.add_incoming(then, loop)
            builder.cbranch(builder.icmp_signed("<", next_k, length), loop, after)
            builder.position_at_end(after)
            name = f"llvm.vector.reduce.add.v{WIDE // 2}i32"
            reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(whole, [sum_type]), name)
            for n, then in enumerate(following):
                builder.store(builder.call(reduce, [then]), builder.gep(of_sums.data, [constant(n)]))
            return context.get_dummy_value()

        return types.void(weights, states, row, stream, sums), code

    return dots


_of_one = _dots(ROWS, 1)
_of_block = _dots(_BLOCK, _BLOCK)


@exact
def _multiply(weights: Any, scales: Any, biases: Any, states: Any, sums: Any, out: Any) -> None:
    """Out (S, R) = scales * (states (S, K) times weights (R, K)) + biases."""
    streams, blocked = states.shape[0], states.shape[0] // _BLOCK * _BLOCK
    if blocked:
        for row in range(0, weights.shape[0], _BLOCK):
            for stream in range(0, blocked, _BLOCK):
                _of_block(weights, states, row, stream, sums)
                for r in range(_BLOCK):
                    for s in range(_BLOCK):
                        total = np.float32(sums[r * _BLOCK + s])
                        out[stream + s, row + r] = total * scales[row + r] + biases[row + r]
    for stream in range(blocked, streams):
        for row in range(0, weights.shape[0], ROWS):
            _of_one(weights, states, row, stream, sums)
            for r in range(ROWS):
                out[stream, row + r] = np.float32(sums[r]) * scales[row + r] + biases[row + r]


_quotient = exact(quotient)


@exact
def _tanh(x: Any) -> Any:
    return _quotient(min(max(x, -FURTHEST), FURTHEST))


@exact
def _gates(cell: int, signal: Any, echo: Any, hidden: Any, carry: Any) -> None:
    """The state of one stream and layer after a step, as `charrnn.sampling.stepper` computes it."""
    size = carry.shape[0]
    if cell == LSTM:  # input, forget, output, candidate
        for j in range(size):
            i = _HALF + _HALF * _tanh(signal[j] + echo[j])
            f = _HALF + _HALF * _tanh(signal[size + j] + echo[size + j])
            o = _HALF + _HALF * _tanh(signal[2 * size + j] + echo[2 * size + j])
            g = _tanh(signal[3 * size + j] + echo[3 * size + j])
            carry[j] = f * carry[j] + i * g
            hidden[j] = o * _tanh(carry[j])
    elif cell == GRU:  # reset, update, candidate
        for j in range(size):
            r = _HALF + _HALF * _tanh(signal[j] + echo[j])
            u = _HALF + _HALF * _tanh(signal[size + j] + echo[size + j])
            n = _tanh(signal[2 * size + j] + r * echo[2 * size + j])
            hidden[j] = n + u * (hidden[j] - n)
    else:
        for j in range(size):
            hidden[j] = _tanh(signal[j] + echo[j])


@exact
def _choose(logits: Any, never: Any, uniform: float, temperature: float, weights: Any) -> int:
    """As `Sampler.choose` does without a penalty and filters."""
    best = -1
    for v in range(len(weights)):
        if not never[v] and (best < 0 or logits[v] > logits[best]):
            best = v
    if temperature == 0:
        return best
    total = 0.0
    for v in range(len(weights)):
        if not never[v]:
            total += math.exp((np.float64(logits[v]) - np.float64(logits[best])) / temperature)
        weights[v] = total
    wanted = uniform * total
    low, high = 0, len(weights) - 1
    while low < high:  # the first whose sum is above what is wanted; of the last ones that are equal, the first
        middle = (low + high) // 2
        if weights[middle] > wanted or weights[middle] == total:
            high = middle
        else:
            low = middle + 1
    return low


@exact
def _surprise(logits: Any, size: int, index: int) -> float:
    """Nats that a character costs."""
    top = logits[0]
    for v in range(size):
        top = max(top, logits[v])
    total = 0.0
    for v in range(size):
        total += math.exp(np.float64(logits[v]) - np.float64(top))
    return math.log(total) + np.float64(top) - np.float64(logits[index])


@exact_kernel
def run(
    cell: int,
    levels: Any,
    columns: Any,
    recurrent: Any,
    above: Any,
    output: Any,
    hidden: Any,
    carry: Any,
    ids: Any,
    given: Any,
    uniforms: Any,
    temperatures: Any,
    never: Any,
    measure: bool,
    logits: Any,
    chosen: Any,
    nats: Any,
) -> None:
    """Reads and chooses characters of S streams.

    Args:
        cell: LSTM, GRU or RNN.
        levels: what a hidden state of 1 is rounded to, as float32.
        columns: (V, G*H), what each character adds to the gates of layer 0.
        recurrent: weights (L, R, K) in int8, R and K being G*H and H, padded; their scales and biases (L, R).
        above: the input weights of the layers from 1 on, likewise.
        output: (W, K), (W,) and (W,), W being V, padded.
        hidden: (L, S, H), replaced by what it is afterwards.
        carry: (L, S, H), likewise; unused but for an LSTM.
        ids: (S,), read first.
        given: (T, S), ids to be read after each; where they are negative, what is chosen is.
        uniforms: (T, S), random numbers for the choices.
        temperatures: (T, S).
        never: (V,), which ids are not to be chosen.
        measure: whether to fill ``nats``.
        logits: (S, W), filled with those after the last step.
        chosen: (T, S), filled with the ids that are read after each.
        nats: (T, S), filled with the surprise of those that were chosen.
    """
    layers, streams, _ = hidden.shape
    _, rows, padded = recurrent[0].shape
    rounded = np.zeros((layers, streams, padded), np.int16)
    for layer in range(layers):
        for s in range(streams):
            _round(hidden[layer, s], levels, rounded[layer, s])
    echo, signal = np.empty((streams, rows), np.float32), np.empty((streams, rows), np.float32)
    sums, weights = np.empty(max(ROWS, _BLOCK * _BLOCK), np.int32), np.empty(len(never), np.float64)
    for t in range(given.shape[0]):
        for layer in range(layers):
            if layer:
                below = layer - 1
                _multiply(above[0][below], above[1][below], above[2][below], rounded[below], sums, signal)
            _multiply(recurrent[0][layer], recurrent[1][layer], recurrent[2][layer], rounded[layer], sums, echo)
            for s in range(streams):
                arriving = signal[s] if layer else columns[ids[s] if t == 0 else chosen[t - 1, s]]
                _gates(cell, arriving, echo[s], hidden[layer, s], carry[layer, s])
                _round(hidden[layer, s], levels, rounded[layer, s])
        _multiply(output[0], output[1], output[2], rounded[layers - 1], sums, logits)
        for s in range(streams):
            chosen[t, s] = given[t, s]
            if given[t, s] < 0:
                chosen[t, s] = _choose(logits[s], never, uniforms[t, s], temperatures[t, s], weights)
                if measure:
                    nats[t, s] = _surprise(logits[s], len(never), chosen[t, s])


@exact
def _round(hidden: Any, levels: Any, rounded: Any) -> None:
    for j in range(len(hidden)):
        rounded[j] = np.int16(math.floor(hidden[j] * levels + _HALF))
