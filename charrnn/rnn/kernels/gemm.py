"""Emits the matrix product of a recurrent step for one tile: some units of some streams, with all sums in registers.

Importing this module raises ImportError if llvmlite is missing.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir

from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.simd import FLOAT, INT, LANES, PAIR, Function, Index, Memory, Number, broadcast

TILE_ROWS = 32  # streams of a tile; the sums of four gates then fit in the L1 cache


def tile_units(target: Target) -> int:
    """Return the number of units of a tile, U."""
    return 2 * LANES if target.has("avx512f") else LANES


def _rows_per_load(target: Target) -> int:
    """Return the number of streams that share each load of weights. The registers for their sums limit it."""
    return 8 if target.has("avx512f") else 4


Start = Callable[[Index, int], Number]  # (row, lane) -> initial values of LANES sums, starting at that lane


@dataclass(frozen=True)
class Product:
    """The product of a tile: ``sums[row] = start(row) + factors(row) @ weights``."""

    weights: Memory  # (K, U), or (K / 2, U) for pairs of bfloat16
    length: Index  # rows of ``weights``: K, or K / 2
    factors: Callable[[Index], Memory]  # returns the K factors of a row, in the type of the weights
    start: Start  # returns the values to which the product of a row is added
    sums: Memory  # (TILE_ROWS, U), the result
    rows: Index  # number of rows, 1 or more


def multiply_tile(fn: Function, target: Target, product: Product) -> None:
    """Emit the code of a product.

    Rows are computed in groups. If the last group is incomplete, copies of the last row fill it in ``sums``.
    """
    weights, rows, sums = product.weights, product.rows, product.sums
    width, group = tile_units(target), _rows_per_load(target)
    lanes = range(0, width, LANES)
    builder, pairs = fn.builder, weights.element is PAIR
    add, factor = (partial(_add_pairs, target), INT) if pairs else (_add, weights.element.type)
    with fn.range(0, rows, group) as first:
        group_rows = [(first + row).minimum(rows - 1) for row in range(group)]
        starts = [product.start(row, lane).value for row in group_rows for lane in lanes]
        factors = [product.factors(row) for row in group_rows]

        def add_products(k: Index, totals: list[Any]) -> list[Any]:
            """Add the products with one row of weights, or with one row of pairs."""
            kind = ir.VectorType(weights.element.type, LANES)
            columns = [weights.at(k * width + lane).load(kind) for lane in lanes]
            values = [broadcast(builder, row.at(k * 2 if pairs else k).load(factor)) for row in factors]
            operands = itertools.product(values, columns)
            return [
                add(builder, total, column, value) for total, (value, column) in zip(totals, operands, strict=True)
            ]

        totals = fn.fold(product.length, 1, starts, add_products)
        for total, (row, lane) in zip(totals, itertools.product(range(group), lanes), strict=True):
            sums.at((first + row) * width + lane).store(total)


def _add(builder: ir.IRBuilder, total: Any, left: Any, right: Any) -> Any:
    """Return total + left * right."""
    return builder.fadd(builder.fmul(left, right, flags=("contract",)), total, flags=("contract",))


def _add_pairs(target: Target, builder: ir.IRBuilder, total: Any, left: Any, right: Any) -> Any:
    """Return total + left * right for pairs of bfloat16: both products of a lane are added to its float32 total."""
    if target.has("avx512bf16"):
        kind = ir.FunctionType(total.type, [total.type, left.type, right.type])
        return builder.asm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v", [total, left, right], side_effect=False)
    sixteen, upper_mask = (ir.Constant(left.type, [bits] * LANES) for bits in (16, 0xFFFF0000))
    for select_half, bits in ((builder.shl, sixteen), (builder.and_, upper_mask)):
        halves = (builder.bitcast(select_half(value, bits), ir.VectorType(FLOAT, LANES)) for value in (left, right))
        total = _add(builder, total, *halves)
    return total
