"""The matrix product inside a recurrent step: a tile of units for some streams, with all sums in registers.

Importing this module raises ImportError where llvmlite is missing.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir

from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.simd import FLOAT, INT, LANES, PAIR, Function, Index, Memory, Number, spread

TILE_ROWS = 32  # streams of a tile: with four gates it stays in the nearest cache


def tile_units(target: Target) -> int:
    """Return how many units make a tile."""
    return 2 * LANES if target.has("avx512f") else LANES


def _rows_together(target: Target) -> int:
    """Return how many streams share each load of weights: as many sums as there are registers for."""
    return 8 if target.has("avx512f") else 4


Start = Callable[[Index, int], Number]


@dataclass(frozen=True)
class Product:
    """What a tile is: ``sums[row] = start(row) + factors(row) @ weights``."""

    weights: Memory  # (K, U), or (K / 2, U) of pairs
    length: Index  # K, or K / 2
    factors: Callable[[Index], Memory]  # the K factors of a row, in the type of a weight
    start: Start  # what the product of a row is added to, from a lane on
    sums: Memory  # (TILE_ROWS, U), the result
    rows: Index  # how many there are, 1 or more


def multiply_tile(f: Function, target: Target, product: Product) -> None:
    """Write the code for a product.

    Some rows beyond the last may be written as copies of it, up to `TILE_ROWS` of them in all.
    """
    weights, rows, sums = product.weights, product.rows, product.sums
    width, together = tile_units(target), _rows_together(target)
    lanes = range(0, width, LANES)
    builder, pairs = f.builder, weights.element is PAIR
    add, factor = (partial(_add_pairs, target), INT) if pairs else (_add, weights.element.type)
    with f.range(0, rows, together) as first:
        some = [(first + row).at_most(rows - 1) for row in range(together)]
        starts = [product.start(row, lane).value for row in some for lane in lanes]
        places = [product.factors(row) for row in some]

        def add_products(k: Index, totals: list[Any]) -> list[Any]:
            """Add the products of one row of weights, or of a pair of rows."""
            kind = ir.VectorType(weights.element.type, LANES)
            columns = [weights.at(k * width + lane).load(kind) for lane in lanes]
            values = [spread(builder, place.at(k * 2 if pairs else k).load(factor)) for place in places]
            pairs_of = itertools.product(values, columns)
            return [add(builder, total, *pair[::-1]) for total, pair in zip(totals, pairs_of, strict=True)]

        following = f.fold(product.length, 1, starts, add_products)
        for then, (row, lane) in zip(following, itertools.product(range(together), lanes), strict=True):
            sums.at((first + row) * width + lane).store(then)


def _add(builder: ir.IRBuilder, total: Any, one: Any, other: Any) -> Any:
    """Return total + one * other."""
    return builder.fadd(builder.fmul(one, other, flags=("contract",)), total, flags=("contract",))


def _add_pairs(target: Target, builder: ir.IRBuilder, total: Any, one: Any, other: Any) -> Any:
    """Return the same for pairs of bfloat16: both products of a lane are added to its float32."""
    if target.has("avx512bf16"):
        kind = ir.FunctionType(total.type, [total.type, one.type, other.type])
        return builder.asm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v", [total, one, other], side_effect=False)
    sixteen, upper = (ir.Constant(one.type, [bits] * LANES) for bits in (16, 0xFFFF0000))
    for half, bits in ((builder.shl, sixteen), (builder.and_, upper)):
        pair = (builder.bitcast(half(value, bits), ir.VectorType(FLOAT, LANES)) for value in (one, other))
        total = _add(builder, total, *pair)
    return total
