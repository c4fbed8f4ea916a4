"""How surprising each line of a stream is to a model.

A line is read from the state in which one begins, fresh and after a line feed (or whatever the model takes for the
end of a line), and its own end counts as one of its characters. Or the state runs on from line to line; then the
first character of all is only read, as in ``metrics.py``, and the sum of all lines is the figure of the whole text.

A character that the model never saw costs `UNKNOWN_NATS`, a blind guess among all that there are, and is passed over.
Where the model has a symbol for rare characters, what that costs comes on top. So every line has a figure, and those
that two models give it can be compared; how many such characters there were is told beside it. A byte that is no
UTF-8 is such a character, too.

With the state carried the sum is the figure of ``charrnn eval`` where the model knows all characters. Of documents it
is so but for their ends: lines are read as those of a single one.
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

UNKNOWN_NATS = math.log(0x110000)  # of the code points of Unicode
_ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that is no UTF-8


@dataclass(slots=True)
class LineScore:
    """How surprising a line is."""

    number: int  # from 1
    data: bytes = b""  # the line, as it came; of a very long one the beginning
    complete: bool = True  # whether that is all of it
    num_predictions: int = 0  # predictions: its characters and its end
    nats: float = 0.0  # the sum of their surprise
    unknown: int = 0  # characters that the model never saw
    error: str = ""  # what of it is no text
    surprisals: list[tuple[str, float]] = field(default_factory=list)  # of each symbol of what is shown, if wanted

    @property
    def nats_per_char(self) -> float:
        """The mean; of nothing, nothing."""
        return self.nats / self.num_predictions if self.num_predictions else 0.0


class LineScorer:
    """Scores lines as they come.

    Args:
        model: the model.
        scorer: its network.
        carry: have the state run on from line to line.
        per_symbol: keep the surprise of every symbol.

    Raises:
        SettingError: ``carry`` with a model for which each line is a document, or something that stands in them.
    """

    def __init__(self, model: Checkpoint, scorer: Scorer, *, carry: bool = False, per_symbol: bool = False) -> None:
        self._vocabulary, self._reading = model.vocabulary, model.read_config
        self._meter, self._carry, self._per_symbol = SurprisalMeter(scorer), carry, per_symbol
        lines = self._reading.documents == "lines" or self._reading.separator == "\n"
        if carry and (lines or self._reading.separator):
            reason = "a text of its own" if lines else "within one of many documents"
            raise SettingError("carry", f"cannot be: to this model each line is {reason}", "leave it out")
        self._end = BOUNDARY if lines else "\n" if "\n" in self._vocabulary else ""
        first = BOUNDARY if carry and self._vocabulary.boundary_id is not None else "" if carry else self._end
        if first:
            self._meter.begin(int(self._vocabulary.ids_of(first)[0]))
        self._begun = bool(first)  # whether there is something from which the next symbol can be predicted
        self._lines = 0
        self._line: LineScore | None = None  # a long one whose end has not come
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def score(self, pieces: Sequence[LineFragment]) -> list[LineScore]:
        """Reads more lines, or pieces of them, and gives back those that have ended."""
        lines = []
        for piece in pieces:
            if self._line is None:
                self._lines += 1
                self._line = LineScore(self._lines, piece.data, piece.last)
            lines.append(self._line)
            if piece.last:
                self._line = None
        texts = [self._text(line, piece) for line, piece in zip(lines, pieces, strict=True)]
        self._measure(lines, pieces, texts)
        return [line for line, piece in zip(lines, pieces, strict=True) if piece.last]

    def _text(self, line: LineScore, piece: LineFragment) -> str:
        """The symbols of a piece, without its end."""
        if self._vocabulary.unit == "byte":
            return piece.data.decode("ascii", "surrogateescape")
        text = self._decoder.decode(piece.data, piece.last)
        if not text.isascii() and not line.error and (found := _ESCAPED.search(text)):
            line.error = f"byte 0x{ord(found[0]) - 0xDC00:02x} is not UTF-8"
        if piece.last and piece.closed and self._reading.newlines == "unix":
            text = text.removesuffix("\r")
        return clean_text(text, self._reading)

    def _measure(self, lines: Sequence[LineScore], pieces: Sequence[LineFragment], texts: Sequence[str]) -> None:
        ending = np.array([piece.last and (piece.closed or not self._carry) for piece in pieces], dtype=bool)
        parts = [text + self._end if ends else text for text, ends in zip(texts, ending, strict=True)]
        edges = np.cumsum([0, *map(len, parts)])
        ids = self._vocabulary.ids_of("".join(parts))
        known = ids >= 0
        reset = np.zeros(len(ids), dtype=bool)
        first = self._firsts(lines, known, edges)  # known symbols that nothing comes before
        if not self._carry:
            reset[edges[1:][ending] - 1 if self._end else first] = True
        nats = np.zeros(len(ids))
        nats[known] = self._meter.read(ids[known], reset[known])
        nats[first] = 0 if self._carry else math.log(len(self._vocabulary))
        unknown = ~known if self._vocabulary.unknown_id is None else ids == self._vocabulary.unknown_id
        nats[unknown] += UNKNOWN_NATS

        sums = np.concatenate([[0], np.cumsum(nats)])
        unknowns = np.concatenate([[0], np.cumsum(unknown)])
        counted = np.ones(len(ids), dtype=bool)
        if self._carry:
            counted[first] = False
        counts = np.concatenate([[0], np.cumsum(counted)])
        for place, line in enumerate(lines):
            begin, end = edges[place], edges[place + 1]
            line.nats += float(sums[end] - sums[begin])
            line.unknown += int(unknowns[end] - unknowns[begin])
            line.num_predictions += int(counts[end] - counts[begin])
            if self._per_symbol and not line.surprisals:
                line.surprisals = list(zip(parts[place], nats[begin:end].tolist(), strict=True))

    def _firsts(
        self, lines: Sequence[LineScore], known: NDArray[np.bool_], edges: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The places of known symbols that nothing comes before: of the text, or of lines that have no end."""
        places = np.flatnonzero(known)
        if self._carry or self._end:
            first = places[: 0 if self._begun else 1]
            self._begun = self._begun or bool(len(places))
            return first
        after = np.searchsorted(places, edges[:-1])
        found: list[int] = []
        for place, line in enumerate(lines):
            begins = line.num_predictions == 0 and (place == 0 or lines[place - 1] is not line)
            if begins and after[place] < len(places) and places[after[place]] < edges[place + 1]:
                found.append(int(places[after[place]]))
        return np.array(found, dtype=np.int64)
