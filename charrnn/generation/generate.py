"""The feedback loop for many samples at once: read the prompt, choose a character, write it, read it, and so on.

Knows nothing about files, terminals or bytes: it takes text and yields text. The random numbers of a sample follow
from the seed and its own number alone, so that its text does not depend on those beside it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from charrnn.config import SampleConfig
from charrnn.data.vocabulary import Vocabulary, to_text
from charrnn.errors import CharrnnError
from charrnn.generation.batch import Batch, SampledCharacter
from charrnn.generation.prompt_state import PromptState, empty_prompt_state
from charrnn.generation.stopping import StopReason
from charrnn.rnn.backend import Decoder

BATCH_WIDTH = 256  # samples written side by side
STEPS = 16  # characters of each of many before any is looked at: those beyond its end are wasted
STEPS_SINGLE = 64  # of a single one, before they are passed on: some milliseconds
MAX_AHEAD = 4  # times BATCH_WIDTH: how many samples may be finished before the oldest is


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
    size: int = 0  # characters of it, or bytes
    stop_reason: StopReason | None = None  # None if it never began
    nats: float = 0.0  # the surprise of all its characters, as the model itself sees them
    seed: int = 0
    choices: tuple[SampledCharacter, ...] = ()  # its characters one by one, if ``logprobs`` was asked for
    error: CharrnnError | None = None


class TextChunk(NamedTuple):
    """A few characters of a sample on its way, or bytes, whose text may end within a character."""

    text: str  # symbols
    choices: Sequence[SampledCharacter]  # them one by one, if ``logprobs`` was asked for


class Requests(Protocol):
    """Where samples are asked for."""

    def get(self, *, block: bool) -> Request | None:
        """The next one; None if there is none, or, unless it is to wait, if there is none yet."""


class RequestList:
    """Requests that are all there."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = iter(requests)

    def get(self, *, block: bool) -> Request | None:
        """The next one, or None."""
        return next(self._requests, None)


def generate(
    network: Decoder,
    vocabulary: Vocabulary,
    config: SampleConfig,
    prompt: str = "",
    prompt_state: PromptState | None = None,
) -> Iterator[TextChunk]:
    """Yields the continuation of a prompt, a few characters at a time as they are made, without the prompt.

    `StopDetector` tells when it is over.

    Args:
        network: the model's.
        vocabulary: its characters.
        config: how the text is written.
        prompt: what it continues; nothing begins as after the end of a line.
        prompt_state: what was read before the prompt.

    Raises:
        UnknownCharacterError: the prompt holds characters that the model never saw; raised by the call itself,
            before the first character.
        SettingError: no character is allowed; likewise.
    """
    batch = Batch(
        network, vocabulary, config, prompt_state or empty_prompt_state(network, vocabulary), keep_line_end=True
    )
    stream = batch.add(0, prompt)

    def pieces() -> Iterator[TextChunk]:
        while stream.stopping.reason is None:
            batch.advance(STEPS_SINGLE)
            if stream.new_text:
                yield TextChunk(stream.new_text, stream.choices)

    return pieces()


def generate_batch(
    network: Decoder,
    vocabulary: Vocabulary,
    config: SampleConfig,
    requests: Requests,
    prompt_state: PromptState | None = None,
    width: int = BATCH_WIDTH,
) -> Iterator[Sample]:
    """Yields the samples that are asked for, in that order, each when it and all before it are finished.

    They are records: the last of ``config.lines`` comes without its line end.
    Those whose prompt holds characters that the model never saw come with the error.

    Args:
        network: the model's.
        vocabulary: its characters.
        config: how each sample is written.
        requests: numbered without gaps.
        prompt_state: what was read before each prompt.
        width: how many are written side by side at most.

    Raises:
        SettingError: no character is allowed.
    """
    batch = Batch(
        network,
        vocabulary,
        config,
        prompt_state or empty_prompt_state(network, vocabulary),
        keep_line_end=False,
        measure=True,
    )
    finished: dict[int, Sample] = {}
    following = 0  # the number of the sample to be yielded next
    begun: dict[int, _PendingSample] = {}
    while True:
        newest = following + len(begun) + len(finished)
        while len(batch.streams) < width and newest - following < MAX_AHEAD * width:
            request = requests.get(block=not batch.streams and following not in finished)
            if request is None:
                break
            newest = request.number + 1
            try:
                if request.error is not None:
                    raise request.error
                batch.add(request.number, request.prompt, request.name)
                begun[request.number] = _PendingSample(request.prompt, [], [])
            except CharrnnError as error:
                finished[request.number] = Sample(request.number, request.prompt, error=error)
        if not batch.streams and following not in finished:
            return
        for stream in batch.advance(STEPS) if batch.streams else []:
            sample = begun[stream.number]
            sample.texts.append(stream.new_text)
            if config.logprobs is not None:
                sample.choices.extend(stream.choices)
            if stream.stopping.reason is not None:
                symbols = "".join(sample.texts)
                finished[stream.number] = Sample(
                    stream.number, sample.prompt, to_text(symbols, vocabulary.unit), len(symbols),
                    stream.stopping.reason, stream.nats, batch.seed, tuple(sample.choices),
                )  # fmt: skip
                del begun[stream.number]
        while following in finished:
            yield finished.pop(following)
            following += 1


class _PendingSample(NamedTuple):
    """A sample that is not finished."""

    prompt: str
    texts: list[str]
    choices: list[SampledCharacter]
