"""Surprisal of every symbol of a text, computed for many segments of the text in parallel."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.rnn.backend import Scorer
from charrnn.rnn.quantize import Array

SEGMENTS = 64  # maximum number of segments that are read in parallel
MIN_SEGMENT_LENGTH = 1024  # symbols; the burn-in of a shorter segment costs more than it saves
BURN_IN = 512  # symbols before a segment that are read to guess its initial state
GROUPS = 8  # approximate number of different segment lengths, see `_align_lengths`
CHUNK = 256  # maximum number of time steps of one forward pass
MAX_LOGITS = 1 << 23  # logits of one forward pass; a large vocabulary gets shorter passes
TOLERANCE = 1e-5  # largest accepted error of a component of a segment's initial state
RESOLUTION = 1e-6  # nats per symbol; sweeps end when no segment's mean changes by more

Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]


class _Window(NamedTuple):
    """The part of the text that one call of `SurprisalMeter.read` measures: n predictions."""

    inputs: Positions  # ids (n,)
    targets: Positions  # ids (n,), each input's successor
    reset: Mask  # (n,), whether the state is reset to zero before an input
    nats: NDArray[np.float64]  # (n,), surprisal of each target; filled in by `SurprisalMeter`


class SurprisalMeter:
    """Measures the surprisal of each symbol of a text, given all symbols before it.

    The text can be passed in windows of any size; the results don't depend on how it is cut.

    A single stream would leave most of the hardware idle. So each window is cut into segments, which are read in
    parallel:

    1. The initial state of a segment is zero if the segment starts with a reset. Otherwise a burn-in over the symbols
       before the segment gives a first guess.
    2. All segments are read. The state at the end of each segment is then known.
    3. A segment is read again, from the end state of the segment before it, if its initial state differs from that
       by more than ``tolerance``. These correction sweeps are repeated until no segment differs.

    Some units keep a value for a whole text. Plain sweeps would correct such a unit in one segment at a time. So the
    sweeps measure which share of a change persists from the start of a segment to its end, and apply that change to
    all later segments at once, as parareal integration does (Lions, Maday & Turinici 2001). Sweeps also end when the
    results no longer change, even if states do.

    The results equal those of a single stream up to the tolerance, at many times its speed.

    Args:
        scorer: The network.
        tolerance: The largest accepted difference between a component of an initial state and its true value. With
            infinity there are no correction sweeps. This is slightly faster, and necessary in bf16, where rounding
            alone exceeds any useful tolerance.
        on_progress: Called repeatedly with the number of symbols read since its last call. It may raise an exception
            to abort.
    """

    def __init__(
        self, scorer: Scorer, tolerance: float = TOLERANCE, on_progress: Callable[[int], object] = lambda read: None
    ) -> None:
        self._scorer, self._tolerance, self._on_progress = scorer, tolerance, on_progress
        self._state = scorer.zero_state(1)
        self._width = self._state.flatten().shape[1]
        self._unreported = 0  # symbols of the current window that on_progress has not been called for
        self._last: tuple[int, bool] | None = None  # the latest symbol, and whether the state is reset before it

    def begin(self, symbol: int) -> None:
        """Start a new text with a symbol that is not itself predicted."""
        self._last = symbol, True

    def read(self, ids: NDArray[np.integer], reset: Mask | None = None) -> NDArray[np.float64]:
        """Return the surprisal of the next symbols of the text.

        Args:
            ids: Ids of the symbols, (n,).
            reset: Whether the state is reset to zero before each symbol, (n,); None means nowhere. In a network with
                document boundaries, the state is also reset before each boundary.

        Returns:
            The surprisal of each symbol in nats, (n,). It is 0 for the first symbol of the text, which has no
            prediction.
        """
        if not len(ids):
            return np.zeros(0)
        reset = np.zeros(len(ids), dtype=bool) if reset is None else reset
        if self._scorer.boundary_id is not None:
            reset = reset | (ids == self._scorer.boundary_id)
        last, self._last = self._last, (int(ids[-1]), bool(reset[-1]))
        symbols, num_unpredicted = ids.astype(np.int64), 0 if last else 1
        if last:
            symbols, reset = np.append(last[0], symbols), np.append(last[1], reset)
        window = _Window(symbols[:-1], symbols[1:], reset[:-1], np.zeros(len(symbols) - 1))
        if len(window.nats):
            self._measure(window)
        return np.append(np.zeros(num_unpredicted), window.nats)

    def _measure(self, window: _Window) -> None:
        """Fill in the surprisal of a window by correction sweeps over its segments."""
        size = len(window.nats)
        starts = _segment_starts(window.reset)
        ends, segments = np.append(starts[1:], size), np.arange(len(starts))
        guessed = np.append(False, ~window.reset[starts[1:]])  # whether a burn-in guesses the initial state
        initial: Array = np.zeros((len(segments), self._width), dtype=np.float32)
        initial[0] = self._state.flatten()[0]
        if guessed.any():
            scratch, burn_in_ends = window._replace(nats=np.zeros(size)), starts[guessed]
            initial[guessed] = self._read_segments(scratch, burn_in_ends - BURN_IN, burn_in_ends, initial[guessed])
        final, to_read, num_sweeps = np.zeros_like(initial), segments, 0
        initial_change = initial.copy()  # made by the latest correction
        persistence: Array = np.zeros(self._width, dtype=np.float32)  # see `_persistence`
        self._unreported = size
        while len(to_read):
            num_sweeps += 1
            sums_before, final_before = np.add.reduceat(window.nats, starts), final.copy()
            final[to_read] = self._read_segments(window, starts[to_read], ends[to_read], initial[to_read])
            mean_change = np.abs(np.add.reduceat(window.nats, starts) - sums_before) / (ends - starts)
            if num_sweeps > 2 and mean_change.max() < RESOLUTION:
                break
            if num_sweeps > 1:
                persistence = _persistence(initial_change, final - final_before)
            corrected = initial.copy()
            for segment in np.flatnonzero(guessed):
                previous = segment - 1
                corrected[segment] = final[previous] + persistence * (corrected[previous] - initial[previous])
            to_read = np.flatnonzero(np.abs(corrected - initial).max(axis=1) > self._tolerance)
            initial_change = np.zeros_like(initial)
            initial_change[to_read] = corrected[to_read] - initial[to_read]
            initial[to_read] = corrected[to_read]
        self._state = self._state.unflatten(final[-1:])

    def _read_segments(self, window: _Window, starts: Positions, ends: Positions, initial: Array) -> Array:
        """Read segments in parallel, fill in their surprisal, and return their final states.

        Segments are sorted by length, longest first, so that those not yet finished are always the first streams.
        """
        read_starts = _align_lengths(starts, ends, window.reset)
        order = np.argsort(read_starts - ends, kind="stable")
        starts, read_starts, lengths = starts[order], read_starts[order], (ends - read_starts)[order]
        state, final = self._state.unflatten(initial[order]), np.empty_like(initial)
        offset, num_active = 0, len(order)
        while num_active:
            max_steps = MAX_LOGITS // (num_active * self._scorer.vocab_size)
            stop = min(offset + max(1, min(CHUNK, max_steps)), int(lengths[num_active - 1]))
            positions = read_starts[:num_active] + np.arange(offset, stop)[:, None]  # (T, B)
            nats, state = self._scorer.score(
                window.inputs[positions], window.targets[positions], window.reset[positions], state
            )
            inside = positions >= starts[:num_active]
            window.nats[positions[inside]] = nats[inside]
            newly_read = min(self._unreported, positions.size)  # later sweeps report no progress
            self._unreported -= newly_read
            self._on_progress(newly_read)
            offset = stop
            while num_active and lengths[num_active - 1] == offset:
                num_active -= 1
                final[order[num_active]] = state.select(slice(num_active, num_active + 1)).flatten()[0]
            state = state.select(slice(0, num_active))
        return final


def num_segments(size: int) -> int:
    """Return the number of segments for a window of ``size`` symbols without resets."""
    return max(1, min(SEGMENTS, size // MIN_SEGMENT_LENGTH))


def _segment_starts(reset: Mask) -> Positions:
    """Return the positions at which the segments of a window start.

    Starts are evenly spaced. Resets are used as starts where possible, because the state there is known. Segments
    that start with a reset need no burn-in and may be shorter than `MIN_SEGMENT_LENGTH`.
    """
    size = len(reset)
    count = num_segments(size)
    starts = np.arange(count, dtype=np.int64) * size // count
    if not reset.any():
        return starts
    resets = np.append(np.flatnonzero(reset), size)

    def next_reset(positions: Positions) -> Positions:
        return resets[np.searchsorted(resets, positions)]

    at_resets = next_reset(np.arange(1, SEGMENTS) * size // SEGMENTS)
    guessed = starts[next_reset(starts) - starts > BURN_IN]
    return np.unique(np.concatenate([[0], at_resets[at_resets < size], guessed]))


def _align_lengths(starts: Positions, ends: Positions, reset: Mask) -> Positions:
    """Return the position from which to read each segment, so that many segments have equal lengths.

    Each different length costs a forward pass. A segment that starts with a reset may be read from an earlier
    position, because the reset discards what was read before it. So such segments get one of about `GROUPS` lengths.
    """
    lengths = ends - starts
    group_lengths = np.sort(lengths)[:: -max(1, len(lengths) // GROUPS)]  # longest first
    aligned = group_lengths[np.searchsorted(-group_lengths, -lengths, side="right") - 1]
    return np.where(reset[starts] & (aligned <= ends), ends - aligned, starts)


def _persistence(initial_change: Array, final_change: Array) -> Array:
    """Return the share of a change at a segment's start that persists to its end, for each component of the state.

    This is the least-squares slope over all segments, clipped to the range from 0 to 1.
    """
    squares = np.square(initial_change, dtype=np.float64).sum(axis=0)
    products = (initial_change.astype(np.float64) * final_change).sum(axis=0)
    share = np.divide(products, squares, out=np.zeros_like(squares), where=squares > 0)
    return np.asarray(np.clip(share, 0, 1), dtype=np.float32)
