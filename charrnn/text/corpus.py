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
    sha256: str  # of the text in UTF-8, after line endings were made one

    @classmethod
    def of(cls, source: Source) -> "Corpus":
        """Builds the vocabulary of a text and encodes it.

        Raises:
            CorpusError: a single character, in which nothing is to be predicted.
        """
        if len(source.text) < 2:
            reason = "holds a single character, so there is nothing to predict"
            raise CorpusError(", ".join(source.files), reason, "give a longer text")
        vocabulary = Vocabulary.of(source.text)
        digest = hashlib.sha256(source.text.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(source.name, vocabulary.encode(source.text), vocabulary, digest)

    def split(self, validation: int) -> tuple[Ids, Ids]:
        """The ids to train on, and the last ``validation`` ids, to measure on."""
        border = len(self.ids) - validation
        return self.ids[:border], self.ids[border:]
