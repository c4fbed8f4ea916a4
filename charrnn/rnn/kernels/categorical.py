"""From logits to the next id, and to its surprisal, as ``generation/sampler.py`` computes them without filters.

Logits lie in rows of W numbers, W a multiple of LANES; those behind the last character are -inf. A row of penalties
is added to them: zeros, and -inf where an id is forbidden.

Importing this module raises ImportError where llvmlite is missing.
"""

from llvmlite import ir

from charrnn.rnn.kernels.simd import DOUBLE, LANES, LONG, Function, Index, Memory, Number, exp


def choose(
    f: Function, logits: Memory, penalties: Memory, width: Index, uniform: Number, temperature: Number, sums: Memory
) -> Index:
    """Write the choice of an id, and return it.

    Args:
        f: where the code goes.
        logits: (W,).
        penalties: (W,).
        width: W.
        uniform: a random number from 0 to below 1, in float64.
        temperature: in float64; 0 takes the likeliest id, the first of equals.
        sums: (W,), filled with the cumulative sums of unnormalized probabilities, in float64.
    """
    best = _largest(f, logits, penalties, width)
    chosen = f.variable(f.index(0))
    with f.builder.if_else(temperature.compare("==", 0)) as (greedy, random):
        with greedy, f.range(width) as back:
            place = width - back - 1
            score = logits.at(place).number() + penalties.at(place).number()
            with f.when(score.compare("==", best)):
                chosen.set(place)
        with random:
            with f.range(0, width, LANES) as place:
                sums.at(place).store_vector(_exponentials(logits.at(place), penalties.at(place), best, temperature))
            total = f.variable(_zero(f))
            with f.range(width) as place:
                total.set(total.get() + sums.at(place).number())
                sums.at(place).store(total.get())
            wanted = uniform * total.get()
            with f.range(width) as place:  # counts the sums up to what is wanted; those that equal the last are above
                below = sums.at(place).number()
                passed = f.builder.and_(below.compare("<=", wanted), below.compare("!=", total.get()))
                chosen.set(chosen.get() + Index(f, f.builder.zext(passed, LONG)))
    result: Index = chosen.get()
    return result


def surprisal(f: Function, logits: Memory, penalties: Memory, width: Index, index: Index) -> tuple[Number, Number]:
    """Write how far the logit of an id lies below the largest, and the sum of all exponentials, and return both.

    The surprisal in nats is the first plus the logarithm of the second.
    """
    top = _largest(f, logits, penalties, width)
    one = _zero(f) + 1.0

    def add(place: Index, totals: list[ir.Value]) -> list[ir.Value]:
        return [(Number(f, totals[0]) + _exponentials(logits.at(place), penalties.at(place), top, one)).value]

    (total,) = f.fold(width, LANES, [_zero(f).spread().value], add)
    return top.to(DOUBLE) - logits.at(index).number().to(DOUBLE), Number(f, total).total()


def _largest(f: Function, logits: Memory, penalties: Memory, width: Index) -> Number:
    def score(place: Index) -> Number:
        return logits.at(place).vector() + penalties.at(place).vector()

    def raise_(place: Index, tops: list[ir.Value]) -> list[ir.Value]:
        return [score(place).at_least(Number(f, tops[0])).value]

    (top,) = f.fold(width, LANES, [score(f.index(0)).value], raise_)
    return Number(f, top).largest()


def _exponentials(logits: Memory, penalties: Memory, top: Number, temperature: Number) -> Number:
    """Return exp((logit + penalty - top) / temperature), LANES of them, in float64."""
    score = logits.vector() + penalties.vector()
    return exp((score.to(DOUBLE) - top.to(DOUBLE).spread()) / temperature.spread())


def _zero(f: Function) -> Number:
    return Number(f, ir.Constant(DOUBLE, 0.0))
