"""From logits to the next id, and to how surprising it was, for the sampling kernel: what ``sampler.py`` does.

Logits lie in rows of ``wide`` numbers, those behind the last character's being -inf. Two rows of bars are there to be
added: zeros, and -inf where nothing is to be chosen. Arrays come as pointers, for those that are passed on would be
counted by Numba's runtime, which isn't there when the code is called.

Importing this module raises ImportError where Numba is missing.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from charrnn.rnn.kernels import simd
from charrnn.rnn.kernels.jit import exact
from charrnn.rnn.kernels.packing import LANES
from charrnn.rnn.kernels.simd import LONG, Arguments, Lanes, store, vector

_LOWEST = -708.0  # float64 holds its exponential with all digits; those of lower numbers count as 0
_LOG2E, _LN2, _LN2_REST = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10  # ln 2 = _LN2 + _LN2_REST
_TERMS = 14  # of the series of the exponential; the others are less than float64 can tell


@exact
def choose(
    logits_: Any, stream: int, bars_: Any, wide: int, uniform: float, temperature: float, weights_: Any
) -> int:
    """As `Sampler.choose` does without a penalty and filters; leaves its sums in weights (wide,)."""
    logits, bars = carray(logits_, (stream + 1, wide))[stream], carray(bars_, (2, wide))[1]
    weights = carray(weights_, (wide,))
    best = _largest(logits, bars)
    if temperature == 0:
        for v in range(wide):
            if logits[v] + bars[v] == best:
                return v
    for v in range(0, wide, LANES):
        _exponentials(logits, bars, best, temperature, v, weights)
    total = 0.0
    for v in range(wide):
        total += weights[v]
        weights[v] = total
    wanted = uniform * total
    low, high = 0, wide - 1
    while low < high:  # the first whose sum is above what is wanted; of the last ones that are equal, the first
        middle = (low + high) // 2
        if weights[middle] > wanted or weights[middle] == total:
            high = middle
        else:
            low = middle + 1
    return low


@exact
def surprise(logits_: Any, stream: int, bars_: Any, wide: int, index: int, weights_: Any) -> tuple[float, float]:
    """How far a logit lies below the largest, and the sum of all exponentials: its logarithm is to be added."""
    logits, bars = carray(logits_, (stream + 1, wide))[stream], carray(bars_, (2, wide))[0]
    weights = carray(weights_, (wide,))
    top = _largest(logits, bars)
    for v in range(0, wide, LANES):
        _exponentials(logits, bars, top, 1.0, v, weights)
    a, b, c, d = 0.0, 0.0, 0.0, 0.0  # four sums, for each addition has to wait for the last
    for v in range(0, wide, 4):
        a, b, c, d = a + weights[v], b + weights[v + 1], c + weights[v + 2], d + weights[v + 3]
    return np.float64(top) - np.float64(logits[index]), a + b + (c + d)


@intrinsic
def _largest(typing_context: Any, logits: Any, bars: Any) -> Any:
    """The largest of logits + bars."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        given = Arguments(context, builder, signature, arguments)

        def score(start: Any) -> Lanes:
            return given.lanes(0, start) + given.lanes(1, start)

        def raised(start: Any, tops: list[Any]) -> list[Any]:
            return [score(start).at_least(Lanes(builder, tops[0])).value]

        (tops,) = simd.loop(builder, given.width(0), LANES, [score(LONG(0)).value], raised)
        top = Lanes(builder, tops)
        for apart in (8, 4, 2, 1):
            top = top.at_least(top.turned(apart))
        return builder.extract_element(top.value, simd.INTEGER(0))

    return types.float32(logits, bars), code


@intrinsic
def _exponentials(
    typing_context: Any, logits: Any, bars: Any, top: Any, temperature: Any, start: Any, weights: Any
) -> Any:
    """Writes those of (logits + bars - top) / temperature, LANES of them."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        given = Arguments(context, builder, signature, arguments)
        top, temperature = (Lanes(builder, simd.everywhere(builder, given[n])) for n in (2, 3))
        score = given.lanes(0, given[4]) + given.lanes(1, given[4])
        weight = _exponential(builder, (score.widened() - top.widened()) / temperature)
        store(builder, weight.value, given.place(5, given[4]))
        return context.get_dummy_value()

    return types.void(logits, bars, top, temperature, start, weights), code


def _exponential(builder: ir.IRBuilder, x: Lanes) -> Lanes:
    """Of numbers up to 0: a power of two, and the series for the rest."""
    near = x.at_least(_LOWEST)
    twos = (near * _LOG2E - 0.5).whole()  # towards zero, that is, to the nearest of near * _LOG2E
    number = Lanes(builder, builder.sitofp(twos, vector(simd.DOUBLE)))
    rest = near - number * _LN2 - number * _LN2_REST
    series = rest * (1 / math.factorial(_TERMS - 1)) + 1 / math.factorial(_TERMS - 2)
    for n in reversed(range(_TERMS - 2)):
        series = series * rest + 1 / math.factorial(n)
    long = vector(LONG)
    exponent = builder.add(builder.sext(twos, long), simd.spread(long, 1023))
    power = Lanes(builder, builder.bitcast(builder.shl(exponent, simd.spread(long, 52)), vector(simd.DOUBLE)))
    return (series * power).zero_below(_LOWEST, x)
