"""Encodes text piece by piece, before all symbols are known.

Each symbol gets a stored id in the order of first occurrence. `BoundaryMarker` marks where documents begin and end,
`Encoder` converts text to stored ids, and `DocumentStarts` records the positions of documents.
"""

from collections.abc import Iterable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ReadConfig, Unit
from charrnn.data.decoding import clean_text
from charrnn.data.vocabulary import BOUNDARY, code_points

MAX_STARTS = 1 << 20  # maximum number of recorded document starts
_NO_ID = 255  # marks characters without a stored id in the table of Latin-1 characters
_SLICE = 1 << 14  # characters that are encoded at once
_MIN_PAIR_COUNT = 1 << 14  # with this many ids, counting pairs is faster


class BoundaryMarker:
    """Marker of the beginnings and ends of documents in a text.

    Args:
        config: How documents are separated.

    Attributes:
        boundary: The character that marks a boundary: the separator if it is a single character, which is faster, and
            otherwise a character that cannot occur in the text.
    """

    def __init__(self, config: ReadConfig) -> None:
        self._enabled = config.documents != "none"
        separator = "\n" if config.documents == "lines" else clean_text(config.separator, config)
        if config.unit == "byte":
            separator = separator.encode("utf-8", "surrogateescape").decode("latin-1")
        self._separator = separator
        self.boundary = separator if len(separator) == 1 else chr(256) if config.unit == "byte" else BOUNDARY
        self._pending = ""  # the end of the text, if it may be the beginning of a separator

    def feed(self, text: str, *, last: bool) -> str:
        """Return the next piece of text with boundaries.

        Args:
            text: The next piece.
            last: Whether it ends its file.
        """
        if not self._enabled:
            return text
        separator, text = self._separator, self._pending + text
        self._pending = ""
        if len(separator) > 1:
            text = text.replace(separator, self.boundary)
            if not last:
                lengths = range(min(len(separator) - 1, len(text)), 0, -1)
                partial = next((length for length in lengths if separator.startswith(text[-length:])), 0)
                text, self._pending = text[: len(text) - partial], text[len(text) - partial :]
        return text + self.boundary if last else text


class Encoder:
    """Incremental encoder of text as stored ids. Consecutive boundaries become one.

    Args:
        unit: Unit of the text. Bytes are given as the characters with their values.
        boundary: The boundary character, which gets the stored id 0; "" without documents.

    Attributes:
        symbols: The symbols so far, in the order of their stored ids.
    """

    def __init__(self, unit: Unit, boundary: str = "") -> None:
        self.symbols = ""
        self._bytes, self._documents = unit == "byte", bool(boundary)
        self._ids = np.zeros(0x110000, dtype=np.int32)  # stored id + 1 of each code point, or 0
        self._table = bytearray([_NO_ID]) * 256  # stored ids below 255 of the first 256 code points
        self._counts = np.zeros(0, dtype=np.int64)
        self._after_boundary = False
        if boundary:
            self.symbols = BOUNDARY
            self._set_id(ord(boundary), 0)

    @property
    def counts(self) -> dict[str, int]:
        """Number of occurrences of each symbol."""
        return dict(zip(self.symbols, self._counts.tolist(), strict=True))

    def encode(self, text: str) -> NDArray[np.integer]:
        """Return the stored ids of the next piece of text, (N,), as uint8 or int32."""
        ids = self._encode(text)
        if self._documents and len(ids):
            boundaries = np.flatnonzero(ids == 0)
            repeated = boundaries[np.diff(boundaries, prepend=-1 if self._after_boundary else -2) == 1]
            self._after_boundary = bool(ids[-1] == 0)
            if len(repeated):
                ids = np.delete(ids, repeated)
        counts = _count(ids)[: len(self.symbols)]
        self._counts = np.append(self._counts, np.zeros(len(self.symbols) - len(self._counts), dtype=np.int64))
        self._counts[: len(counts)] += counts
        return ids

    def _encode(self, text: str) -> NDArray[np.integer]:
        if len(text) <= _SLICE:
            return self._encode_slice(text)
        # A character beyond Latin-1 excludes only its slice from the fast path.
        slices = [self._encode_slice(text[start : start + _SLICE]) for start in range(0, len(text), _SLICE)]
        return np.concatenate(slices)

    def _encode_slice(self, text: str) -> NDArray[np.integer]:
        with suppress(UnicodeEncodeError):
            if (narrow := self._translate(text.encode("latin-1"))) is not None:
                return narrow
        codes = code_points(text)
        ids = self._ids[codes]
        if not ids.all():
            self._add(np.unique(codes[ids == 0]).tolist())
            ids = self._ids[codes]
        ids -= 1
        return ids.astype(np.uint8) if len(self.symbols) < 256 else ids

    def _translate(self, data: bytes) -> NDArray[np.uint8] | None:
        """Return the stored ids of characters below 256, or None if one does not fit into a byte.

        This is several times as fast as looking up code points.
        """
        translated = data.translate(self._table)
        if _NO_ID in translated:
            self._add(sorted(code for code in set(data) if not self._ids[code]))
            translated = data.translate(self._table)
        return None if _NO_ID in translated else np.frombuffer(translated, dtype=np.uint8)

    def _add(self, codes: Iterable[int]) -> None:
        for stored_id, code in enumerate(codes, len(self.symbols)):
            self.symbols += chr(code + 0xDC00 if self._bytes and code >= 128 else code)
            self._set_id(code, stored_id)

    def _set_id(self, code: int, stored_id: int) -> None:
        self._ids[code] = stored_id + 1
        if code < 256 and stored_id < _NO_ID:
            self._table[code] = stored_id


def _count(ids: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the number of occurrences of each id."""
    if ids.dtype != np.uint8 or len(ids) < _MIN_PAIR_COUNT:
        return np.bincount(ids)
    even = len(ids) // 2 * 2
    pairs = np.bincount(ids[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)  # half as many to count
    counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    counts[ids[even:]] += 1
    return np.asarray(counts)


class DocumentStarts:
    """Positions where documents begin. Of more than `MAX_STARTS` documents, only every 2nd, 4th, 8th ... is recorded.

    Attributes:
        num_documents: Number of documents.
        longest_document: Length of the longest document in symbols.
    """

    def __init__(self) -> None:
        self.num_documents, self.longest_document = 0, 0
        self._stride = 1  # every n-th start is recorded
        self._parts: list[NDArray[np.int64]] = []
        self._num_recorded = 0
        self._last: int | None = None  # position of the last boundary

    def add(self, ids: NDArray[np.integer], offset: int) -> None:
        """Record the boundaries in the next ids.

        Args:
            ids: Stored ids; 0 is a boundary.
            offset: Number of ids before them.
        """
        boundaries = np.flatnonzero(ids == 0) + offset
        if not len(boundaries):
            return
        edges = boundaries if self._last is None else np.append(self._last, boundaries)
        self.longest_document = max(self.longest_document, int(np.diff(edges).max(initial=1)) - 1)
        self._last = int(boundaries[-1])
        first = -self.num_documents % self._stride  # until `finish`, every boundary counts as a document
        starts = boundaries[first :: self._stride].copy()
        self.num_documents += len(boundaries)
        self._parts.append(starts)
        self._num_recorded += len(starts)
        while self._num_recorded > MAX_STARTS:
            thinned = np.concatenate(self._parts)[::2]
            self._parts, self._num_recorded, self._stride = [thinned], len(thinned), 2 * self._stride

    def finish(self) -> NDArray[np.int64]:
        """Return the positions of the recorded starts, without the boundary that ends the text."""
        starts = np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.int64)
        self.num_documents = max(0, self.num_documents - 1)
        return starts[:-1] if len(starts) and starts[-1] == self._last else starts
