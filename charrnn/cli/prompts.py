"""Prompts: the one for all samples, and those from a file or from stdin, one in a line, taken as they come."""

from charrnn.checkpoint import Checkpoint
from charrnn.cli.console import Console
from charrnn.config import SampleConfig
from charrnn.data import sources
from charrnn.data.lines import Lines
from charrnn.data.vocabulary import Vocabulary, describe_all
from charrnn.errors import CharrnnError, CorpusError
from charrnn.generation.generate import Request
from charrnn.generation.prompt_state import PromptState
from charrnn.generation.prompt_state import read_prompt as advance_prompt_state
from charrnn.rnn.backend import Decoder

BAR_CHARACTERS = 20_000  # characters of a prompt that are worth a bar


class PromptLines:
    """Requests for each line of a file; see `charrnn.generation.generate.Requests`.

    Args:
        path: of the file, or ``-``.
        vocabulary: what the model knows.
        skip: leave out characters that it doesn't know, instead of failing.
        count: how many samples of each prompt.
        console: who is told what was left out.

    Raises:
        CorpusError: the file cannot be read.
    """

    def __init__(self, path: str, vocabulary: Vocabulary, *, skip: bool, count: int, console: Console) -> None:
        self._lines = Lines(path)
        self._vocabulary, self._skip, self._count, self._console = vocabulary, skip, count, console
        self._line = self._number = 0  # of lines taken, and of samples asked for
        self._prompt: tuple[str, str, CharrnnError | None] = "", "", None

    def get(self, *, block: bool) -> Request | None:
        """The next one; None if there is none, or, unless it is to block, if there is none yet."""
        if self._number % self._count == 0:
            if (line := self._lines.get(block=block)) is None:
                return None
            self._line += 1
            self._prompt = self._parsed(line.data)
        prompt, name, error = self._prompt
        self._number += 1
        return Request(self._number - 1, prompt, name, error)

    def _parsed(self, line: bytes) -> tuple[str, str, CharrnnError | None]:
        name = f"{self._lines.name}, line {self._line}"
        try:
            text = _decoded(line.removesuffix(b"\r"), self._vocabulary, name, "it was left out")
        except CorpusError as error:
            return "", name, error
        if self._skip:
            text, dropped = self._vocabulary.split_unknown(text)
            if dropped:
                told = describe_all(dropped)
                self._console.line(f"charrnn: {name}: left out what the model never saw: {told}")
        return text, name, None


def warn_unreachable_stops(config: SampleConfig, model: Checkpoint, console: Console) -> None:
    """Names the characters of stop strings that can never come."""
    for string in config.stop_strings:
        if alien := model.vocabulary.split_unknown(string)[1]:
            told = describe_all(alien)
            console.line(f"charrnn: --stop: the model never writes {told}, so that it cannot end there")


def resolve_prompt(prompt: str, config: SampleConfig, model: Checkpoint, console: Console) -> str:
    """What the prompt is, from stdin if need be, without unknown characters where they are to be skipped."""
    if prompt == sources.STDIN:
        prompt = _decoded(sources.read_bytes(sources.STDIN), model.vocabulary, "stdin", "give it in UTF-8")
    if config.unknown == "skip":
        prompt, dropped = model.vocabulary.split_unknown(prompt)
        if dropped:
            console.line(f"charrnn: the prompt: left out what the model never saw: {describe_all(dropped)}")
    return prompt


def read_prompt(
    network: Decoder, prompt_state: PromptState, model: Checkpoint, prompt: str, console: Console
) -> PromptState:
    """The network after the prompt.

    Raises:
        UnknownCharacterError: it holds characters that the model never saw.
    """
    ids = model.vocabulary.encode(prompt, "the prompt")
    if len(ids) < BAR_CHARACTERS:
        return advance_prompt_state(network, prompt_state, ids)
    with console.bar(total=len(ids), unit=" characters") as bar:
        return advance_prompt_state(network, prompt_state, ids, bar.update)


def _decoded(data: bytes, vocabulary: Vocabulary, name: str, advice: str) -> str:
    """A prompt as text; for a model of bytes whatever it is.

    Raises:
        CorpusError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8", "surrogateescape" if vocabulary.unit == "byte" else "strict")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise CorpusError(name, reason, advice) from None
