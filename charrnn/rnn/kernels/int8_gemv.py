"""What the sampling kernel is made of: one panel of a matrix and some streams side by side, in vectors.

A product takes two neighbours of a row of weights and of a state at a time, for LANES rows at once: their pairs of
products are added by one instruction, and no sum runs across the lanes. The gates follow while it is in registers.

Importing this module raises ImportError where Numba is missing.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from charrnn.config import GATES, Cell
from charrnn.rnn.kernels import simd
from charrnn.rnn.kernels.jit import FEATURES
from charrnn.rnn.kernels.packing import LANES
from charrnn.rnn.kernels.simd import LONG, Arguments, Lanes, load, store, vector
from charrnn.rnn.tanh_approx import FURTHEST, quotient

STREAMS = 4  # that share what is loaded of the weights
_SUMS = 16 if "+avx512bw" in FEATURES else 4  # vectors of them that registers hold beside what is multiplied
_CHAINS = 8  # additions under way at a time, which hide how long each of them takes
_HALF = np.float32(0.5)


def _products(builder: ir.IRBuilder, weights: Any, states: list[Any], size: Any, gates: int) -> list[list[Any]]:
    """The sums of a panel of weights (size / 2, gates, LANES, 2) with states (size,): by state, then by gate."""
    sums: list[list[Any]] = [[] for _ in states]
    together = _SUMS // len(states)
    for first in range(0, gates, together):
        some = range(first, min(gates, first + together))
        for ours, more in zip(sums, _some_products(builder, weights, states, size, gates, some), strict=True):
            ours += more
    return sums


def _some_products(
    builder: ir.IRBuilder, weights: Any, states: list[Any], size: Any, gates: int, some: range
) -> list[list[Any]]:
    """The same for some of the gates, all their sums in registers."""
    total, count = vector(simd.INTEGER), len(states) * len(some)
    narrow, wide = (vector(kind, 2 * LANES) for kind in (simd.SHORT, simd.INTEGER))
    phases = max(1, _CHAINS // count)  # pairs that have sums of their own; sizes are multiples of so many

    def half(of: Any, first: int) -> Any:
        mask = ir.Constant(total, list(range(first, 2 * LANES, 2)))
        return builder.shuffle_vector(of, ir.Constant(wide, ir.Undefined), mask)

    def add_pairs(pair: Any, sums: list[Any]) -> list[Any]:
        added: list[Any] = []
        for phase in range(phases):
            now = builder.add(pair, LONG(phase))
            row = builder.gep(weights, [builder.mul(now, LONG(gates * 2 * LANES))])
            places = [builder.gep(row, [LONG(gate * 2 * LANES)]) for gate in some]
            factors = [builder.sext(load(builder, place, vector(simd.BYTE, 2 * LANES)), wide) for place in places]
            for state in states:
                two = load(builder, builder.gep(state, [builder.mul(now, LONG(2))]), simd.INTEGER)
                factor = builder.sext(builder.bitcast(simd.everywhere(builder, two), narrow), wide)
                for weight in factors:
                    product = builder.mul(weight, factor)  # neighbours added: one instruction, vpmaddwd and its kin
                    neighbours = builder.add(half(product, 0), half(product, 1))
                    added.append(builder.add(sums[len(added)], neighbours))
        return added

    zeros = [simd.spread(total, 0)] * (phases * count)
    sums = simd.loop(builder, builder.lshr(size, LONG(1)), phases, zeros, add_pairs)
    for phase in range(1, phases):
        sums[:count] = map(builder.add, sums[:count], sums[phase * count :][:count])
    return [sums[first : first + len(some)] for first in range(0, count, len(some))]


def _scaled(given: Arguments, panel: Any, stream: Any, gates: int, streams: int) -> list[list[Lanes]]:
    """The sums as numbers, where weights, scales, biases and the states of all streams are given first."""
    builder, size = given.builder, given.width(3)
    begin = builder.mul(panel, LONG(gates * LANES))
    states = [given.place(3, builder.mul(builder.add(stream, LONG(s)), size)) for s in range(streams)]

    def number(total: Any, gate: int) -> Lanes:
        scale, bias = (given.lanes(n, begin, LONG(gate * LANES)) for n in (1, 2))
        return Lanes(builder, builder.sitofp(total, vector(simd.FLOAT))) * scale + bias

    sums = _products(builder, given.place(0, builder.mul(begin, size)), states, size, gates)
    return [[number(total, gate) for gate, total in enumerate(ours)] for ours in sums]


def project(gates: int, streams: int) -> Any:
    """A function for what one panel makes of the states of so many streams.

    Its arguments:
        weights, scales, biases: of all panels, see `Panels`.
        states: (S, K), whole numbers.
        panel, stream: the panel's number, and that of the first stream.
        numbers: (S, N), of which those from a column on are written.
        column: the number of that.
    """

    @intrinsic
    def projecting(
        typing_context: Any, weights: Any, scales: Any, biases: Any, states: Any, panel: Any, stream: Any,
        numbers: Any, column: Any,
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            given = Arguments(context, builder, signature, arguments)
            for s, ours in enumerate(_scaled(given, given[4], given[5], gates, streams)):
                row = builder.mul(builder.add(given[5], LONG(s)), given.width(6))
                for gate, number in enumerate(ours):
                    store(builder, number.value, given.place(6, row, given[7], LONG(gate * LANES)))
            return context.get_dummy_value()

        return types.void(weights, scales, biases, states, panel, stream, numbers, column), code

    return projecting


def advance(cell: Cell, streams: int) -> Any:
    """A function that takes so many streams one step further, in one panel of a layer.

    Its arguments:
        weights, scales, biases: the recurrent ones, of all panels.
        states: (S, K), whole numbers, of before.
        panel, stream: the panel's number, and that of the first stream.
        signal: (N, M), what arrives at the gates of the panel from a column on.
        rows: (S,), which of its rows arrives at each stream.
        column: the number of that column.
        levels: the whole number that stands for a state of 1.
        hidden, carry: (S, K), which are brought up to date.
        after: (S, K), whole numbers, likewise.
    """
    gates = GATES[cell]

    @intrinsic
    def advancing(
        typing_context: Any, weights: Any, scales: Any, biases: Any, states: Any, panel: Any, stream: Any,
        signal: Any, rows: Any, column: Any, levels: Any, hidden: Any, carry: Any, after: Any,
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            given = Arguments(context, builder, signature, arguments)
            highest = Lanes(builder, simd.everywhere(builder, given[9]))
            unit = builder.mul(given[4], LONG(LANES))
            for s, echo in enumerate(_scaled(given, given[4], given[5], gates, streams)):
                own = builder.add(given[5], LONG(s))
                row = builder.mul(load(builder, given.place(7, own), LONG), given.width(6))
                arriving = [given.lanes(6, row, given[8], LONG(gate * LANES)) for gate in range(gates)]
                units = builder.mul(own, given.width(3)), unit
                new, kept = _after(cell, arriving, echo, given.lanes(10, *units), given.lanes(11, *units))
                store(builder, new.value, given.place(10, *units))
                if cell == "lstm":
                    store(builder, kept.value, given.place(11, *units))
                whole = builder.trunc((new * highest + _HALF).floor(), vector(simd.SHORT))
                store(builder, whole, given.place(12, *units))
            return context.get_dummy_value()

        return types.void(
            weights, scales, biases, states, panel, stream, signal, rows, column, levels, hidden, carry, after
        ), code

    return advancing


def _after(cell: Cell, signal: list[Lanes], echo: list[Lanes], hidden: Lanes, carry: Lanes) -> tuple[Lanes, Lanes]:
    """The state after a step, as `charrnn.rnn.numpy_rnn` computes it, which also tells the order of the gates."""
    if cell == "lstm":
        i, f, o = (_sigmoid(one + other) for one, other in zip(signal[:3], echo[:3], strict=True))
        carry = f * carry + i * _tanh(signal[3] + echo[3])
        return o * _tanh(carry), carry
    if cell == "gru":
        r, u = (_sigmoid(one + other) for one, other in zip(signal[:2], echo[:2], strict=True))
        n = _tanh(echo[2] * r + signal[2])
        return (hidden - n) * u + n, carry
    return _tanh(signal[0] + echo[0]), carry


def _tanh(x: Lanes) -> Any:
    return quotient(x.at_least(-FURTHEST).at_most(FURTHEST))


def _sigmoid(x: Lanes) -> Any:
    """Of twice the number."""
    return _tanh(x) * _HALF + _HALF
