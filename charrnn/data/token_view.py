"""A text as the network reads it: ids by position, in any order of documents.

The stored ids are read in runs. A plain text is a single run. If documents are shuffled, each document is a run.
"""

import numpy as np
from numpy.typing import NDArray

from charrnn.data.token_store import TokenStore

_Indices = NDArray[np.int64]


class TokenView:
    """Ids at the positions 0 ... n-1 of a text.

    Args:
        stored: Stored ids.
        table: Vocabulary id of each stored id.
        starts: Index in ``stored`` of the start of each run, in reading order.
        lengths: Length of each run.
        closing_index: Index in ``stored`` of the boundary that follows the last run; None adds no boundary.

    Attributes:
        num_runs: Number of runs.
    """

    def __init__(
        self,
        stored: TokenStore,
        table: NDArray[np.integer],
        starts: _Indices,
        lengths: _Indices,
        closing_index: int | None = None,
    ) -> None:
        self._stored, self._table = stored, table.astype(np.int64)
        self._lengths, self._closing_index = lengths, closing_index
        ends = np.cumsum(lengths)
        self._starts, self.num_runs = starts, len(starts)
        if closing_index is not None:
            starts, ends = np.append(starts, closing_index), np.append(ends, ends[-1] + 1 if len(ends) else 1)
        self._ends = ends
        self._shifts = starts - np.concatenate([[0], ends[:-1]])  # index in `stored` minus position, of each run
        self._length = int(ends[-1]) if len(ends) else 0

    @classmethod
    def contiguous(
        cls, stored: TokenStore, table: NDArray[np.integer], begin: int = 0, end: int | None = None
    ) -> "TokenView":
        """Return a view of consecutive stored ids, from ``begin`` up to ``end``."""
        length = (len(stored) if end is None else end) - begin
        return cls(stored, table, np.array([begin]), np.array([length]))

    def __len__(self) -> int:
        return self._length

    def take(self, positions: NDArray[np.integer], /) -> NDArray[np.int64]:
        """Return the ids at these positions, in the same shape (T, B) or (N,)."""
        shifts: NDArray[np.int64] | np.int64 = self._shifts[0]
        if len(self._shifts) > 1:
            shifts = self._shifts[self._runs_at(positions)]
        return self._table.take(self._stored.take(positions + shifts))

    def shuffled(self, *seed: int) -> "TokenView":
        """Return a view of the same runs in an order that depends on the seed."""
        if self.num_runs < 2:
            return self
        order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(self.num_runs)
        return TokenView(self._stored, self._table, self._starts[order], self._lengths[order], self._closing_index)

    def _runs_at(self, positions: NDArray[np.integer]) -> NDArray[np.intp]:
        """Return the index of the run at each position."""
        transposed = np.ascontiguousarray(positions.T)  # searching for consecutive positions in order is faster
        return np.searchsorted(self._ends, transposed, side="right").T
