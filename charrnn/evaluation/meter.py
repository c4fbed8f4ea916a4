"""How surprising each symbol of a text is to a network, read by the piece, with the machine kept busy."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.sampling.stepper import State, joined

LANES = 64  # stretches of a text read side by side
LANE_LENGTH = 1024  # shorter ones would spend more on their run-up than they save
RUN_UP = 512  # characters before a lane from which its first state is guessed
CHUNK = 256  # time steps of one pass
MOST_LOGITS = 1 << 23  # numbers that come out of one pass; a large vocabulary gets shorter ones
TOLERANCE = 1e-5  # how far a state may be from the one it stands for
RESOLUTION = 1e-6  # nats per character; reading again what changes no lane by more would change no figure

Places = NDArray[np.int64]
Marks = NDArray[np.bool_]
Nats = NDArray[np.floating]


class Reader(Protocol):
    """A network that reads many streams side by side.

    Attributes:
        vocabulary_size: V.
        boundary: the id before which a stream forgets all that was, or None.
    """

    vocabulary_size: int
    boundary: int | None

    def zero_state(self, streams: int) -> State:
        """The state of so many streams before their first symbol."""

    def read(self, inputs: Places, targets: Places, fresh: Marks, state: State) -> tuple[Nats, State]:
        """Reads T symbols of B streams.

        Args:
            inputs: ids (T, B).
            targets: what comes after each of them.
            fresh: (T, B), before which steps which streams forget all that was.
            state: before them.

        Returns:
            The surprise of each target in nats (T, B), and the state after the last step.
        """


class _Reading(NamedTuple):
    """A piece of a text as it goes through the network."""

    inputs: Places  # (n,), what is read
    targets: Places  # (n,), what comes after each
    fresh: Marks  # (n,), before which the state is forgotten
    nats: NDArray[np.float64]  # (n,), of each target: the result


class Meter:
    """Reads a text from its first symbol to its last, and says of each how surprising it was after all before.

    However the text is cut into pieces, the figures are the same. A single long stream would leave the machine idle.
    So a piece is cut into lanes that are read side by side, each from a state that is known, because it is a fresh
    one, or else guessed by a run-up over the symbols before it. Once the lanes are read, the state in which each one
    ended is known, and a lane whose guess is off by more than ``tolerance`` from the end of the lane before is read
    again from there, until none is, or until that makes no difference any more: some units remember for ever what
    nobody needs. What comes out are the figures of the single stream, at many times its speed.

    Args:
        reader: the network.
        tolerance: the largest difference between a guessed and a true component of a state; infinity trusts the
            guesses, which is a little faster, and the only choice in bf16, where no two states agree.
        heartbeat: told every moment how many symbols were read since; may raise, to break off.
    """

    def __init__(
        self, reader: Reader, tolerance: float = TOLERANCE, heartbeat: Callable[[int], object] = lambda read: None
    ) -> None:
        self._reader, self._tolerance, self._heartbeat = reader, tolerance, heartbeat
        self._state = reader.zero_state(1)
        self._told = 0  # symbols of this piece of which the heartbeat has not heard
        self._last: tuple[int, bool] | None = None  # the latest symbol, and whether the state is forgotten before it

    def begin(self, symbol: int) -> None:
        """Goes on as if a text began with this symbol, which is only read."""
        self._last = symbol, True

    def read(self, ids: NDArray[np.integer], fresh: Marks | None = None) -> NDArray[np.float64]:
        """Reads more of the text.

        Args:
            ids: of its next symbols, (n,).
            fresh: before which of them the state is forgotten, (n,); none if left out. Where the network has a
                boundary, it forgets before that anyway.

        Returns:
            The surprise of each in nats, (n,); that of the very first one is 0, for there is nothing before it.
        """
        if not len(ids):
            return np.zeros(0)
        marks = np.zeros(len(ids), dtype=bool) if fresh is None else fresh
        if self._reader.boundary is not None:
            marks = marks | (ids == self._reader.boundary)
        last, self._last = self._last, (int(ids[-1]), bool(marks[-1]))
        symbols, begin = ids.astype(np.int64), 0 if last else 1
        if last:
            symbols, marks = np.append(last[0], symbols), np.append(last[1], marks)
        reading = _Reading(symbols[:-1], symbols[1:], marks[:-1], np.zeros(len(symbols) - 1))
        if len(reading.nats):
            self._read_lanes(reading)
        return np.append(np.zeros(begin), reading.nats)

    def _read_lanes(self, reading: _Reading) -> None:
        size = len(reading.nats)
        starts = _lanes(reading.fresh)
        ends, lanes = np.append(starts[1:], size), range(len(starts))
        states = [self._state, *(self._reader.zero_state(1) for _ in lanes[1:])]
        guessed = [lane for lane in lanes[1:] if not reading.fresh[starts[lane]]]
        if guessed:
            scratch, later = reading._replace(nats=np.zeros(size)), starts[guessed]
            after = self._read(scratch, later - RUN_UP, later, [states[lane] for lane in guessed])
            for lane, state in zip(guessed, after, strict=True):
                states[lane] = state
        after = states.copy()
        wrong = list(lanes)
        self._told = len(reading.nats)
        while wrong:
            before = np.add.reduceat(reading.nats, starts)
            read = self._read(reading, starts[wrong], ends[wrong], [states[lane] for lane in wrong])
            for lane, state in zip(wrong, read, strict=True):
                after[lane] = state
            change = np.abs(np.add.reduceat(reading.nats, starts) - before) / (ends - starts)
            if change.max() < RESOLUTION:
                break
            wrong = [lane for lane in guessed if _distance(states[lane], after[lane - 1]) > self._tolerance]
            for lane in wrong:
                states[lane] = after[lane - 1]
        self._state = after[-1]

    def _read(self, reading: _Reading, starts: Places, ends: Places, states: list[State]) -> list[State]:
        """Reads some lanes from a state each, longest first, and gives back the states after them."""
        order = np.argsort(starts - ends, kind="stable")
        starts, lengths = starts[order], (ends - starts)[order]
        state, after, offset, left = joined([states[lane] for lane in order]), states.copy(), 0, len(order)
        while left:
            room = MOST_LOGITS // (left * self._reader.vocabulary_size)
            stop = min(offset + max(1, min(CHUNK, room)), int(lengths[left - 1]))
            places = starts[:left] + np.arange(offset, stop)[:, None]  # (T, B)
            reading.nats[places], state = self._reader.read(
                reading.inputs[places], reading.targets[places], reading.fresh[places], state
            )
            passed = min(self._told, places.size)  # reading again is no progress
            self._told -= passed
            self._heartbeat(passed)
            offset = stop
            while left and lengths[left - 1] == offset:
                left -= 1
                after[order[left]] = part_of(state, slice(left, left + 1))
            state = part_of(state, slice(0, left))
        return after


def _lanes(fresh: Marks) -> Places:
    """Where lanes begin in a piece: evenly, and where the state does, if that is near; these may be short."""
    size = len(fresh)
    count = max(1, min(LANES, size // LANE_LENGTH))
    starts = np.arange(count, dtype=np.int64) * size // count
    if not fresh.any():
        return starts
    known = np.append(np.flatnonzero(fresh), size)

    def following(places: Places) -> Places:
        return known[np.searchsorted(known, places)]

    short = following(np.arange(1, LANES) * size // LANES)
    guessed = starts[following(starts) - starts > RUN_UP]
    return np.unique(np.concatenate([[0], short[short < size], guessed]))


def part_of(state: State, streams: slice) -> State:
    """The state of some of the streams."""
    return tuple(tuple(part[streams] for part in layer) for layer in state)


def _distance(one: State, other: State) -> float:
    return max(
        float(np.abs(left - right).max())
        for layer, its in zip(one, other, strict=True)
        for left, right in zip(layer, its, strict=True)
    )
