"""The feedback loop for many samples at once: read the prompt, choose a character, write it, read it, and so on.

Knows nothing about files, terminals or bytes: it takes text and yields text. The random numbers of a sample follow
from the seed and its own number alone, so that its text does not depend on those beside it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SampleConfig
from charrnn.errors import CharrnnError
from charrnn.sampling.ending import Ending, Reason
from charrnn.sampling.sampler import NEVER, Numbers, Sampler, log_softmax
from charrnn.sampling.stepper import Ids, Network, Runner, State, joined, rows_of
from charrnn.text.vocabulary import Vocabulary

WIDTH = 256  # samples written side by side
STEPS = 16  # characters of each of many before any is looked at: those beyond its end are wasted
STEPS_ALONE = 64  # of a single one, before they are passed on: some milliseconds
AHEAD = 4  # times WIDTH: how many samples may be finished before the oldest is


@dataclass(frozen=True)
class Request:
    """A sample to be written."""

    number: int  # 0, 1, 2, ... in the order of asking
    prompt: str = ""
    name: str = "the prompt"  # what an error calls it
    error: CharrnnError | None = None  # why it cannot be


@dataclass(frozen=True)
class Sample:
    """What was written."""

    number: int
    prompt: str
    text: str = ""
    ended: Reason | None = None  # None if it never began
    nats: float = 0.0  # the surprise of all its characters, as the model itself sees them
    seed: int = 0
    error: CharrnnError | None = None


class Requests(Protocol):
    """Where samples are asked for."""

    def take(self, *, wait: bool) -> Request | None:
        """The next one; None if there is none, or, unless it is to wait, if there is none yet."""


class Listed:
    """Requests that are all there."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = iter(requests)

    def take(self, *, wait: bool) -> Request | None:
        """The next one, or None."""
        return next(self._requests, None)


def start(vocabulary: Vocabulary) -> str:
    """What the model reads when there is no prompt: the end of a line, or its first character without lines."""
    return "\n" if "\n" in vocabulary else vocabulary.characters[0]


def write(network: Network, vocabulary: Vocabulary, config: SampleConfig, prompt: str = "") -> Iterator[str]:
    """Yields the continuation of a prompt, a few characters at a time as they are made, without the prompt.

    The state runs through the prompt from zero. `Ending` tells when it is over.

    Raises:
        UnknownCharacterError: the prompt holds characters that the model never saw; raised by the call itself,
            before the first character.
        SettingError: no character is allowed; likewise.
    """
    batch = _Batch(network, vocabulary, config, whole=True)
    stream = batch.add(Request(0, prompt))

    def pieces() -> Iterator[str]:
        while stream.ending.reason is None:
            batch.advance(STEPS_ALONE)
            if stream.passed:
                yield stream.passed

    return pieces()


def write_all(
    network: Network, vocabulary: Vocabulary, config: SampleConfig, requests: Requests, width: int = WIDTH
) -> Iterator[Sample]:
    """Yields the samples that are asked for, in that order, each when it and all before it are finished.

    They are records: the last of ``config.lines`` comes without its line end.
    Those whose prompt holds characters that the model never saw come with the error.

    Args:
        network: the model's.
        vocabulary: its characters.
        config: how each sample is written.
        requests: numbered without gaps.
        width: how many are written side by side at most.

    Raises:
        SettingError: no character is allowed.
    """
    batch = _Batch(network, vocabulary, config, whole=False)
    finished: dict[int, Sample] = {}
    following = 0  # the number of the sample to be yielded next
    texts: dict[int, list[str]] = {}
    while True:
        newest = following + len(texts) + len(finished)
        while len(batch.streams) < width and newest - following < AHEAD * width:
            request = requests.take(wait=not batch.streams and following not in finished)
            if request is None:
                break
            newest = request.number + 1
            try:
                if request.error is not None:
                    raise request.error
                batch.add(request)
                texts[request.number] = []
            except CharrnnError as error:
                finished[request.number] = Sample(request.number, request.prompt, error=error)
        if not batch.streams and following not in finished:
            return
        if batch.streams:
            for stream in batch.advance(STEPS, measure=True):
                texts[stream.request.number].append(stream.passed)
                if stream.ending.reason is not None:
                    text = "".join(texts.pop(stream.request.number))
                    number, prompt = stream.request.number, stream.request.prompt
                    finished[number] = Sample(number, prompt, text, stream.ending.reason, stream.nats, batch.seed)
        while following in finished:
            yield finished.pop(following)
            following += 1


class _Stream:
    """One sample on its way."""

    def __init__(
        self, request: Request, prompt: NDArray[np.unsignedinteger], config: SampleConfig, seed: int, *, whole: bool
    ) -> None:
        self.request = request
        self.ending = Ending(config, whole=whole)
        self.unread = prompt  # ids
        self.random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(request.number,)))
        self.position = 0  # of the next new character
        self.nats = 0.0  # surprise of what was passed
        self.pending: list[float] = []  # and of each character that is held back
        self.passed = ""  # by the last advance


class _Batch:
    """Streams that advance together: row b of every array is stream b's."""

    def __init__(self, network: Network, vocabulary: Vocabulary, config: SampleConfig, *, whole: bool) -> None:
        self._whole = whole  # whether the last of ``config.lines`` keeps its line end
        self._network, self._vocabulary, self._config = network, vocabulary, config
        self._sampler = Sampler(config, vocabulary.characters)
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if config.seed is None else config.seed
        self.streams: list[_Stream] = []
        self._state: State = network.zero_state(0)  # of the streams that have advanced
        self._next = np.empty(0, dtype=np.intp)  # ids (B,) to be read
        self._recent = np.empty((0, self._sampler.window), dtype=np.intp)  # ids that were read

    def add(self, request: Request) -> _Stream:
        """Begins a sample.

        Raises:
            UnknownCharacterError: its prompt holds characters that the model never saw.
        """
        prompt = self._vocabulary.encode(request.prompt or start(self._vocabulary), request.name)
        self.streams.append(_Stream(request, prompt, self._config, self.seed, whole=self._whole))
        return self.streams[-1]

    def advance(self, most: int, *, measure: bool = False) -> list[_Stream]:
        """Takes at most so many steps and gives back the streams that did; those that ended are gone by then."""
        self._admit(self.streams[len(self._next) :])
        steps = min(most, max(self._wanted(stream, most) for stream in self.streams))
        shape = steps, len(self.streams)
        given = np.full(shape, NEVER, dtype=np.intp)  # what is read next, where it is not chosen
        uniforms, positions = np.zeros(shape), np.zeros(shape, dtype=np.intp)
        for b, stream in enumerate(self.streams):
            known = min(steps, len(stream.unread))
            given[:known, b], stream.unread = stream.unread[:known], stream.unread[known:]
            if known < steps:
                uniforms[known:, b] = stream.random.random(steps - known)
                positions[known:, b] = range(stream.position, stream.position + steps - known)
        chosen, nats = self._run(given, uniforms, self._sampler.temperatures(positions), measure=measure)
        advanced = self.streams
        for b, stream in enumerate(advanced):
            new = chosen[given[:, b] == NEVER, b]
            stream.position += len(new)
            stream.passed = stream.ending.feed(self._vocabulary.decode(new.tolist()))
            if measure:
                stream.pending += nats[given[:, b] == NEVER, b].tolist()
                size = len(stream.passed)
                stream.nats += sum(stream.pending[:size])
                stream.pending = stream.pending[size:]
        self._drop_ended()
        return advanced

    def _admit(self, new: list[_Stream]) -> None:
        """Adds the rows of streams that have not advanced yet."""
        if not new:
            return
        self._state = joined([self._state, self._network.zero_state(len(new))])
        self._next = np.append(self._next, [stream.unread[0] for stream in new]).astype(np.intp)
        for stream in new:
            stream.unread = stream.unread[1:]
        nothing = np.full((len(new), self._recent.shape[1]), NEVER, dtype=np.intp)
        self._recent = np.concatenate([self._recent, nothing])

    def _wanted(self, stream: _Stream, most: int) -> int:
        left = stream.ending.left
        return most if left is None else len(stream.unread) + left

    def _run(self, given: Ids, uniforms: Numbers, temperatures: Numbers, *, measure: bool) -> tuple[Ids, Numbers]:
        """The characters (steps, B) that were read next, and how surprising they were."""
        if isinstance(self._network, Runner) and self._sampler.plain:
            chosen, nats, self._state = self._network.run(
                self._next, self._state, given, uniforms, temperatures, self._sampler.never, measure=measure
            )
            self._next = chosen[-1]
            return chosen, nats
        chosen, nats = np.empty_like(given), np.zeros(given.shape)
        for t, known in enumerate(given):
            if self._recent.shape[1]:
                self._recent = np.concatenate([self._recent[:, 1:], self._next[:, None]], axis=1)
            logits, self._state = self._network.step(self._next, self._state)
            following = known
            if (known == NEVER).any():
                drawn = self._sampler.choose(logits, uniforms[t], temperatures[t], self._recent)
                following = np.where(known == NEVER, drawn, known)
                if measure:
                    nats[t] = -np.take_along_axis(log_softmax(logits), following[:, None], axis=1)[:, 0]
            chosen[t] = self._next = following
        return chosen, nats

    def _drop_ended(self) -> None:
        rows = np.array([b for b, stream in enumerate(self.streams) if stream.ending.reason is None], dtype=np.intp)
        if len(rows) == len(self.streams):
            return
        self.streams = [self.streams[b] for b in rows]
        self._state, self._next, self._recent = rows_of(self._state, rows), self._next[rows], self._recent[rows]
