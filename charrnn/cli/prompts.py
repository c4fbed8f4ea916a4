"""Prompts of ``charrnn sample``.

``--prompt`` gives one prompt for all samples. ``--prompts`` reads one prompt per line from a file or a pipe, as the
lines arrive.
"""

from charrnn.checkpoint import Checkpoint
from charrnn.cli.console import Console
from charrnn.config import SampleConfig
from charrnn.data import sources
from charrnn.data.decoding import remove_boms
from charrnn.data.lines import LineFragment, Lines
from charrnn.data.vocabulary import Vocabulary, describe_all
from charrnn.errors import CharrnnError, CorpusError
from charrnn.generation.generate import Request
from charrnn.generation.prompt_state import PromptState
from charrnn.generation.prompt_state import read_prompt as advance_prompt_state
from charrnn.rnn.backend import Decoder

MAX_LINE_BYTES = 1 << 20  # maximum size of a prompt in a line; several are held in memory at once
MAX_PROMPT_BYTES = 1 << 26  # maximum size of a prompt from stdin
BAR_CHARACTERS = 20_000  # shorter prompts are read without a progress bar


class PromptLines:
    """Requests for samples, with prompts from the lines of a file; see `charrnn.generation.generate.Requests`.

    Args:
        path: Path of the file, or ``-`` for stdin.
        vocabulary: Vocabulary of the model.
        skip: Whether to skip unknown characters. Otherwise they are errors.
        count: Number of samples per prompt.
        console: Console for notes about skipped characters.

    Raises:
        CorpusError: If the file cannot be read.
    """

    def __init__(self, path: str, vocabulary: Vocabulary, *, skip: bool, count: int, console: Console) -> None:
        self._lines = Lines(path, MAX_LINE_BYTES, raw=vocabulary.unit == "byte")
        self._in_long_line = False  # whether the next fragment belongs to a line that is too long
        self._vocabulary, self._skip, self._count, self._console = vocabulary, skip, count, console
        self._num_lines = self._num_samples = 0
        self._prompt: tuple[str, str, CharrnnError | None] = "", "", None

    def get(self, *, block: bool) -> Request | None:
        """Return the next request, or None at the end. Without ``block``, also return None if none is there yet."""
        if self._num_samples % self._count == 0:
            if (line := self._next_line(block=block)) is None:
                return None
            self._num_lines += 1
            self._prompt = self._parse(line)
        prompt, name, error = self._prompt
        self._num_samples += 1
        return Request(self._num_samples - 1, prompt, name, error)

    def _next_line(self, *, block: bool) -> LineFragment | None:
        """Return the next line. Of a line that is too long, return the beginning and skip the rest."""
        while (fragment := self._lines.get(block=block)) is not None:
            is_rest, self._in_long_line = self._in_long_line, not fragment.last
            if not is_rest:
                return fragment
        return None

    def _parse(self, line: LineFragment) -> tuple[str, str, CharrnnError | None]:
        """Return the prompt, name and error of a line."""
        name = f"{self._lines.name}, line {self._num_lines}"
        if not line.last or len(line.data) > MAX_LINE_BYTES:
            return "", name, _too_long(name, MAX_LINE_BYTES)
        try:
            text = _decode(line.data.removesuffix(b"\r"), self._vocabulary, name)
        except CorpusError as error:
            return "", name, error
        if self._skip:
            text, unknown = self._vocabulary.split_unknown(text)
            _report_skipped(name, unknown, self._console)
        return text, name, None


def warn_unreachable_stops(config: SampleConfig, model: Checkpoint, console: Console) -> None:
    """Warn about stop strings with characters that the model cannot generate."""
    for string in config.stop_strings:
        if unknown := model.vocabulary.split_unknown(string)[1]:
            names = describe_all(unknown)
            console.line(f"charrnn: --stop: the model never generates {names}, so this string cannot end a sample")


def resolve_prompt(prompt: str, config: SampleConfig, model: Checkpoint, console: Console) -> str:
    """Return the prompt, read from stdin if it is ``-``, without unknown characters if they are to be skipped.

    Raises:
        CorpusError: If stdin cannot be read, is not UTF-8, or has more than `MAX_PROMPT_BYTES`.
    """
    if prompt == sources.STDIN:
        data = sources.read_bytes(sources.STDIN, MAX_PROMPT_BYTES + 1)
        if len(data) > MAX_PROMPT_BYTES:
            raise _too_long("stdin", MAX_PROMPT_BYTES)
        prompt = _decode(data, model.vocabulary, "stdin")
    if model.vocabulary.unit == "char":
        prompt = remove_boms(prompt)
    if config.unknown == "skip":
        prompt, unknown = model.vocabulary.split_unknown(prompt)
        _report_skipped("the prompt", unknown, console)
    return prompt


def _report_skipped(name: str, unknown: str, console: Console) -> None:
    if unknown:
        console.line(f"charrnn: {name}: skipped characters that the model never saw: {describe_all(unknown)}")


def read_prompt(
    network: Decoder, prompt_state: PromptState, model: Checkpoint, prompt: str, console: Console
) -> PromptState:
    """Return the state of the network after a prompt.

    Raises:
        UnknownCharacterError: If the prompt contains characters that the model never saw.
    """
    ids = model.vocabulary.encode(prompt, "the prompt")
    if len(ids) < BAR_CHARACTERS:
        return advance_prompt_state(network, prompt_state, ids)
    with console.bar(total=len(ids), unit=" characters") as bar:
        return advance_prompt_state(network, prompt_state, ids, bar.update)


def _too_long(name: str, limit: int) -> CorpusError:
    return CorpusError(name, f"is longer than {limit >> 20} MiB", "give a shorter prompt, such as its end")


def _decode(data: bytes, vocabulary: Vocabulary, name: str) -> str:
    """Return a prompt as text. For a model of bytes, any bytes are valid.

    Raises:
        CorpusError: If the prompt is not UTF-8.
    """
    try:
        return data.decode("utf-8", "surrogateescape" if vocabulary.unit == "byte" else "strict")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise CorpusError(name, reason, "convert it to UTF-8") from None
