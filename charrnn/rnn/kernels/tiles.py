"""What the kernels are made of: tiles of a layer, moved in and out, and their products with weights.

A tile (R, LANES) holds adjacent units, or gates, of some streams, in float32 (float64 for tests). Matrices outside
may hold bfloat16, which arrives as the uint16 of its bits since NumPy has no such type.

Importing this module raises ImportError where Numba is missing.
"""

import itertools
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from charrnn.rnn.kernels.jit import FEATURES, inlined, narrow, wide

_VECTOR = 16  # float32 in the widest register there is; narrower processors take several for one
# Units and streams that a product takes at a time: sums for as many registers as keep the processor's two multipliers
# busy, and no more than it has.
LANES, _ROWS = (32, 8) if "+avx512f" in FEATURES else (16, 4)
HEIGHT = 32  # streams of a tile: with four gates it stays in the nearest cache
ROOM = 9  # tiles that a kernel works in, at most; handed in, for Numba takes half a second to compile its own zeros

binding.initialize_native_asmparser()  # for the one instruction that has no name in every version of LLVM


@intrinsic
def _multiply(typing_context: Any, weights: Any, factors: Any, sums: Any, first: Any) -> Any:
    """The part of `product` for the _ROWS streams from the first, or that many times the last: all sums in registers.

    Written in LLVM's own language, for Numba has no name for vectors.
    """

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        of_weights, of_factors, of_sums = (
            context.make_array(kind)(context, builder, argument)
            for kind, argument in zip(signature.args[:3], arguments[:3], strict=True)
        )
        integer, byte = arguments[3].type, ir.IntType(8).as_pointer()
        number, factor = (context.get_value_type(kind.dtype) for kind in (sums, weights))
        vector = ir.VectorType(factor, _VECTOR)
        alignment = sums.dtype.bitwidth // 8
        length = cgutils.unpack_tuple(builder, of_weights.shape)[0]
        streams = cgutils.unpack_tuple(builder, of_factors.shape)[0]
        pitch = cgutils.unpack_tuple(builder, of_factors.strides)[0]  # bytes

        def constant(n: int) -> ir.Constant:
            return ir.Constant(integer, n)

        def places(of: Any, row: Any, kind: ir.VectorType) -> list[Any]:
            begin = builder.mul(row, constant(LANES))
            starts = [builder.add(begin, constant(lane)) for lane in range(0, LANES, _VECTOR)]
            return [builder.bitcast(builder.gep(of.data, [start]), kind.as_pointer()) for start in starts]

        def load(place: Any) -> Any:
            loaded = builder.load(place)
            loaded.align = alignment
            return loaded

        def everywhere(value: Any) -> Any:
            nothing = ir.Constant(vector, ir.Undefined)
            lane = ir.Constant(ir.IntType(32), 0)
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), _VECTOR), [0] * _VECTOR)
            return builder.shuffle_vector(builder.insert_element(nothing, value, lane), nothing, lanes)

        sum_places, bases = [], []
        for r in range(_ROWS):
            row = builder.add(arguments[3], constant(r))
            sum_places += places(of_sums, row, ir.VectorType(number, _VECTOR))
            last = builder.sub(streams, constant(1))
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            base = builder.gep(builder.bitcast(of_factors.data, byte), [builder.mul(row, pitch)])
            bases.append(builder.bitcast(base, factor.as_pointer()))
        starts = [load(place) for place in sum_places]
        before = builder.block
        loop, after = builder.append_basic_block("k"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(integer)
        k.add_incoming(constant(0), before)
        totals = [builder.phi(start.type) for start in starts]
        columns = [load(place) for place in places(of_weights, k, vector)]
        add = _add_pairs if isinstance(weights.dtype, types.Integer) else _add
        factors_k = []
        for base in bases:
            value = builder.load(builder.gep(base, [k]))
            value.align = alignment if factor == number else 2
            factors_k.append(everywhere(value))
        pairs = itertools.product(factors_k, columns)  # in the order of the sums
        following = [
            add(builder, total, column, spread) for total, (spread, column) in zip(totals, pairs, strict=True)
        ]
        for total, start, then in zip(totals, starts, following, strict=True):
            total.add_incoming(start, before)
            total.add_incoming(then, loop)
        next_k = builder.add(k, constant(1))
        k.add_incoming(next_k, loop)
        builder.cbranch(builder.icmp_signed("<", next_k, length), loop, after)
        builder.position_at_end(after)
        for then, place in zip(following, sum_places, strict=True):
            builder.store(then, place).align = alignment
        return context.get_dummy_value()

    return types.void(weights, factors, sums, first), code


def _add(builder: ir.IRBuilder, total: Any, one: Any, other: Any) -> Any:
    """The vector total + one * other."""
    return builder.fadd(builder.fmul(one, other, flags=("contract",)), total, flags=("contract",))


def _add_pairs(builder: ir.IRBuilder, total: Any, one: Any, other: Any) -> Any:
    """The same for vectors of pairs of bfloat16: both of a lane's products are added to its float32."""
    if "+avx512bf16" in FEATURES:
        kind = ir.FunctionType(total.type, [total.type, one.type, other.type])
        return builder.asm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v", [total, one, other], side_effect=False)
    sixteen, upper = (ir.Constant(one.type, [bits] * _VECTOR) for bits in (16, 0xFFFF0000))
    for half, bits in ((builder.shl, sixteen), (builder.and_, upper)):
        total = _add(builder, total, *(builder.bitcast(half(pair, bits), total.type) for pair in (one, other)))
    return total


def _row_mover(loads: bool) -> Any:
    """`take` or `put` of one row that fills the tile; left to the compiler, a loop this short is mostly scalar."""

    @intrinsic
    def move(typing_context: Any, tile: Any, r: Any, matrix: Any, row: Any, column: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            narrows = isinstance(matrix.dtype, types.Integer)
            number, outside = (context.get_value_type(kind.dtype) for kind in (tile, matrix))
            bits = ir.VectorType(ir.IntType(32), _VECTOR)
            inner, outer = (ir.VectorType(kind, _VECTOR) for kind in (number, outside))

            def start(kind: Any, array: Any, row: Any, column: Any) -> Any:
                of = context.make_array(kind)(context, builder, array)
                pitch = cgutils.unpack_tuple(builder, of.strides)[0]  # bytes
                first = builder.gep(builder.bitcast(of.data, ir.IntType(8).as_pointer()), [builder.mul(row, pitch)])
                return builder.gep(builder.bitcast(first, context.get_data_type(kind.dtype).as_pointer()), [column])

            def constant(n: int) -> ir.Constant:
                return ir.Constant(bits, [n] * _VECTOR)

            of_tile, r, of_matrix, row, column = arguments
            lanes, values = start(tile, of_tile, r, column.type(0)), start(matrix, of_matrix, row, column)
            for lane in range(0, LANES, _VECTOR):
                within, without = (
                    builder.bitcast(builder.gep(place, [column.type(lane)]), kind.as_pointer())
                    for place, kind in ((lanes, inner), (values, outer))
                )
                source, target, size = (without, within, matrix) if loads else (within, without, tile)
                moved = builder.load(source)
                moved.align = size.dtype.bitwidth // 8
                if narrows and loads:
                    moved = builder.bitcast(builder.shl(builder.zext(moved, bits), constant(16)), inner)
                elif narrows:
                    exact = builder.bitcast(moved, bits)
                    odd = builder.and_(builder.lshr(exact, constant(16)), constant(1))
                    rounded = builder.add(builder.add(exact, constant(0x7FFF)), odd)
                    moved = builder.trunc(builder.lshr(rounded, constant(16)), outer)
                builder.store(moved, target).align = (tile if loads else matrix).dtype.bitwidth // 8
            return context.get_dummy_value()

        return types.void(tile, r, matrix, row, column), code

    return move


_take_row, _put_row = _row_mover(loads=True), _row_mover(loads=False)


@inlined
def take(tile: Any, matrix: Any, row: int, column: int, height: int, width: int) -> None:
    """Fills a corner of a tile from the matrix, where that one's rows are streams and its columns units."""
    for r in range(height):
        if width == LANES:
            _take_row(tile, r, matrix, row + r, column)
        else:
            for n in range(width):
                tile[r, n] = wide(matrix[row + r, column + n])


@inlined
def put(matrix: Any, row: int, column: int, tile: Any, height: int, width: int) -> None:
    """The inverse of `take`."""
    for r in range(height):
        if width == LANES:
            _put_row(tile, r, matrix, row + r, column)
        else:
            for n in range(width):
                matrix[row + r, column + n] = narrow(tile[r, n], matrix)


@inlined
def add_rows(totals: Any, tile: Any, height: int, width: int) -> None:
    """Adds the first rows of a tile to totals (at least width,)."""
    for r in range(np.uintp(height)):
        for n in range(np.uintp(width)):
            totals[n] += tile[r, n]


@inlined
def product(weights: Any, factors: Any, sums: Any) -> None:
    """Adds factors @ weights to a tile.

    Args:
        weights: (K, LANES); or (K / 2, LANES), each number the bits of two bfloat16: rows 2k, in the lower half, and
            2k + 1.
        factors: (R, at least K), R up to HEIGHT; in the type of one weight.
        sums: the tile, (HEIGHT, LANES).
    """
    for first in range(0, factors.shape[0], _ROWS):
        _multiply(weights, factors, sums, first)


@inlined
def fill(later: Any, weights: Any, following: Any, last: Any, place: Any) -> None:
    """Makes a tile the gradient that h_t has by way of the following step's gates; of the last h, it is given."""
    if following.shape[0] == 0:
        take(later, last, *place)
    else:
        later[:] = 0
        product(weights, following, later)


@inlined
def clear(tile: Any, fresh: Any, row: int, height: int) -> None:
    """Makes the rows of a tile zero whose streams begin anew at a row of the matrices outside."""
    for r in range(height):
        if fresh[row + r]:
            tile[r] = 0


@inlined
def forget(fresh: Any, start: int, batch: int, hidden: Any, carry: Any, kept_hidden: Any, kept_carry: Any) -> int:
    """Makes the states before a step zero whose streams begin anew; keeps what they were, and counts them."""
    kept = 0
    for row in range(start, start + batch):
        if fresh[row]:
            for n in range(carry.shape[1]):  # one by one: whole rows take Numba seconds to compile
                kept_hidden[kept, n], kept_carry[kept, n] = hidden[row, n], carry[row, n]
                hidden[row, n], carry[row, n] = 0, 0
            kept += 1
    return kept


@inlined
def recall(fresh: Any, start: int, batch: int, carry: Any, kept_carry: Any, grad_carry: Any) -> int:
    """The inverse, from the last one kept back; counts those left. What comes later is no fault of these states."""
    left = len(kept_carry)
    for stream in range(batch - 1, -1, -1):
        if fresh[start + stream]:
            left -= 1
            for n in range(carry.shape[1]):
                carry[start + stream, n] = kept_carry[left, n]
                grad_carry[stream, n] = 0
    return left
