"""A text as ids, with its vocabulary, its documents, and the split into training and validation text.

``corpus_reader.py`` creates it.
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

_SPLIT_SEED = 0  # constant, so the validation documents do not depend on the seed of a run


@dataclass(frozen=True)
class Corpus:
    """A text as ids.

    The stored ids number the symbols in the order of first occurrence, because the vocabulary is not known until the
    text has been read. A table converts them to the ids of the vocabulary.
    """

    name: str  # default name of a model trained on this text
    display_name: str  # name of the text in error messages
    read_config: ReadConfig
    stored_ids: TokenStore  # (n,)
    counts: Mapping[str, int]  # occurrences of each symbol, in the order of the stored ids
    vocabulary: Vocabulary
    sha256: str  # digest of the text in UTF-8, or of the bytes
    document_starts: NDArray[np.int64]  # recorded positions, see `DocumentStarts`; empty without documents
    num_documents: int = 0
    longest_document: int = 0  # length in symbols
    decoding_stats: DecodingStats = field(default_factory=DecodingStats)
    cached: bool = False  # whether the ids come from the cache
    identities: tuple[tuple[File, object], ...] = ()  # the first files, with their identities when they were read

    @property
    def characters(self) -> int:
        """Number of characters or bytes, without document boundaries."""
        return sum(self.counts.values()) - self.counts.get(BOUNDARY, 0)

    def with_vocabulary(self, vocabulary: Vocabulary) -> "Corpus":
        """Return the same text with another vocabulary.

        Raises:
            UnknownCharacterError: If the text has symbols that are not in the vocabulary.
        """
        symbols = "".join(self.counts)
        if unknown := sorted(symbols[index] for index in np.flatnonzero(vocabulary.ids_of(symbols) < 0)):
            reason = f"the model never saw {describe_all(''.join(unknown))}"
            raise UnknownCharacterError(self.display_name, reason, "add --unknown skip to leave them out")
        return replace(self, vocabulary=vocabulary)

    def tokens(self) -> TokenView:
        """Return all ids, in the order of the text."""
        return TokenView.contiguous(self.stored_ids, self._table())

    def split(self, validation_size: int) -> tuple[TokenView, TokenView]:
        """Return the training text and the validation text.

        The validation text is a random subset of the documents, whatever the seed of the run. If there are no
        documents, or only a few long ones, it is the end of the text, even if that cuts a document.

        Args:
            validation_size: Approximate length of the validation text in symbols.
        """
        table, split_index = self._table(), len(self.stored_ids) - validation_size
        if not len(self.document_starts):
            return TokenView.contiguous(self.stored_ids, table, 0, split_index), TokenView.contiguous(
                self.stored_ids, table, split_index
            )
        closing_index = len(self.stored_ids) - 1
        lengths = np.diff(np.append(self.document_starts, closing_index))
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(self.document_starts))
        order = order[lengths[order] <= validation_size]
        num_held_out = int(np.searchsorted(np.cumsum(lengths[order]), validation_size)) + 1
        held_out = np.zeros(len(self.document_starts), dtype=bool)
        if num_held_out <= min(len(order), len(self.document_starts) - 1) and validation_size:
            held_out[order[:num_held_out]] = True
            validation = TokenView(
                self.stored_ids, table, self.document_starts[held_out], lengths[held_out], closing_index
            )
        else:  # few long documents
            lengths = np.minimum(lengths, np.maximum(0, split_index - self.document_starts))
            held_out = lengths == 0
            validation = TokenView.contiguous(self.stored_ids, table, split_index)
        training = TokenView(
            self.stored_ids, table, self.document_starts[~held_out], lengths[~held_out], closing_index
        )
        return training, validation

    def check(self) -> None:
        """Check that the stored ids were not changed.

        Raises:
            FileError: If the file with the ids was changed.
        """
        if isinstance(self.stored_ids, FileTokens):
            self.stored_ids.check()

    def changed(self) -> str:
        """Return the name of a file that changed since it was read, or "". Checks the first files only."""
        for file, identity in self.identities:
            if file.identity != identity:
                return file.name
        return ""

    def _table(self) -> NDArray[np.int32]:
        """Return the vocabulary id of each stored id."""
        return self.vocabulary.ids_of("".join(self.counts))
