"""Bits per character: how well a network predicts a text.

A text of n characters has n-1 predictions; the first character is only read. Losses are means per prediction, in
nats (natural logarithm) inside and in bits (nats / ln 2) for people.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from charrnn.evaluation.meter import TOLERANCE, Meter, Reader
from charrnn.text.ids import Ids

WINDOW = 1 << 20  # characters whose figures are held at once


def surprisals(
    reader: Reader,
    ids: Ids,
    reset: int | None = None,
    tolerance: float = TOLERANCE,
    heartbeat: Callable[[], None] = lambda: None,
) -> Iterator[NDArray[np.float64]]:
    """Nats of each prediction of a text, some at a time, the state carried from its first character to its last.

    Args:
        reader: the network.
        ids: the text (n,), n >= 2.
        reset: characters after which the state is forgotten, time and again, as transformers are quoted.
        tolerance: as of `Meter`.
        heartbeat: called every moment; may raise, to break off.
    """
    meter, often = Meter(reader, tolerance, heartbeat), min(reset or len(ids), len(ids))
    for begin in range(0, len(ids), WINDOW):
        places = np.arange(begin, min(begin + WINDOW, len(ids)))
        nats = meter.read(ids.take(places), places % often == 0)
        yield nats[1:] if begin == 0 else nats


def carried_nats(
    reader: Reader, ids: Ids, tolerance: float = TOLERANCE, heartbeat: Callable[[], None] = lambda: None
) -> float:
    """Mean nats per character of a text, the state carried from its first character to its last; see `surprisals`."""
    return _mean(surprisals(reader, ids, None, tolerance, heartbeat))


def reset_nats(reader: Reader, ids: Ids, reset: int) -> float:
    """The same with a fresh state every ``reset`` characters."""
    return _mean(surprisals(reader, ids, reset))


def _mean(parts: Iterator[NDArray[np.float64]]) -> float:
    total, number = 0.0, 0
    for nats in parts:
        total, number = total + float(nats.sum()), number + len(nats)
    return total / number
