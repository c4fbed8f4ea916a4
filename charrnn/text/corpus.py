"""A text as the network reads it: one array of ids, the vocabulary that made them, and where training ends.

Knows nothing about files (``sources.py`` reads them) or batches (``streams.py`` cuts them).
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import CorpusError
from charrnn.text.sources import Source
from charrnn.text.vocabulary import Vocabulary

Ids = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Corpus:
    """A text in ids, with its identity."""

    name: str  # what a model trained on it is called, unless told otherwise
    ids: Ids  # (characters,)
    vocabulary: Vocabulary
    sha256: str  # `sha256_of` the text

    @classmethod
    def of(cls, source: Source, vocabulary: Vocabulary | None = None) -> "Corpus":
        """Encodes a text, in its own vocabulary if none is given.

        Raises:
            CorpusError: fewer than two characters to predict from, or a text that cannot be written.
            UnknownCharacterError: it holds characters that are not in ``vocabulary``.
        """
        name = ", ".join(source.files)
        if len(source.text) < 2:
            reason = "holds fewer than two characters, so there is nothing to predict"
            raise CorpusError(name, reason, "give a longer text")
        digest = sha256_of(source)
        vocabulary = vocabulary or Vocabulary.of(source.text)
        return cls(source.name, vocabulary.encode(source.text, name), vocabulary, digest)

    def split(self, validation: int) -> tuple[Ids, Ids]:
        """The ids to train on, and the last ``validation`` ids, to measure on."""
        border = len(self.ids) - validation
        return self.ids[:border], self.ids[border:]


def sha256_of(source: Source) -> str:
    """The identity of a text: of its characters in UTF-8, after line endings were made one.

    Raises:
        CorpusError: it cannot be written.
    """
    try:
        return hashlib.sha256(source.text.encode("utf-8")).hexdigest()
    except UnicodeEncodeError:
        name = ", ".join(source.files)
        raise CorpusError(name, "holds half of a surrogate pair", "decode the text with its encoding") from None
