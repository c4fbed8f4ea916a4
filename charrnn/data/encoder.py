"""From pieces of text to pieces of ids, before all symbols are known: numbered in the order in which they come.

`BoundaryMarker` puts a boundary where a document ends; `Encoder` numbers symbols and counts them; `DocumentStarts` remembers where
documents begin. Knows nothing about files or vocabularies.
"""

from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ReadConfig, Unit
from charrnn.data.decoding import clean_text
from charrnn.data.vocabulary import BOUNDARY, code_points

MAX_STARTS = 1 << 20  # remembered starts; of more documents, neighbours go together
_NONE = 255  # where there is no number yet, among bytes
_SLICE = 1 << 14  # characters numbered at once
_MANY = 1 << 14  # numbers that are worth a table of pairs


class BoundaryMarker:
    """Documents, as text with a boundary before, between and behind them.

    Args:
        config: what separates documents.

    Attributes:
        boundary: what a boundary looks like: the separator itself if it is a single character, which is the faster
            way, and otherwise one that no text holds.
    """

    def __init__(self, config: ReadConfig) -> None:
        self._wanted = config.documents != "none"
        separator = "\n" if config.documents == "lines" else clean_text(config.separator, config)
        if config.unit == "byte":
            separator = separator.encode("utf-8", "surrogateescape").decode("latin-1")
        self._separator = separator
        self.boundary = separator if len(separator) == 1 else chr(256) if config.unit == "byte" else BOUNDARY
        self._held = ""  # may yet turn out to be the beginning of a separator

    def feed(self, text: str, *, last: bool) -> str:
        """Takes more text, with which a file ends if it is the last of it."""
        if not self._wanted:
            return text
        separator, text = self._separator, self._held + text
        self._held = ""
        if len(separator) > 1:
            text = text.replace(separator, self.boundary)
            if not last:
                sizes = range(min(len(separator) - 1, len(text)), 0, -1)
                begun = next((size for size in sizes if separator.startswith(text[-size:])), 0)
                text, self._held = text[: len(text) - begun], text[len(text) - begun :]
        return text + self.boundary if last else text


class Encoder:
    """Numbers symbols in the order in which they come, and counts them. Boundaries that follow each other are one.

    Args:
        unit: of characters; or of bytes, each of which comes as the character with its number.
        boundary: what one looks like, and its number is 0 then; nothing without documents.

    Attributes:
        symbols: those that came so far, in the order of their numbers, as a vocabulary has them.
    """

    def __init__(self, unit: Unit, boundary: str = "") -> None:
        self.symbols = ""
        self._bytes, self._documents = unit == "byte", bool(boundary)
        self._numbers = np.zeros(0x110000, dtype=np.int32)  # of each code point, plus 1; memory only where it is used
        self._table = bytearray([_NONE]) * 256  # the same of the first 256, where it is a byte
        self._counts = np.zeros(0, dtype=np.int64)
        self._after_boundary = False
        if boundary:
            self.symbols = BOUNDARY
            self._call(ord(boundary), 0)

    @property
    def counts(self) -> dict[str, int]:
        """How often each symbol came."""
        return dict(zip(self.symbols, self._counts.tolist(), strict=True))

    def encode(self, text: str) -> NDArray[np.integer]:
        """The numbers of more characters (N,), as uint8 or int32."""
        ids = self._numbered(text)
        if self._documents and len(ids):
            places = np.flatnonzero(ids == 0)
            again = places[np.diff(places, prepend=-1 if self._after_boundary else -2) == 1]
            self._after_boundary = bool(ids[-1] == 0)
            if len(again):
                ids = np.delete(ids, again)
        counts = _counted(ids)[: len(self.symbols)]
        self._counts = np.append(self._counts, np.zeros(len(self.symbols) - len(self._counts), dtype=np.int64))
        self._counts[: len(counts)] += counts
        return ids

    def _numbered(self, text: str) -> NDArray[np.integer]:
        if len(text) <= _SLICE:
            return self._numbered_slice(text)
        # A single wide character makes a whole string wide, but only one of its slices.
        slices = [self._numbered_slice(text[begin : begin + _SLICE]) for begin in range(0, len(text), _SLICE)]
        return np.concatenate(slices)

    def _numbered_slice(self, text: str) -> NDArray[np.integer]:
        with suppress(UnicodeEncodeError):
            if (small := self._translated(text.encode("latin-1"))) is not None:
                return small
        codes = code_points(text)
        ids = self._numbers[codes]
        if not ids.all():
            self._add(np.unique(codes[ids == 0]).tolist())
            ids = self._numbers[codes]
        ids -= 1
        return ids.astype(np.uint8) if len(self.symbols) < 256 else ids

    def _translated(self, data: bytes) -> NDArray[np.uint8] | None:
        """The same of characters below 256, several times as fast, as long as their numbers fit into a byte."""
        translated = data.translate(self._table)
        if _NONE in translated:
            self._add(sorted(code for code in set(data) if not self._numbers[code]))
            translated = data.translate(self._table)
        return None if _NONE in translated else np.frombuffer(translated, dtype=np.uint8)

    def _add(self, codes: Iterable[int]) -> None:
        for number, code in enumerate(codes, len(self.symbols)):
            self.symbols += chr(code + 0xDC00 if self._bytes and code >= 128 else code)
            self._call(code, number)

    def _call(self, code: int, number: int) -> None:
        self._numbers[code] = number + 1
        if code < 256 and number < _NONE:
            self._table[code] = number


def _counted(ids: NDArray[np.integer]) -> NDArray[np.int64]:
    """How often each number comes."""
    if ids.dtype != np.uint8 or len(ids) < _MANY:
        return np.bincount(ids)
    even = len(ids) // 2 * 2
    pairs = np.bincount(ids[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)  # half as many to count
    counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    counts[ids[even:]] += 1
    return np.asarray(counts)


class DocumentStarts:
    """Where documents begin, or every few of them where there are more than can be remembered.

    Attributes:
        num_documents: how many there are.
        longest_document: symbols of the longest one.
    """

    def __init__(self) -> None:
        self.num_documents, self.longest_document = 0, 0
        self._every = 1  # which of them is remembered
        self._parts: list[NDArray[np.int64]] = []
        self._kept = 0
        self._last: int | None = None  # place of the last boundary

    def add(self, ids: NDArray[np.integer], before: int) -> None:
        """Takes ids whose boundaries are 0, of a text of which ``before`` came before them."""
        places = np.flatnonzero(ids == 0) + before
        if not len(places):
            return
        edges = places if self._last is None else np.append(self._last, places)
        self.longest_document = max(self.longest_document, int(np.diff(edges).max(initial=1)) - 1)
        self._last = int(places[-1])
        first = (
            -self.num_documents % self._every
        )  # the boundaries so far are as many as documents, each of which has one
        chosen = places[first :: self._every].copy()
        self.num_documents += len(places)
        self._parts.append(chosen)
        self._kept += len(chosen)
        while self._kept > MAX_STARTS:
            kept = np.concatenate(self._parts)[::2]
            self._parts, self._kept, self._every = [kept], len(kept), 2 * self._every

    def finish(self) -> NDArray[np.int64]:
        """Their places; the last boundary, with which the text ends, begins nothing and is none of them."""
        places = np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.int64)
        self.num_documents = max(0, self.num_documents - 1)
        return places[:-1] if len(places) and places[-1] == self._last else places
