"""Bits per character: how well a network predicts a text.

A text of n characters has n-1 predictions; the first character is only read. Losses are means per prediction, in
nats (natural logarithm) inside and in bits (nats / ln 2) for people.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.data.token_store import TokenStore
from charrnn.evaluation.surprisal import TOLERANCE, SurprisalMeter
from charrnn.rnn.backend import Scorer

WINDOW = 1 << 20  # characters whose figures are held at once
BLOCK = 1000  # characters of a block of the bootstrap, in a text that has enough of them
BLOCKS = 1000  # of them, at most
MIN_BLOCKS, MIN_BLOCK = 20, 20  # fewer or shorter ones tell nothing
RESAMPLES = 2000

ProgressCallback = Callable[[int], object]


@dataclass(frozen=True)
class Estimate:
    """How well a text is predicted."""

    characters: int  # predictions
    nats: float  # mean
    interval: tuple[float, float] | None = None  # nats between which 95 % of the means of resampled texts lie


def surprisals(
    scorer: Scorer,
    ids: TokenStore,
    reset: int | None = None,
    tolerance: float = TOLERANCE,
    on_progress: ProgressCallback = lambda read: None,
) -> Iterator[NDArray[np.float64]]:
    """Nats of each prediction of a text, some at a time, the state carried from its first character to its last.

    Args:
        scorer: the network.
        ids: the text (n,), n >= 2.
        reset: characters after which the state is forgotten, time and again, as transformers are quoted.
        tolerance: as of `SurprisalMeter`.
        on_progress: told every moment how many characters were read since; may raise, to break off.
    """
    meter, often = SurprisalMeter(scorer, tolerance, on_progress), min(reset or len(ids), len(ids))
    for begin in range(0, len(ids), WINDOW):
        places = np.arange(begin, min(begin + WINDOW, len(ids)))
        nats = meter.read(ids.take(places), places % often == 0)
        yield nats[1:] if begin == 0 else nats


def measure(scorer: Scorer, ids: TokenStore, on_progress: ProgressCallback = lambda read: None) -> Estimate:
    """The figure of a text with its uncertainty; see `surprisals`."""
    return bootstrap(surprisals(scorer, ids, on_progress=on_progress), len(ids) - 1)


def bootstrap(parts: Iterator[NDArray[np.float64]], predictions: int) -> Estimate:
    """The figure of a text, by a block bootstrap (Künsch 1989), for neighbours are not independent.

    The text is cut into blocks of `BLOCK` predictions, or in so many longer ones; the mean is taken of as many blocks
    drawn from them with replacement, `RESAMPLES` times. What that tells is how much the figure owes to the choice of
    this text among others of its kind, not how good another training run would have been.

    Args:
        parts: nats of each prediction, some at a time.
        predictions: how many there are in all.
    """
    block = max(1, min(BLOCK, predictions // MIN_BLOCKS), math.ceil(predictions / BLOCKS))
    sums = np.zeros(math.ceil(predictions / block))
    place = 0
    for nats in parts:
        np.add.at(sums, np.arange(place, place + len(nats)) // block, nats)
        place += len(nats)
    mean = float(sums.sum()) / predictions
    if block < MIN_BLOCK:
        return Estimate(predictions, mean)
    sizes = np.full(len(sums), block)
    sizes[-1] = predictions - block * (len(sums) - 1)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return Estimate(predictions, mean, (low, high))


def mean_nats(
    scorer: Scorer, ids: TokenStore, tolerance: float = TOLERANCE, on_progress: ProgressCallback = lambda read: None
) -> float:
    """Mean nats per character of a text, the state carried from its first character to its last; see `surprisals`."""
    return _mean(surprisals(scorer, ids, None, tolerance, on_progress))


def mean_nats_with_resets(
    scorer: Scorer, ids: TokenStore, reset: int, on_progress: ProgressCallback = lambda read: None
) -> float:
    """The same with a fresh state every ``reset`` characters."""
    return _mean(surprisals(scorer, ids, reset, on_progress=on_progress))


def _mean(parts: Iterator[NDArray[np.float64]]) -> float:
    total, number = 0.0, 0
    for nats in parts:
        total, number = total + float(nats.sum()), number + len(nats)
    return total / number
