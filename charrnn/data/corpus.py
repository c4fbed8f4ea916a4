"""A text ready to be learned: its ids, the vocabulary that they are of, its documents, and where training ends.

``corpus_reader.py`` makes it. Knows nothing about networks or batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ReadConfig
from charrnn.data.decoding import DecodingStats
from charrnn.data.sources import File
from charrnn.data.token_store import FileTokens, TokenStore
from charrnn.data.token_view import TokenView
from charrnn.data.vocabulary import BOUNDARY, Vocabulary, describe_all
from charrnn.errors import UnknownCharacterError

_SPLIT_SEED = 0  # the same documents are held out whatever the seed of the run


@dataclass(frozen=True)
class Corpus:
    """A text in ids, with its identity."""

    name: str  # what a model trained on it is called, unless told otherwise
    display_name: str  # what an error calls it
    read_config: ReadConfig
    stored_ids: TokenStore  # (n,), the numbers of symbols in the order in which they came
    counts: Mapping[str, int]  # of each symbol, in that order
    vocabulary: Vocabulary
    sha256: str  # of the text in UTF-8, or of the bytes, as they were read
    document_starts: NDArray[np.int64]  # places where documents begin, or every few of them; none without documents
    num_documents: int = 0
    longest_document: int = 0  # symbols of the longest document
    decoding_stats: DecodingStats = field(default_factory=DecodingStats)
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
            raise UnknownCharacterError(self.display_name, reason, "add --unknown skip to leave them out")
        return replace(self, vocabulary=vocabulary)

    def tokens(self) -> TokenView:
        """All of it, in its own order."""
        return TokenView.contiguous(self.stored_ids, self._table())

    def split(self, validation: int) -> tuple[TokenView, TokenView]:
        """The text to train on, and about so many symbols to measure on.

        Of documents these are some chosen at random, the same ones whatever the seed of a run; of a text those at its
        end, and so where documents are few and long, of which one is cut then.
        """
        table, border = self._table(), len(self.stored_ids) - validation
        if not len(self.document_starts):
            return TokenView.contiguous(self.stored_ids, table, 0, border), TokenView.contiguous(
                self.stored_ids, table, border
            )
        closing = len(self.stored_ids) - 1
        lengths = np.diff(np.append(self.document_starts, closing))
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(self.document_starts))
        order = order[lengths[order] <= validation]
        enough = int(np.searchsorted(np.cumsum(lengths[order]), validation)) + 1
        held = np.zeros(len(self.document_starts), dtype=bool)
        if enough <= min(len(order), len(self.document_starts) - 1) and validation:
            held[order[:enough]] = True
            measured = TokenView(self.stored_ids, table, self.document_starts[held], lengths[held], closing)
        else:  # a few long ones
            lengths = np.minimum(lengths, np.maximum(0, border - self.document_starts))
            held = lengths == 0
            measured = TokenView.contiguous(self.stored_ids, table, border)
        return TokenView(self.stored_ids, table, self.document_starts[~held], lengths[~held], closing), measured

    def check(self) -> None:
        """Makes sure that the ids are still those that were read.

        Raises:
            FileError: their file was changed.
        """
        if isinstance(self.stored_ids, FileTokens):
            self.stored_ids.check()

    def changed(self) -> str:
        """The name of a file that is not what it was when it was read; of many, the first few are looked at."""
        for file, identity in self.identities:
            if file.identity != identity:
                return file.name
        return ""

    def _table(self) -> NDArray[np.int32]:
        return self.vocabulary.ids_of("".join(self.counts))
