"""Emits products of int8 matrices with int16 states, for one panel of a matrix and some streams at a time.

A product reads LANES rows of weights at once, two neighbouring columns at a time. One instruction multiplies these
with two elements of the state and adds each pair of products, so no sum crosses lanes. Sums of integers don't depend
on the order of the additions. So the result for a stream is bit-identical in any batch.

Importing this module raises ImportError if llvmlite is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.simd import BYTE, FLOAT, INT, LANES, SHORT, Function, Index, Memory, Number, broadcast

STREAMS = 4  # streams that share each load of weights
_CHAINS = 8  # independent sums, which hide the latency of an addition


@dataclass(frozen=True)
class Matrix:
    """A quantized matrix in panels, in the memory layout of ``packing.py``."""

    weights: Memory  # (P, K / 2, G, LANES, 2)
    scales: Memory  # (P, G, LANES)
    biases: Memory  # (P, G, LANES)
    gates: int  # G

    def at(self, panel: Index, size: Index) -> "Matrix":
        """Return the matrix that starts at a panel.

        Args:
            panel: The index of the panel.
            size: K, the number of columns.
        """
        rows = panel * (self.gates * LANES)
        return Matrix(self.weights.at(rows * size), self.scales.at(rows), self.biases.at(rows), self.gates)

    def multiply(self, fn: Function, target: Target, states: list[Memory], size: Index) -> list[list[Number]]:
        """Emit the products of the first panel with states (K,).

        Args:
            fn: The function to which the code is added.
            target: The processor.
            states: The states, (K,) each.
            size: K.

        Returns:
            For each state, the products of its gates, LANES rows each.
        """

        def dequantize(total: Any, gate: int) -> Number:
            scale, bias = (memory.at(gate * LANES).vector() for memory in (self.scales, self.biases))
            return Number(fn, fn.builder.sitofp(total, ir.VectorType(FLOAT, LANES))) * scale + bias

        max_gates = (16 if target.has("avx512bw") else 4) // len(states)  # gates with sums that fit in registers
        products: list[list[Number]] = [[] for _ in states]
        for first in range(0, self.gates, max_gates):
            gates = range(first, min(self.gates, first + max_gates))
            sums = self._sums(fn, states, size, gates)
            for index, product in enumerate(products):
                state_sums = sums[index * len(gates) : (index + 1) * len(gates)]
                product += [dequantize(total, gate) for total, gate in zip(state_sums, gates, strict=True)]
        return products

    def _sums(self, fn: Function, states: list[Memory], size: Index, gates: range) -> list[Any]:
        """Emit code that computes the integer sums of some gates in registers. Return them state by state."""
        builder, count = fn.builder, len(states) * len(gates)
        sum_type = ir.VectorType(INT, LANES)
        narrow, wide = (ir.VectorType(kind, 2 * LANES) for kind in (SHORT, INT))
        phases = max(1, _CHAINS // count)  # pairs of columns with separate sums; divides K / 2

        def every_second(vector: Any, first: int) -> Any:
            mask = ir.Constant(sum_type, list(range(first, 2 * LANES, 2)))
            return builder.shuffle_vector(vector, ir.Constant(wide, ir.Undefined), mask)

        def add_pairs(pair: Index, sums: list[Any]) -> list[Any]:
            new_sums: list[Any] = []
            for phase in range(phases):
                row = self.weights.at((pair + phase) * (self.gates * 2 * LANES))
                columns = [row.at(gate * 2 * LANES).load(ir.VectorType(BYTE, 2 * LANES)) for gate in gates]
                weights = [builder.sext(column, wide) for column in columns]
                for state in states:
                    state_pair = broadcast(builder, state.at((pair + phase) * 2).load(INT))
                    factor = builder.sext(builder.bitcast(state_pair, narrow), wide)
                    for weight in weights:
                        # LLVM turns product and sum into one instruction, such as vpmaddwd.
                        product = builder.mul(weight, factor)
                        pair_sum = builder.add(every_second(product, 0), every_second(product, 1))
                        new_sums.append(builder.add(sums[len(new_sums)], pair_sum))
            return new_sums

        zeros = [ir.Constant(sum_type, [0] * LANES)] * (phases * count)
        sums = fn.fold(size // 2, phases, zeros, add_pairs)
        for phase in range(1, phases):
            sums[:count] = map(builder.add, sums[:count], sums[phase * count :][:count])
        return sums[:count]


def for_streams(fn: Function, streams: Index, body: Callable[[Index, int], None]) -> None:
    """Emit loops over streams: `STREAMS` at a time, and one at a time for the rest.

    Args:
        fn: The function to which the code is added.
        streams: The number of streams.
        body: Emits the code for some streams, given the first of them and their number.
    """
    first_left = streams // STREAMS * STREAMS
    with fn.range(0, first_left, STREAMS) as stream:
        body(stream, STREAMS)
    with fn.range(first_left, streams) as stream:
        body(stream, 1)
