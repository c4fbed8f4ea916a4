"""Emits code that samples the next id from logits, and code that computes the surprisal of an id.

The results are those of ``generation/sampler.py`` without filters. The V logits of a stream are padded with -inf to W
numbers, a multiple of LANES. Penalties are added to them: -inf for forbidden ids, and 0 for others.

Importing this module raises ImportError if llvmlite is missing.
"""

from dataclasses import dataclass

from llvmlite import ir

from charrnn.rnn.kernels.simd import DOUBLE, LANES, LONG, Function, Index, Memory, Number, exp


@dataclass(frozen=True)
class Scores:
    """The scores of a stream, which are logits plus penalties."""

    logits: Memory  # (W,)
    penalties: Memory  # (W,)
    width: Index  # W

    def at(self, index: Index) -> Number:
        """Return the LANES scores that start at an index."""
        return self.logits.at(index).vector() + self.penalties.at(index).vector()

    def max(self, fn: Function) -> Number:
        """Emit code that finds the largest score, and return the score."""

        def update(index: Index, maxima: list[ir.Value]) -> list[ir.Value]:
            return [self.at(index).maximum(Number(fn, maxima[0])).value]

        (maxima,) = fn.fold(self.width, LANES, [self.at(fn.index(0)).value], update)
        return Number(fn, maxima).max()

    def exponentials(self, index: Index, max_score: Number, temperature: Number) -> Number:
        """Return exp((score - max_score) / temperature) for the LANES scores that start at an index, in float64."""
        return exp((self.at(index).to(DOUBLE) - max_score.to(DOUBLE).broadcast()) / temperature.broadcast())


def sample_id(fn: Function, scores: Scores, uniform: Number, temperature: Number, sums: Memory) -> Index:
    """Emit code that samples an id, and return the id.

    Args:
        fn: The function to which the code is added.
        scores: The scores of the stream.
        uniform: A random number in [0, 1), float64.
        temperature: The temperature, float64. At 0, the result is the most probable id, the smallest in a tie.
        sums: Workspace for the cumulative sums of unnormalized probabilities, (W,), float64.
    """
    max_score, width = scores.max(fn), scores.width
    sampled = fn.variable(fn.index(0))
    with fn.builder.if_else(temperature.compare("==", 0)) as (greedy, random):
        with greedy, fn.range(width) as reversed_index:
            index = width - reversed_index - 1
            score = scores.logits.at(index).number() + scores.penalties.at(index).number()
            with fn.when(score.compare("==", max_score)):
                sampled.set(index)
        with random:
            with fn.range(0, width, LANES) as index:
                sums.at(index).store_vector(scores.exponentials(index, max_score, temperature))
            total = fn.variable(_zero(fn))
            with fn.range(width) as index:
                total.set(total.get() + sums.at(index).number())
                sums.at(index).store(total.get())
            threshold = uniform * total.get()
            with fn.range(width) as index:
                # The sampled id is the number of sums up to the threshold. Sums that equal the total don't count,
                # because rounding may make the threshold equal to the total.
                cumulative = sums.at(index).number()
                counts = fn.builder.and_(cumulative.compare("<=", threshold), cumulative.compare("!=", total.get()))
                sampled.set(sampled.get() + Index(fn, fn.builder.zext(counts, LONG)))
    result: Index = sampled.get()
    return result


def surprisal(fn: Function, scores: Scores, index: Index) -> tuple[Number, Number]:
    """Emit code for the two parts of the surprisal of an id, and return both in float64.

    The first is the largest score minus the logit of the id. The second is the sum of exp(score - largest score). The
    surprisal in nats is the first plus the logarithm of the second.
    """
    max_score = scores.max(fn)
    one = _zero(fn) + 1.0

    def add(start: Index, sums: list[ir.Value]) -> list[ir.Value]:
        return [(Number(fn, sums[0]) + scores.exponentials(start, max_score, one)).value]

    (exp_sums,) = fn.fold(scores.width, LANES, [_zero(fn).broadcast().value], add)
    return max_score.to(DOUBLE) - scores.logits.at(index).number().to(DOUBLE), Number(fn, exp_sums).sum()


def _zero(fn: Function) -> Number:
    return Number(fn, ir.Constant(DOUBLE, 0.0))
