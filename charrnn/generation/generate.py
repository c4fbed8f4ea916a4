"""Generate one or many samples, as text.

The random numbers of a sample depend only on the seed and on the number of the sample. The other samples of a batch
do not change its text.
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

BATCH_WIDTH = 256  # samples generated in parallel
STEPS = 16  # steps of a batch between two checks for ended samples; steps after the end of a sample are wasted
STEPS_SINGLE = 64  # steps of a single sample before its text is yielded; takes some milliseconds
MAX_AHEAD = 4  # samples that may wait for an unfinished earlier one, in units of the batch width
MAX_HELD_CHARACTERS = 1 << 24  # in prompts and samples that are not yet yielded; one sample may have more


@dataclass(frozen=True)
class Request:
    """Request for one sample."""

    number: int  # 0, 1, 2, ... in the order of the requests
    prompt: str = ""
    name: str = "the prompt"  # name of the prompt in error messages
    error: CharrnnError | None = None  # error that prevents the sample, known before generation


@dataclass(frozen=True)
class Sample:
    """A finished sample, or the error that prevented it."""

    number: int  # number of the sample, from 0
    prompt: str  # text that the sample continues
    text: str = ""  # new text, without the prompt
    size: int = 0  # characters of the text, or bytes if the model predicts bytes
    stop_reason: StopReason | None = None  # "length", "stop", "lines" or "end" (of a document); None after an error
    nats: float = 0.0  # surprisal of the text in nats: the sum over its characters, before any sampling setting
    seed: int = 0  # seed of the batch; a random one if none was set
    choices: tuple[SampledCharacter, ...] = ()  # the characters one by one, if ``logprobs`` is set
    error: CharrnnError | None = None  # reason why there is no text


class TextChunk(NamedTuple):
    """A few characters or bytes of an unfinished sample. Bytes may end within a UTF-8 character."""

    text: str  # symbols of the vocabulary
    choices: Sequence[SampledCharacter]  # the symbols one by one, if ``logprobs`` is set


class Requests(Protocol):
    """Source of requests."""

    def get(self, *, block: bool) -> Request | None:
        """Return the next request, or None after the last one.

        Args:
            block: Whether to wait for the next request. If False, None can also mean that it is not available yet.
        """


class RequestList:
    """Requests from an iterable."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = iter(requests)

    def get(self, *, block: bool) -> Request | None:
        """Return the next request, or None after the last one."""
        return next(self._requests, None)


def generate(
    network: Decoder,
    vocabulary: Vocabulary,
    config: SampleConfig,
    prompt: str = "",
    prompt_state: PromptState | None = None,
) -> Iterator[TextChunk]:
    """Return an iterator over the continuation of a prompt, a few characters at a time.

    The call itself checks the arguments, not the first step of the iterator. `StopDetector` decides where the text
    ends.

    Args:
        network: Network of the model.
        vocabulary: Vocabulary of the model.
        config: Generation settings.
        prompt: Text to continue. An empty prompt means the start of a line.
        prompt_state: State after the text before the prompt.

    Raises:
        UnknownCharacterError: If the prompt contains a character that is not in the vocabulary.
        SettingError: If no character is allowed, or a setting does not fit the unit of the model.
    """
    batch = Batch(
        network, vocabulary, config, prompt_state or empty_prompt_state(network, vocabulary), keep_line_end=True
    )
    stream = batch.add(0, prompt)

    def chunks() -> Iterator[TextChunk]:
        while stream.stopping.reason is None:
            batch.advance(STEPS_SINGLE)
            if stream.new_text:
                yield TextChunk(stream.new_text, stream.choices)

    return chunks()


def generate_batch(
    network: Decoder,
    vocabulary: Vocabulary,
    config: SampleConfig,
    requests: Requests,
    prompt_state: PromptState | None = None,
    width: int = BATCH_WIDTH,
) -> Iterator[Sample]:
    """Yield the requested samples in the order of the requests.

    A sample is yielded once it and all samples before it are finished. The last of ``config.lines`` lines comes
    without its line ending. If a prompt contains a character that is not in the vocabulary, the sample has an error.

    Args:
        network: Network of the model.
        vocabulary: Vocabulary of the model.
        config: Generation settings.
        requests: Requests, numbered without gaps.
        prompt_state: State after the text before each prompt.
        width: Maximum number of samples generated in parallel.

    Raises:
        SettingError: If no character is allowed, or a setting does not fit the unit of the model.
    """
    batch = Batch(
        network,
        vocabulary,
        config,
        prompt_state or empty_prompt_state(network, vocabulary),
        keep_line_end=False,
        measure=True,
    )
    # With ``logprobs``, each possible character of a step takes about as much memory as 32 characters of text.
    step_size = 1 if config.logprobs is None else 32 * (1 + min(config.logprobs, len(vocabulary)))
    finished: dict[int, Sample] = {}
    pending: dict[int, _PendingSample] = {}
    next_yield = 0  # number of the next sample to yield
    sizes: dict[int, int] = {}  # by number: maximum characters of a sample that is not yet yielded, with its prompt
    num_held = 0  # sum of `sizes`
    while True:
        next_request = next_yield + len(pending) + len(finished)
        while (
            len(batch.streams) < width
            and next_request - next_yield < MAX_AHEAD * width
            and num_held < MAX_HELD_CHARACTERS
        ):
            request = requests.get(block=not batch.streams and next_yield not in finished)
            if request is None:
                break
            next_request = request.number + 1
            sizes[request.number] = len(request.prompt) + config.length * step_size
            num_held += sizes[request.number]
            try:
                if request.error is not None:
                    raise request.error
                batch.add(request.number, request.prompt, request.name)
                pending[request.number] = _PendingSample(request.prompt, [], [])
            except CharrnnError as error:
                finished[request.number] = Sample(request.number, request.prompt, error=error)
        if not batch.streams and next_yield not in finished:
            return
        for stream in batch.advance(STEPS) if batch.streams else []:
            sample = pending[stream.number]
            sample.texts.append(stream.new_text)
            if config.logprobs is not None:
                sample.choices.extend(stream.choices)
            if stream.stopping.reason is not None:
                symbols = "".join(sample.texts)
                finished[stream.number] = Sample(
                    stream.number, sample.prompt, to_text(symbols, vocabulary.unit), len(symbols),
                    stream.stopping.reason, stream.nats, batch.seed, tuple(sample.choices),
                )  # fmt: skip
                del pending[stream.number]
        while next_yield in finished:
            yield finished.pop(next_yield)
            num_held -= sizes.pop(next_yield)
            next_yield += 1


class _PendingSample(NamedTuple):
    """An unfinished sample."""

    prompt: str
    texts: list[str]
    choices: list[SampledCharacter]
