"""Characters and their ids: what a text is to the model.

A vocabulary is the distinct characters (Unicode code points) of a training text, sorted; the id of a character is its
place among them. Characters that are added later stand behind, so that ids stay what they are. Knows
nothing about files or networks.
"""

import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import UnknownCharacterError

PIECE = 1 << 20  # characters encoded at once, so that the four bytes a code point takes are never all there together
SHOWN = 8  # unknown characters named in an error before "and N more"


class Vocabulary:
    """A two-way map between characters and the ids 0 ... V-1.

    Args:
        characters: the distinct characters in the order of their ids.

    Raises:
        ValueError: a character stands twice, or is half of a surrogate pair, or there is none.
    """

    def __init__(self, characters: str) -> None:
        characters.encode("utf-8")  # or it could not be written
        codes = _codes(characters)
        if not characters or len(np.unique(codes)) != len(codes):
            raise ValueError("a vocabulary holds distinct characters, at least one")
        self.characters = characters
        self._codes = codes
        self._ids = np.full(int(codes.max()) + 1, -1, dtype=np.int32)  # indexed by code point
        self._ids[codes] = np.arange(len(codes), dtype=np.int32)
        self.dtype: np.dtype[np.unsignedinteger] = np.min_scalar_type(len(codes) - 1)

    @classmethod
    def of(cls, text: str) -> "Vocabulary":
        """The vocabulary of a text, sorted by code point."""
        return cls("".join(sorted(_distinct(text))))

    def extended(self, text: str) -> "Vocabulary":
        """This vocabulary with the characters of a text that it lacks, sorted, behind its own."""
        return Vocabulary(self.characters + self.split_unknown(text)[1])

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: object) -> bool:
        return isinstance(character, str) and len(character) == 1 and character in self.characters

    def encode(self, text: str, name: str = "the text") -> NDArray[np.unsignedinteger]:
        """Ids of the characters of a text, in the narrowest unsigned integer type that holds the vocabulary.

        Args:
            text: any text.
            name: what an error calls it.

        Raises:
            UnknownCharacterError: names the characters that are not in the vocabulary.
        """
        ids = np.empty(len(text), dtype=self.dtype)
        for start in range(0, len(text), PIECE):
            found = self._look_up(text[start : start + PIECE])
            if found.min(initial=0) < 0:
                alien = describe_all(self.split_unknown(text)[1])
                raise UnknownCharacterError(
                    name, f"the model never saw {alien}", "add --unknown skip to leave them out"
                )
            ids[start : start + PIECE] = found
        return ids

    def split_unknown(self, text: str) -> tuple[str, str]:
        """``text`` without the characters that are not in the vocabulary, and those characters, each once."""
        alien = _distinct(text) - set(self.characters)
        return "".join(character for character in text if character not in alien), "".join(sorted(alien))

    def decode(self, ids: Iterable[int]) -> str:
        """The characters with these ids; the inverse of `encode`."""
        return "".join([self.characters[index] for index in ids])

    def _look_up(self, text: str) -> NDArray[np.int32]:
        codes = _codes(text)
        known = codes < len(self._ids)
        return np.where(known, self._ids[np.where(known, codes, 0)], np.int32(-1))


def _distinct(text: str) -> set[str]:
    """Counted by the piece, so that a signal is heard while a large text is read."""
    return set().union(*(text[start : start + PIECE] for start in range(0, len(text), PIECE)))


def describe(character: str) -> str:
    """A character with its code point and name: ``'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)``."""
    name = unicodedata.name(character, "")
    code = f"U+{ord(character):04X}"
    return f"'{character}' ({code} {name})" if name and character.isprintable() else f"{code} {name}".rstrip()


def describe_all(characters: str) -> str:
    """The first few of some characters, each as `describe` names it, and how many more there are."""
    more = f" and {len(characters) - SHOWN} more" if len(characters) > SHOWN else ""
    return ", ".join(map(describe, characters[:SHOWN])) + more


def _codes(text: str) -> NDArray[np.uint32]:
    """The code points of a text; lone surrogates pass, as Python's own strings let them."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32, copy=False)
