"""Surprisal of every line of a file or pipe, as lines arrive.

By default, each line starts from the same state: a line feed read from the zero state, or a boundary if the model's
documents are lines. The end of a line counts as one of its characters. With ``carry``, the state is carried from
line to line. The first character of the text is then only read, as in ``metrics.py``.

An unknown character costs `UNKNOWN_NATS`, the surprisal of a uniform guess among all code points, and is not read by
the network. If the model has a symbol for rare characters, the network reads that symbol, and its surprisal is
added. So every line has a score, and the scores of two models can be compared. The number of unknown characters is
reported with each line. An invalid byte in UTF-8 counts as an unknown character.

With ``carry``, the lines add up to the result of ``charrnn eval`` if the model knows all characters. A text of many
documents differs by the document boundaries, because its lines are read as a single document.
"""

import codecs
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint import Checkpoint
from charrnn.data.decoding import clean_text
from charrnn.data.lines import LineFragment
from charrnn.data.vocabulary import BOUNDARY
from charrnn.errors import SettingError
from charrnn.evaluation.surprisal import SurprisalMeter
from charrnn.rnn.backend import Scorer

UNKNOWN_NATS = math.log(0x110000)  # the number of Unicode code points
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8, decoded by surrogateescape


@dataclass(slots=True)
class LineScore:
    """The surprisal of a line."""

    number: int  # line number, from 1
    data: bytes = b""  # the line as it was read; only the beginning of a very long line
    complete: bool = True  # whether ``data`` is the whole line
    num_predictions: int = 0  # characters of the line, plus one for its end
    nats: float = 0.0  # sum of their surprisal
    unknown: int = 0  # number of unknown characters
    error: str = ""  # the first decoding error, or empty
    surprisals: list[tuple[str, float]] = field(default_factory=list)  # each symbol of ``data`` and its nats, if kept

    @property
    def nats_per_char(self) -> float:
        """The mean surprisal of a prediction, or 0 if there are none."""
        return self.nats / self.num_predictions if self.num_predictions else 0.0


class LineScorer:
    """Scores lines as they arrive.

    Args:
        model: The model.
        scorer: The model's network.
        carry: Whether the state is carried from line to line.
        per_symbol: Whether the surprisal of each symbol is kept.

    Raises:
        SettingError: If ``carry`` is set and the model reads each line as a document, or as part of one.
    """

    def __init__(self, model: Checkpoint, scorer: Scorer, *, carry: bool = False, per_symbol: bool = False) -> None:
        self._vocabulary, self._read_config = model.vocabulary, model.read_config
        self._meter, self._carry, self._per_symbol = SurprisalMeter(scorer), carry, per_symbol
        lines_are_documents = self._read_config.documents == "lines" or self._read_config.separator == "\n"
        if carry and (lines_are_documents or self._read_config.separator):
            role = "a separate document" if lines_are_documents else "part of one of many documents"
            raise SettingError("carry", f"this model reads each line as {role}", "leave it out")
        self._line_end = BOUNDARY if lines_are_documents else "\n" if "\n" in self._vocabulary else ""
        text_start = BOUNDARY if self._vocabulary.boundary_id is not None else ""
        first = text_start if carry else self._line_end
        if first:
            self._meter.begin(int(self._vocabulary.ids_of(first)[0]))
        self._has_context = bool(first)  # whether the next symbol has a predecessor that predicts it
        self._num_lines = 0
        self._open_line: LineScore | None = None  # a long line that is not complete yet
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def score(self, fragments: Sequence[LineFragment]) -> list[LineScore]:
        """Read more lines or fragments of lines, and return the scores of the lines that are complete."""
        lines = []
        for fragment in fragments:
            if self._open_line is None:
                self._num_lines += 1
                self._open_line = LineScore(self._num_lines, fragment.data, fragment.last)
            lines.append(self._open_line)
            if fragment.last:
                self._open_line = None
        texts = [self._symbols(line, fragment) for line, fragment in zip(lines, fragments, strict=True)]
        self._measure(lines, fragments, texts)
        return [line for line, fragment in zip(lines, fragments, strict=True) if fragment.last]

    def _symbols(self, line: LineScore, fragment: LineFragment) -> str:
        """Return the symbols of a fragment without the line end, and record its first decoding error."""
        if self._vocabulary.unit == "byte":
            return fragment.data.decode("ascii", "surrogateescape")
        text = self._decoder.decode(fragment.data, fragment.last)
        if not text.isascii() and not line.error and (match := _ESCAPED_BYTE.search(text)):
            line.error = f"byte 0x{ord(match[0]) - 0xDC00:02x} is not UTF-8"
        if fragment.last and fragment.closed and self._read_config.newlines == "unix":
            text = text.removesuffix("\r")
        return clean_text(text, self._read_config)

    def _measure(self, lines: Sequence[LineScore], fragments: Sequence[LineFragment], texts: Sequence[str]) -> None:
        """Add the surprisal of each fragment's symbols to its line."""
        has_end = np.array([item.last and (item.closed or not self._carry) for item in fragments], dtype=bool)
        parts = [text + self._line_end if end else text for text, end in zip(texts, has_end, strict=True)]
        edges = np.cumsum([0, *map(len, parts)])
        ids = self._vocabulary.ids_of("".join(parts))
        readable = ids >= 0
        reset = np.zeros(len(ids), dtype=bool)
        without_context = self._positions_without_context(lines, readable, edges)
        if not self._carry:
            reset[edges[1:][has_end] - 1 if self._line_end else without_context] = True
        nats = np.zeros(len(ids))
        nats[readable] = self._meter.read(ids[readable], reset[readable])
        nats[without_context] = 0 if self._carry else math.log(len(self._vocabulary))  # a uniform guess
        unknown = ~readable if self._vocabulary.unknown_id is None else ids == self._vocabulary.unknown_id
        nats[unknown] += UNKNOWN_NATS

        counted = np.ones(len(ids), dtype=bool)
        if self._carry:
            counted[without_context] = False
        nats_before, unknown_before, counted_before = (
            np.concatenate([[0], np.cumsum(values)]) for values in (nats, unknown, counted)
        )
        for index, line in enumerate(lines):
            start, stop = edges[index], edges[index + 1]
            line.nats += float(nats_before[stop] - nats_before[start])
            line.unknown += int(unknown_before[stop] - unknown_before[start])
            line.num_predictions += int(counted_before[stop] - counted_before[start])
            if self._per_symbol and not line.surprisals:
                line.surprisals = list(zip(parts[index], nats[start:stop].tolist(), strict=True))

    def _positions_without_context(
        self, lines: Sequence[LineScore], readable: NDArray[np.bool_], edges: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the positions of readable symbols that have no context: no symbol before them predicts them.

        These are the first symbol of the text, or of each line if the model has no symbol for the end of a line.
        """
        positions = np.flatnonzero(readable)
        if self._carry or self._line_end:
            first = positions[: 0 if self._has_context else 1]
            self._has_context = self._has_context or bool(len(positions))
            return first
        next_readable = np.searchsorted(positions, edges[:-1])
        firsts: list[int] = []
        for index, line in enumerate(lines):
            starts_line = line.num_predictions == 0 and (index == 0 or lines[index - 1] is not line)
            candidate = next_readable[index]
            if starts_line and candidate < len(positions) and positions[candidate] < edges[index + 1]:
                firsts.append(int(positions[candidate]))
        return np.array(firsts, dtype=np.int64)
