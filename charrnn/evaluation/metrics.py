"""Nats per character: how well a network predicts a text.

A text of n characters has n - 1 predictions; the first character is only read. Losses are means per prediction. The
code uses nats (natural logarithm); the command line also shows bits per character (nats / ln 2).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.data.token_store import TokenStore
from charrnn.evaluation.surprisal import TOLERANCE, SurprisalMeter
from charrnn.rnn.backend import Scorer

WINDOW = 1 << 20  # characters measured at once, which limits memory
BLOCK_LENGTH = 1000  # predictions of a bootstrap block in a text that is long enough
MAX_BLOCKS = 1000
MIN_BLOCKS, MIN_BLOCK_LENGTH = 20, 20  # with fewer or shorter blocks an interval means nothing
RESAMPLES = 2000  # bootstrap samples

ProgressCallback = Callable[[int], object]


@dataclass(frozen=True)
class Estimate:
    """The mean surprisal of a text, with a confidence interval."""

    characters: int  # number of predictions
    nats: float  # mean surprisal
    interval: tuple[float, float] | None = None  # central 95 % of the resampled means, in nats


def surprisals(
    scorer: Scorer,
    ids: TokenStore,
    reset: int | None = None,
    tolerance: float = TOLERANCE,
    on_progress: ProgressCallback = lambda read: None,
) -> Iterator[NDArray[np.float64]]:
    """Yield the surprisal of each prediction of a text in nats, window by window.

    Args:
        scorer: The network.
        ids: The text, (n,), n >= 2.
        reset: Number of characters after which the state is reset to zero, repeatedly, as is customary for
            transformers. None carries the state from the first character to the last.
        tolerance: The accepted error of a state; see `SurprisalMeter`.
        on_progress: Called repeatedly with the number of characters read since its last call. It may raise an
            exception to abort.
    """
    meter, period = SurprisalMeter(scorer, tolerance, on_progress), min(reset or len(ids), len(ids))
    for start in range(0, len(ids), WINDOW):
        positions = np.arange(start, min(start + WINDOW, len(ids)))
        nats = meter.read(ids.take(positions), positions % period == 0)
        yield nats[1:] if start == 0 else nats


def measure(scorer: Scorer, ids: TokenStore, on_progress: ProgressCallback = lambda read: None) -> Estimate:
    """Return the mean surprisal of a text and its confidence interval; see `surprisals`."""
    return bootstrap(surprisals(scorer, ids, on_progress=on_progress), len(ids) - 1)


def bootstrap(windows: Iterable[NDArray[np.float64]], num_predictions: int) -> Estimate:
    """Return the mean surprisal of a text and its confidence interval by a block bootstrap (Künsch 1989).

    Blocks are resampled rather than single predictions, because neighbouring predictions are not independent. The
    text is cut into blocks of `BLOCK_LENGTH` predictions, or longer ones if there would be more than `MAX_BLOCKS`.
    The same number of blocks is drawn with replacement, and their mean is taken, `RESAMPLES` times.

    The interval describes how much the mean depends on the choice of this text among similar ones. It does not
    describe the variation between training runs.

    Args:
        windows: Nats of each prediction, in consecutive arrays.
        num_predictions: The total number of predictions.
    """
    block_length = max(1, min(BLOCK_LENGTH, num_predictions // MIN_BLOCKS), math.ceil(num_predictions / MAX_BLOCKS))
    sums = np.zeros(math.ceil(num_predictions / block_length))
    start = 0
    for nats in windows:
        np.add.at(sums, np.arange(start, start + len(nats)) // block_length, nats)
        start += len(nats)
    mean = float(sums.sum()) / num_predictions
    if block_length < MIN_BLOCK_LENGTH:
        return Estimate(num_predictions, mean)
    sizes = np.full(len(sums), block_length)
    sizes[-1] = num_predictions - block_length * (len(sums) - 1)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return Estimate(num_predictions, mean, (low, high))


def mean_nats(
    scorer: Scorer, ids: TokenStore, tolerance: float = TOLERANCE, on_progress: ProgressCallback = lambda read: None
) -> float:
    """Return the mean nats per character, with the state carried through the text; see `surprisals`."""
    return _mean(surprisals(scorer, ids, None, tolerance, on_progress))


def mean_nats_with_resets(
    scorer: Scorer, ids: TokenStore, reset: int, on_progress: ProgressCallback = lambda read: None
) -> float:
    """Return the mean nats per character, with the state reset to zero every ``reset`` characters."""
    return _mean(surprisals(scorer, ids, reset, on_progress=on_progress))


def _mean(windows: Iterable[NDArray[np.float64]]) -> float:
    total, count = 0.0, 0
    for nats in windows:
        total, count = total + float(nats.sum()), count + len(nats)
    return total / count
