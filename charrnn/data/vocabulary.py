"""Symbols and their ids.

A symbol is a code point, so a sequence of symbols is a string. The symbol of a character is the character. The symbol
of a byte is the ASCII character if the byte is below 128, and otherwise U+DC00 plus the byte, as in Python's
surrogateescape. `BOUNDARY` is a document boundary and `UNKNOWN` the unknown character. These and the higher bytes are
lone surrogates, which no valid text contains.

A vocabulary contains the symbols of a training text in sorted order. The id of a symbol is its index. Symbols that
are added later are appended, so existing ids do not change.
"""

import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from charrnn.config import Unit
from charrnn.errors import UnknownCharacterError

BOUNDARY = "\udf00"  # beginning and end of a document
UNKNOWN = "\udf01"  # stands for every character that is too rare for the vocabulary
BYTES = bytes(range(256)).decode("ascii", "surrogateescape")
SLICE = 1 << 20  # characters that are encoded at once; limits memory, as each code point takes four bytes
MAX_LISTED = 8  # unknown characters that an error lists before "and N more"


class Vocabulary:
    """A bidirectional mapping between symbols and the ids 0 ... V-1.

    Args:
        symbols: Distinct symbols in the order of their ids.
        unit: Unit of the symbols.

    Attributes:
        boundary_id: Id of `BOUNDARY`, or None.
        unknown_id: Id of `UNKNOWN`, or None.

    Raises:
        ValueError: If there is no symbol, a symbol occurs twice, or a symbol is invalid for the unit.
    """

    def __init__(self, symbols: str, unit: Unit = "char") -> None:
        ordinary = symbols.replace(BOUNDARY, "").replace(UNKNOWN, "")
        ordinary.encode("utf-8" if unit == "char" else "ascii", "strict" if unit == "char" else "surrogateescape")
        codes = code_points(symbols)
        if not ordinary or len(np.unique(codes)) != len(codes):
            raise ValueError("a vocabulary needs one or more distinct symbols")
        self.symbols, self.unit = symbols, unit
        self.boundary_id, self.unknown_id = (
            symbols.index(special) if special in symbols else None for special in (BOUNDARY, UNKNOWN)
        )
        self._symbol_set = set(symbols)
        self._ids = np.full(int(codes.max()) + 1, -1, dtype=np.int32)  # indexed by code point
        self._ids[codes] = np.arange(len(codes), dtype=np.int32)
        self.dtype: np.dtype[np.unsignedinteger] = np.min_scalar_type(len(codes) - 1)

    @classmethod
    def from_text(cls, text: str, unit: Unit = "char") -> "Vocabulary":
        """Return the vocabulary of a text, sorted by code point."""
        return cls.from_counts(dict.fromkeys(to_symbols(text, unit), 1), unit)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], unit: Unit = "char", min_count: int = 1) -> "Vocabulary":
        """Return the vocabulary of a text with these symbol counts.

        A vocabulary of bytes contains all 256 bytes.

        Args:
            counts: Number of occurrences of each symbol.
            unit: Unit of the symbols.
            min_count: Minimum number of occurrences. Rarer characters become `UNKNOWN`.
        """
        if unit == "byte":
            return cls(BYTES + BOUNDARY * (BOUNDARY in counts), unit)
        frequent = sorted(symbol for symbol in counts if counts[symbol] >= min_count or symbol == BOUNDARY)
        return cls("".join(frequent) + UNKNOWN * (len(frequent) < len(counts)), unit)

    def extended(self, symbols: Iterable[str]) -> "Vocabulary":
        """Return this vocabulary with new symbols appended in sorted order. Symbols that it contains are ignored."""
        return Vocabulary(self.symbols + "".join(sorted(set(symbols) - self._symbol_set)), self.unit)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._symbol_set

    def encode(self, text: str, name: str = "the text") -> NDArray[np.unsignedinteger]:
        """Return the ids of a text, in the smallest unsigned integer type that fits the vocabulary.

        Characters that are not in the vocabulary become `UNKNOWN`, if the vocabulary contains it.

        Args:
            text: The text.
            name: Name of the text in error messages.

        Raises:
            UnknownCharacterError: If a character is not in the vocabulary and there is no `UNKNOWN`. The error lists
                the characters.
        """
        symbols = to_symbols(text, self.unit, name)
        ids = np.empty(len(symbols), dtype=self.dtype)
        for start in range(0, len(symbols), SLICE):
            slice_ids = self.ids_of(symbols[start : start + SLICE])
            if slice_ids.min(initial=0) < 0:
                unknown = describe_all(self.split_unknown(text)[1])
                raise UnknownCharacterError(
                    name, f"the model never saw {unknown}", "add --unknown skip to leave them out"
                )
            ids[start : start + SLICE] = slice_ids
        return ids

    def ids_of(self, symbols: str) -> NDArray[np.int32]:
        """Return the id of each symbol. A symbol that is not in the vocabulary gets the id of `UNKNOWN`, or -1."""
        codes = code_points(symbols)
        in_range = codes < len(self._ids)
        ids = np.where(in_range, self._ids[np.where(in_range, codes, 0)], np.int32(-1))
        if self.unknown_id is None:
            return ids
        return np.where((ids < 0) & (codes != ord(BOUNDARY)), np.int32(self.unknown_id), ids)

    def split_unknown(self, text: str) -> tuple[str, str]:
        """Return the text without unknown characters, and the distinct unknown characters."""
        known, unknown = self.split_unknown_symbols(to_symbols(text, self.unit))
        return to_text(known, self.unit), unknown

    def split_unknown_symbols(self, symbols: str) -> tuple[str, str]:
        """Return the symbols that are in the vocabulary, and the distinct ones that are not."""
        unknown = unique_symbols(symbols) - self._symbol_set
        if not unknown:
            return symbols, ""
        return "".join(symbol for symbol in symbols if symbol not in unknown), "".join(sorted(unknown))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of these ids. The inverse of `encode`."""
        return to_text(self.symbols_at(ids), self.unit)

    def symbols_at(self, ids: Iterable[int]) -> str:
        """Return the symbols with these ids."""
        return "".join([self.symbols[index] for index in ids])


def to_symbols(text: str, unit: Unit, name: str = "the text") -> str:
    """Return the symbols of a text: its characters, or the bytes of its UTF-8.

    Args:
        text: The text.
        unit: Unit of the symbols.
        name: Name of the text in error messages.

    Raises:
        UnknownCharacterError: If the unit is a byte, and the text contains half of a surrogate pair.
    """
    if unit == "char":
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        advice = "decode the text with the right encoding"
        raise UnknownCharacterError(name, "contains half of a surrogate pair", advice) from None


def to_text(symbols: str, unit: Unit) -> str:
    """Return the text of symbols. The inverse of `to_symbols`; bytes that are invalid UTF-8 stay escaped."""
    escapes = "surrogateescape"
    return symbols if unit == "char" else symbols.encode("ascii", escapes).decode("utf-8", escapes)


def unique_symbols(text: str) -> set[str]:
    """Return the distinct symbols of a text. Works in slices, so Ctrl-C is handled in between."""
    return set().union(*(text[start : start + SLICE] for start in range(0, len(text), SLICE)))


def code_points(symbols: str) -> NDArray[np.uint32]:
    """Return the code points of a string, including lone surrogates."""
    return np.frombuffer(symbols.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32, copy=False)


def describe(symbol: str) -> str:
    """Return a description such as ``'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)`` or ``byte 0xff``."""
    if symbol in (BOUNDARY, UNKNOWN):
        return "the end of a document" if symbol == BOUNDARY else "the unknown character"
    if "\udc80" <= symbol <= "\udcff":
        return f"byte 0x{ord(symbol) - 0xDC00:02x}"
    name = unicodedata.name(symbol, "")
    code = f"U+{ord(symbol):04X}"
    return f"'{symbol}' ({code} {name})" if name and symbol.isprintable() else f"{code} {name}".rstrip()


def describe_all(symbols: str) -> str:
    """Return the descriptions of the first symbols, and the number of further ones."""
    more = f" and {len(symbols) - MAX_LISTED} more" if len(symbols) > MAX_LISTED else ""
    return ", ".join(map(describe, symbols[:MAX_LISTED])) + more
