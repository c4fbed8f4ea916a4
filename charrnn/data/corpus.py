"""A text ready to be learned: its ids, the vocabulary that they are of, its documents, and where training ends.

``reading.py`` makes it. Knows nothing about networks or batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ReadConfig
from charrnn.data.decoding import Noticed
from charrnn.data.sources import File
from charrnn.data.token_store import Ids, OnDisk
from charrnn.data.token_view import Text
from charrnn.data.vocabulary import BOUNDARY, Vocabulary, describe_all
from charrnn.errors import UnknownCharacterError

_SPLIT_SEED = 0  # the same documents are held out whatever the seed of the run


@dataclass(frozen=True)
class Corpus:
    """A text in ids, with its identity."""

    name: str  # what a model trained on it is called, unless told otherwise
    label: str  # what an error calls it
    config: ReadConfig
    stored: Ids  # (n,), the numbers of symbols in the order in which they came
    counts: Mapping[str, int]  # of each symbol, in that order
    vocabulary: Vocabulary
    sha256: str  # of the text in UTF-8, or of the bytes, as they were read
    starts: NDArray[np.int64]  # places where documents begin, or every few of them; none without documents
    documents: int = 0
    longest: int = 0  # symbols of the longest document
    noticed: Noticed = field(default_factory=Noticed)
    cached: bool = False  # found, and not read
    identities: tuple[tuple[File, object], ...] = ()  # of the first few files, when they were read

    @property
    def characters(self) -> int:
        """How many there are, or bytes; ends of documents are none."""
        return sum(self.counts.values()) - self.counts.get(BOUNDARY, 0)

    def with_vocabulary(self, vocabulary: Vocabulary) -> "Corpus":
        """The same text in another vocabulary.

        Raises:
            UnknownCharacterError: it holds symbols that are not in it.
        """
        symbols = "".join(self.counts)
        if alien := sorted(symbols[index] for index in np.flatnonzero(vocabulary.ids_of(symbols) < 0)):
            reason = f"the model never saw {describe_all(''.join(alien))}"
            raise UnknownCharacterError(self.label, reason, "add --unknown skip to leave them out")
        return replace(self, vocabulary=vocabulary)

    def text(self) -> Text:
        """All of it, in its own order."""
        return Text.whole(self.stored, self._table())

    def split(self, validation: int) -> tuple[Text, Text]:
        """The text to train on, and about so many symbols to measure on.

        Of documents these are some chosen at random, the same ones whatever the seed of a run; of a text those at its
        end, and so where documents are few and long, of which one is cut then.
        """
        table, border = self._table(), len(self.stored) - validation
        if not len(self.starts):
            return Text.whole(self.stored, table, 0, border), Text.whole(self.stored, table, border)
        closing = len(self.stored) - 1
        lengths = np.diff(np.append(self.starts, closing))
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(self.starts))
        order = order[lengths[order] <= validation]
        enough = int(np.searchsorted(np.cumsum(lengths[order]), validation)) + 1
        held = np.zeros(len(self.starts), dtype=bool)
        if enough <= min(len(order), len(self.starts) - 1) and validation:
            held[order[:enough]] = True
            measured = Text(self.stored, table, self.starts[held], lengths[held], closing)
        else:  # a few long ones
            lengths = np.minimum(lengths, np.maximum(0, border - self.starts))
            held = lengths == 0
            measured = Text.whole(self.stored, table, border)
        return Text(self.stored, table, self.starts[~held], lengths[~held], closing), measured

    def check(self) -> None:
        """Makes sure that the ids are still those that were read.

        Raises:
            FileError: their file was changed.
        """
        if isinstance(self.stored, OnDisk):
            self.stored.check()

    def changed(self) -> str:
        """The name of a file that is not what it was when it was read; of many, the first few are looked at."""
        for file, identity in self.identities:
            if file.identity != identity:
                return file.name
        return ""

    def _table(self) -> NDArray[np.int32]:
        return self.vocabulary.ids_of("".join(self.counts))
