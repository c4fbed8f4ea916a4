"""Symbols and their ids: what a text is to the model.

A symbol is a code point. Characters stand for themselves. A byte from 128 is U+DC00 plus the byte, as Python escapes
those that it cannot decode, and one below is the ASCII character; so bytes, too, are a string. The end of a document
and the unknown character are `BOUNDARY` and `UNKNOWN`. All of these are lone surrogates, which no text that could be
written holds, so that nothing is mistaken for them.

A vocabulary is the symbols of a training text, sorted; the id of one is its place among them. Symbols that are added
later stand behind, so that ids stay what they are. Knows nothing about files or networks.
"""

import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from charrnn.config import Unit
from charrnn.errors import UnknownCharacterError

BOUNDARY = "\udf00"  # where a document starts, and where it ends
UNKNOWN = "\udf01"  # whatever was too rare for a symbol of its own
BYTES = bytes(range(256)).decode("ascii", "surrogateescape")
SLICE = 1 << 20  # characters encoded at once, so that the four bytes a code point takes are never all there together
MAX_LISTED = 8  # unknown characters named in an error before "and N more"


class Vocabulary:
    """A two-way map between symbols and the ids 0 ... V-1.

    Args:
        symbols: distinct ones in the order of their ids.
        unit: what the symbols are.

    Attributes:
        boundary_id: the id of `BOUNDARY`, or None.
        unknown_id: the id of `UNKNOWN`, or None.

    Raises:
        ValueError: a symbol stands twice, or is none, or there is none.
    """

    def __init__(self, symbols: str, unit: Unit = "char") -> None:
        own = symbols.replace(BOUNDARY, "").replace(UNKNOWN, "")
        own.encode("utf-8" if unit == "char" else "ascii", "strict" if unit == "char" else "surrogateescape")
        codes = code_points(symbols)
        if not own or len(np.unique(codes)) != len(codes):
            raise ValueError("a vocabulary holds distinct symbols, at least one")
        self.symbols, self.unit = symbols, unit
        self.boundary_id, self.unknown_id = (
            symbols.index(special) if special in symbols else None for special in (BOUNDARY, UNKNOWN)
        )
        self._known = set(symbols)
        self._ids = np.full(int(codes.max()) + 1, -1, dtype=np.int32)  # indexed by code point
        self._ids[codes] = np.arange(len(codes), dtype=np.int32)
        self.dtype: np.dtype[np.unsignedinteger] = np.min_scalar_type(len(codes) - 1)

    @classmethod
    def from_text(cls, text: str, unit: Unit = "char") -> "Vocabulary":
        """The vocabulary of a text, sorted by code point."""
        return cls.from_counts(dict.fromkeys(to_symbols(text, unit), 1), unit)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], unit: Unit = "char", min_count: int = 1) -> "Vocabulary":
        """The vocabulary of a text in which each symbol stands so many times.

        All bytes are in every vocabulary of bytes, so that there is nothing that it cannot read. Characters that are
        rarer than ``min_count`` share the symbol `UNKNOWN`.
        """
        if unit == "byte":
            return cls(BYTES + BOUNDARY * (BOUNDARY in counts), unit)
        kept = sorted(symbol for symbol in counts if counts[symbol] >= min_count or symbol == BOUNDARY)
        return cls("".join(kept) + UNKNOWN * (len(kept) < len(counts)), unit)

    def extended(self, symbols: Iterable[str]) -> "Vocabulary":
        """This vocabulary with those symbols that it lacks, sorted, behind its own."""
        return Vocabulary(self.symbols + "".join(sorted(set(symbols) - self._known)), self.unit)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._known

    def encode(self, text: str, name: str = "the text") -> NDArray[np.unsignedinteger]:
        """TokenStore of the symbols of a text, in the narrowest unsigned integer type that holds the vocabulary.

        What has no symbol of its own becomes `UNKNOWN`, where that is one.

        Args:
            text: any text.
            name: what an error calls it.

        Raises:
            UnknownCharacterError: names the characters that are not in the vocabulary.
        """
        symbols = to_symbols(text, self.unit)
        ids = np.empty(len(symbols), dtype=self.dtype)
        for start in range(0, len(symbols), SLICE):
            found = self.ids_of(symbols[start : start + SLICE])
            if found.min(initial=0) < 0:
                alien = describe_all(self.split_unknown(text)[1])
                raise UnknownCharacterError(
                    name, f"the model never saw {alien}", "add --unknown skip to leave them out"
                )
            ids[start : start + SLICE] = found
        return ids

    def ids_of(self, symbols: str) -> NDArray[np.int32]:
        """The id of each symbol; of a character that is not there that of `UNKNOWN`, or -1."""
        codes = code_points(symbols)
        known = codes < len(self._ids)
        ids = np.where(known, self._ids[np.where(known, codes, 0)], np.int32(-1))
        if self.unknown_id is None:
            return ids
        return np.where((ids < 0) & (codes != ord(BOUNDARY)), np.int32(self.unknown_id), ids)

    def split_unknown(self, text: str) -> tuple[str, str]:
        """``text`` without the characters that have no symbol of their own, and those characters, each once."""
        kept, alien = self.split_unknown_symbols(to_symbols(text, self.unit))
        return to_text(kept, self.unit), alien

    def split_unknown_symbols(self, symbols: str) -> tuple[str, str]:
        """``symbols`` without those that are not in the vocabulary, and these, each once."""
        alien = unique_symbols(symbols) - self._known
        if not alien:
            return symbols, ""
        return "".join(symbol for symbol in symbols if symbol not in alien), "".join(sorted(alien))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; the inverse of `encode`."""
        return to_text(self.symbols_at(ids), self.unit)

    def symbols_at(self, ids: Iterable[int]) -> str:
        """The symbols with these ids."""
        return "".join([self.symbols[index] for index in ids])


def to_symbols(text: str, unit: Unit) -> str:
    """A text as symbols; of bytes those of its UTF-8, and those that Python could not decode as they were."""
    return text if unit == "char" else text.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")


def to_text(symbols: str, unit: Unit) -> str:
    """The inverse of `to_symbols`: bytes that are no UTF-8 stay escaped."""
    escapes = "surrogateescape"
    return symbols if unit == "char" else symbols.encode("ascii", escapes).decode("utf-8", escapes)


def unique_symbols(text: str) -> set[str]:
    """The symbols of a text, found by the piece, so that a signal is heard while a large text is read."""
    return set().union(*(text[start : start + SLICE] for start in range(0, len(text), SLICE)))


def code_points(symbols: str) -> NDArray[np.uint32]:
    """The code points of a string, lone surrogates among them."""
    return np.frombuffer(symbols.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32, copy=False)


def describe(symbol: str) -> str:
    """A symbol with its code point and name: ``'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)``, or ``byte 0xff``."""
    if symbol in (BOUNDARY, UNKNOWN):
        return "the end of a document" if symbol == BOUNDARY else "the unknown character"
    if "\udc80" <= symbol <= "\udcff":
        return f"byte 0x{ord(symbol) - 0xDC00:02x}"
    name = unicodedata.name(symbol, "")
    code = f"U+{ord(symbol):04X}"
    return f"'{symbol}' ({code} {name})" if name and symbol.isprintable() else f"{code} {name}".rstrip()


def describe_all(symbols: str) -> str:
    """The first few of some symbols, each as `describe` names it, and how many more there are."""
    more = f" and {len(symbols) - MAX_LISTED} more" if len(symbols) > MAX_LISTED else ""
    return ", ".join(map(describe, symbols[:MAX_LISTED])) + more
