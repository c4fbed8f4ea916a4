"""Products of int8 matrices with int16 states: one panel of a matrix and some streams at a time.

A product takes two neighbours of a row of weights and of a state at a time, for LANES rows at once. Their pairs of
products are added by one instruction, and no sum runs across the lanes. Integers have sums that don't depend on
their order, so that a stream gets the same bits whatever is computed beside it.

Importing this module raises ImportError where llvmlite is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.simd import BYTE, FLOAT, INT, LANES, SHORT, Function, Index, Memory, Number, spread

STREAMS = 4  # that share what is loaded of the weights
_CHAINS = 8  # additions in flight, which hide the latency of each


@dataclass(frozen=True)
class Matrix:
    """A quantized matrix in panels, as ``packing.py`` lays it out."""

    weights: Memory  # (P, K / 2, G, LANES, 2)
    scales: Memory  # (P, G, LANES)
    biases: Memory  # (P, G, LANES)
    gates: int  # G

    def at(self, panels: Index, size: Index) -> "Matrix":
        """Return the matrix so many panels further on; K is ``size``."""
        numbers = panels * (self.gates * LANES)
        return Matrix(self.weights.at(numbers * size), self.scales.at(numbers), self.biases.at(numbers), self.gates)

    def multiply(self, f: Function, target: Target, states: list[Memory], size: Index) -> list[list[Number]]:
        """Write the product of the first panel with states (K,), and return it by state and gate."""

        def number(total: Any, gate: int) -> Number:
            scale, bias = (numbers.at(gate * LANES).vector() for numbers in (self.scales, self.biases))
            return Number(f, f.builder.sitofp(total, ir.VectorType(FLOAT, LANES))) * scale + bias

        together = (16 if target.has("avx512bw") else 4) // len(states)  # gates whose sums registers can hold
        rows: list[list[Number]] = [[] for _ in states]
        for first in range(0, self.gates, together):
            some = range(first, min(self.gates, first + together))
            sums = self._sums(f, states, size, some)
            for place, row in enumerate(rows):
                own = sums[place * len(some) :]
                row += [number(total, gate) for total, gate in zip(own, some, strict=False)]
        return rows

    def _sums(self, f: Function, states: list[Memory], size: Index, some: range) -> list[Any]:
        """Return the sums of some gates, all of them in registers, state by state."""
        builder, count = f.builder, len(states) * len(some)
        sum_type = ir.VectorType(INT, LANES)
        narrow, wide = (ir.VectorType(kind, 2 * LANES) for kind in (SHORT, INT))
        phases = max(1, _CHAINS // count)  # pairs with sums of their own; K / 2 is a multiple of their number

        def half(of: Any, first: int) -> Any:
            mask = ir.Constant(sum_type, list(range(first, 2 * LANES, 2)))
            return builder.shuffle_vector(of, ir.Constant(wide, ir.Undefined), mask)

        def add_pairs(pair: Index, sums: list[Any]) -> list[Any]:
            added: list[Any] = []
            for phase in range(phases):
                row = self.weights.at((pair + phase) * (self.gates * 2 * LANES))
                columns = [row.at(gate * 2 * LANES).load(ir.VectorType(BYTE, 2 * LANES)) for gate in some]
                factors = [builder.sext(column, wide) for column in columns]
                for state in states:
                    two = spread(builder, state.at((pair + phase) * 2).load(INT))
                    factor = builder.sext(builder.bitcast(two, narrow), wide)
                    for weight in factors:
                        product = builder.mul(weight, factor)  # with the sum below one instruction, such as vpmaddwd
                        added.append(builder.add(sums[len(added)], builder.add(half(product, 0), half(product, 1))))
            return added

        zeros = [ir.Constant(sum_type, [0] * LANES)] * (phases * count)
        sums = f.fold(size // 2, phases, zeros, add_pairs)
        for phase in range(1, phases):
            sums[:count] = map(builder.add, sums[:count], sums[phase * count :][:count])
        return sums[:count]


def for_streams(f: Function, streams: Index, body: Callable[[Index, int], None]) -> None:
    """Write a body for `STREAMS` streams at a time, and for each of the rest; it gets the first and their number."""
    whole = streams // STREAMS * STREAMS
    with f.range(0, whole, STREAMS) as stream:
        body(stream, STREAMS)
    with f.range(whole, streams) as stream:
        body(stream, 1)
