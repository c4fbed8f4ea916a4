"""How surprising each symbol of a text is to a network, read by the piece, with the machine kept busy."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.rnn.backend import Scorer
from charrnn.rnn.quantize import Array

SEGMENTS = 64  # stretches of a text read side by side
MIN_SEGMENT_LENGTH = 1024  # shorter ones would spend more on their run-up than they save
BURN_IN = 512  # characters before a segment from which its first state is guessed
GROUPS = 8  # of segments that end together
CHUNK = 256  # time steps of one pass
MAX_LOGITS = 1 << 23  # numbers that come out of one pass; a large vocabulary gets shorter ones
TOLERANCE = 1e-5  # how far a state may be from the one it stands for
RESOLUTION = 1e-6  # nats per character; reading again what changes no segment by more would change no figure

Places = NDArray[np.int64]
Marks = NDArray[np.bool_]
Nats = NDArray[np.floating]


class _Reading(NamedTuple):
    """A piece of a text as it goes through the network."""

    inputs: Places  # (n,), what is read
    targets: Places  # (n,), what comes after each
    reset: Marks  # (n,), before which the state is forgotten
    nats: NDArray[np.float64]  # (n,), of each target: the result


class SurprisalMeter:
    """Reads a text from its first symbol to its last, and says of each how surprising it was after all before.

    However the text is cut into pieces, the figures are the same. A single long stream would leave the machine idle.
    So a piece is cut into segments that are read side by side, each from a state that is known, because it is a fresh
    one, or else guessed by a run-up over the symbols before it. Once the segments are read, the state in which each one
    ended is known, and a segment whose guess is off by more than ``tolerance`` from the end of the segment before is read
    again from there, until none is. Some units remember for ever, so that one segment after the other would turn out to
    be off: what has been seen to last from the beginning of a segment to its end is handed on to all later ones at once
    (as in parareal integration; Lions, Maday & Turinici 2001), and when even that makes no difference any more,
    nobody needs what they remember. What comes out are the figures of the single stream, at many times its speed.

    Args:
        scorer: the network.
        tolerance: the largest difference between a guessed and a true component of a state; infinity trusts the
            guesses, which is a little faster, and the only choice in bf16, where no two states agree.
        on_progress: told every moment how many symbols were read since; may raise, to break off.
    """

    def __init__(
        self, scorer: Scorer, tolerance: float = TOLERANCE, on_progress: Callable[[int], object] = lambda read: None
    ) -> None:
        self._scorer, self._tolerance, self._on_progress = scorer, tolerance, on_progress
        self._state = scorer.zero_state(1)
        self._width = self._state.flatten().shape[1]
        self._told = 0  # symbols of this piece of which the on_progress has not heard
        self._last: tuple[int, bool] | None = None  # the latest symbol, and whether the state is forgotten before it

    def begin(self, symbol: int) -> None:
        """Goes on as if a text began with this symbol, which is only read."""
        self._last = symbol, True

    def read(self, ids: NDArray[np.integer], reset: Marks | None = None) -> NDArray[np.float64]:
        """Reads more of the text.

        Args:
            ids: of its next symbols, (n,).
            reset: before which of them the state is forgotten, (n,); none if left out. Where the network has a
                boundary, it forgets before that anyway.

        Returns:
            The surprise of each in nats, (n,); that of the very first one is 0, for there is nothing before it.
        """
        if not len(ids):
            return np.zeros(0)
        marks = np.zeros(len(ids), dtype=bool) if reset is None else reset
        if self._scorer.boundary_id is not None:
            marks = marks | (ids == self._scorer.boundary_id)
        last, self._last = self._last, (int(ids[-1]), bool(marks[-1]))
        symbols, begin = ids.astype(np.int64), 0 if last else 1
        if last:
            symbols, marks = np.append(last[0], symbols), np.append(last[1], marks)
        reading = _Reading(symbols[:-1], symbols[1:], marks[:-1], np.zeros(len(symbols) - 1))
        if len(reading.nats):
            self._read_segments(reading)
        return np.append(np.zeros(begin), reading.nats)

    def _read_segments(self, reading: _Reading) -> None:
        size = len(reading.nats)
        starts = _segment_starts(reading.reset)
        ends, segments = np.append(starts[1:], size), np.arange(len(starts))
        guessed = np.append(False, ~reading.reset[starts[1:]])
        before: Array = np.zeros((len(segments), self._width), dtype=np.float32)
        before[0] = self._state.flatten()[0]
        if guessed.any():
            scratch, later = reading._replace(nats=np.zeros(size)), starts[guessed]
            before[guessed] = self._read(scratch, later - BURN_IN, later, before[guessed])
        after, wrong, rounds = np.zeros_like(before), segments, 0
        moved = before.copy()  # what the latest round changed of it
        kept: Array = np.zeros(self._width, dtype=np.float32)  # how much of a change lasts through a segment
        self._told = size
        while len(wrong):
            rounds += 1
            sums, reached = np.add.reduceat(reading.nats, starts), after.copy()
            after[wrong] = self._read(reading, starts[wrong], ends[wrong], before[wrong])
            change = np.abs(np.add.reduceat(reading.nats, starts) - sums) / (ends - starts)
            if rounds > 2 and change.max() < RESOLUTION:
                break
            if rounds > 1:
                kept = _lasting(moved, after - reached)
            wanted = before.copy()
            for segment in np.flatnonzero(guessed):
                wanted[segment] = after[segment - 1] + kept * (wanted[segment - 1] - before[segment - 1])
            wrong = np.flatnonzero(np.abs(wanted - before).max(axis=1) > self._tolerance)
            moved = np.zeros_like(before)
            moved[wrong] = wanted[wrong] - before[wrong]
            before[wrong] = wanted[wrong]
        self._state = self._state.unflatten(after[-1:])

    def _read(self, reading: _Reading, starts: Places, ends: Places, states: Array) -> Array:
        """Reads some segments from a state each, longest first, and gives back the states after them."""
        begins = _together(starts, ends, reading.reset)
        order = np.argsort(begins - ends, kind="stable")
        starts, begins, lengths = starts[order], begins[order], (ends - begins)[order]
        state, after = self._state.unflatten(states[order]), np.empty_like(states)
        offset, left = 0, len(order)
        while left:
            room = MAX_LOGITS // (left * self._scorer.vocab_size)
            stop = min(offset + max(1, min(CHUNK, room)), int(lengths[left - 1]))
            places = begins[:left] + np.arange(offset, stop)[:, None]  # (T, B)
            nats, state = self._scorer.score(
                reading.inputs[places], reading.targets[places], reading.reset[places], state
            )
            own = places >= starts[:left]
            reading.nats[places[own]] = nats[own]
            passed = min(self._told, places.size)  # reading again is no progress
            self._told -= passed
            self._on_progress(passed)
            offset = stop
            while left and lengths[left - 1] == offset:
                left -= 1
                after[order[left]] = state.select(slice(left, left + 1)).flatten()[0]
            state = state.select(slice(0, left))
        return after


def num_segments(size: int) -> int:
    """Return in how many segments a piece of a text is read."""
    return max(1, min(SEGMENTS, size // MIN_SEGMENT_LENGTH))


def _segment_starts(reset: Marks) -> Places:
    """Where segments begin in a piece: evenly, and where the state does, if that is near; these may be short."""
    size = len(reset)
    count = num_segments(size)
    starts = np.arange(count, dtype=np.int64) * size // count
    if not reset.any():
        return starts
    known = np.append(np.flatnonzero(reset), size)

    def following(places: Places) -> Places:
        return known[np.searchsorted(known, places)]

    short = following(np.arange(1, SEGMENTS) * size // SEGMENTS)
    guessed = starts[following(starts) - starts > BURN_IN]
    return np.unique(np.concatenate([[0], short[short < size], guessed]))


def _together(starts: Places, ends: Places, reset: Marks) -> Places:
    """Where to begin to read segments so that only few numbers of steps are among them: a few passes instead of many.

    One in which the state begins anew may begin earlier, for what it reads before that is forgotten.
    """
    lengths = ends - starts
    steps = np.sort(lengths)[:: -max(1, len(lengths) // GROUPS)]  # the longest first
    longer = steps[np.searchsorted(-steps, -lengths, side="right") - 1]
    return np.where(reset[starts] & (longer <= ends), ends - longer, starts)


def _lasting(begun: Array, ended: Array) -> Array:
    """What share of a change at the beginning of a segment is still there at its end, for each number of a state."""
    squares = np.square(begun, dtype=np.float64).sum(axis=0)
    products = (begun.astype(np.float64) * ended).sum(axis=0)
    share = np.divide(products, squares, out=np.zeros_like(squares), where=squares > 0)
    return np.asarray(np.clip(share, 0, 1), dtype=np.float32)
