"""Bits per character: how well a network predicts a text.

A text of n characters has n-1 predictions; the first character is only read. Losses are means per prediction, in
nats (natural logarithm) inside and in bits (nats / ln 2) for people.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.data.token_store import Ids
from charrnn.evaluation.surprisal import TOLERANCE, SurprisalMeter
from charrnn.rnn.backend import Reader

WINDOW = 1 << 20  # characters whose figures are held at once
BLOCK = 1000  # characters of a block of the bootstrap, in a text that has enough of them
BLOCKS = 1000  # of them, at most
LEAST_BLOCKS, LEAST_BLOCK = 20, 20  # fewer or shorter ones tell nothing
RESAMPLES = 2000

Heartbeat = Callable[[int], object]


@dataclass(frozen=True)
class Figure:
    """How well a text is predicted."""

    characters: int  # predictions
    nats: float  # mean
    interval: tuple[float, float] | None = None  # nats between which 95 % of the means of resampled texts lie


def surprisals(
    reader: Reader,
    ids: Ids,
    reset: int | None = None,
    tolerance: float = TOLERANCE,
    heartbeat: Heartbeat = lambda read: None,
) -> Iterator[NDArray[np.float64]]:
    """Nats of each prediction of a text, some at a time, the state carried from its first character to its last.

    Args:
        reader: the network.
        ids: the text (n,), n >= 2.
        reset: characters after which the state is forgotten, time and again, as transformers are quoted.
        tolerance: as of `SurprisalMeter`.
        heartbeat: told every moment how many characters were read since; may raise, to break off.
    """
    meter, often = SurprisalMeter(reader, tolerance, heartbeat), min(reset or len(ids), len(ids))
    for begin in range(0, len(ids), WINDOW):
        places = np.arange(begin, min(begin + WINDOW, len(ids)))
        nats = meter.read(ids.take(places), places % often == 0)
        yield nats[1:] if begin == 0 else nats


def measure(reader: Reader, ids: Ids, heartbeat: Heartbeat = lambda read: None) -> Figure:
    """The figure of a text with its uncertainty; see `surprisals`."""
    return figure(surprisals(reader, ids, heartbeat=heartbeat), len(ids) - 1)


def figure(parts: Iterator[NDArray[np.float64]], predictions: int) -> Figure:
    """The figure of a text, by a block bootstrap (Künsch 1989), for neighbours are not independent.

    The text is cut into blocks of `BLOCK` predictions, or in so many longer ones; the mean is taken of as many blocks
    drawn from them with replacement, `RESAMPLES` times. What that tells is how much the figure owes to the choice of
    this text among others of its kind, not how good another training run would have been.

    Args:
        parts: nats of each prediction, some at a time.
        predictions: how many there are in all.
    """
    block = max(1, min(BLOCK, predictions // LEAST_BLOCKS), math.ceil(predictions / BLOCKS))
    sums = np.zeros(math.ceil(predictions / block))
    place = 0
    for nats in parts:
        np.add.at(sums, np.arange(place, place + len(nats)) // block, nats)
        place += len(nats)
    mean = float(sums.sum()) / predictions
    if block < LEAST_BLOCK:
        return Figure(predictions, mean)
    sizes = np.full(len(sums), block)
    sizes[-1] = predictions - block * (len(sums) - 1)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return Figure(predictions, mean, (low, high))


def carried_nats(
    reader: Reader, ids: Ids, tolerance: float = TOLERANCE, heartbeat: Heartbeat = lambda read: None
) -> float:
    """Mean nats per character of a text, the state carried from its first character to its last; see `surprisals`."""
    return _mean(surprisals(reader, ids, None, tolerance, heartbeat))


def reset_nats(reader: Reader, ids: Ids, reset: int, heartbeat: Heartbeat = lambda read: None) -> float:
    """The same with a fresh state every ``reset`` characters."""
    return _mean(surprisals(reader, ids, reset, heartbeat=heartbeat))


def _mean(parts: Iterator[NDArray[np.float64]]) -> float:
    total, number = 0.0, 0
    for nats in parts:
        total, number = total + float(nats.sum()), number + len(nats)
    return total / number
