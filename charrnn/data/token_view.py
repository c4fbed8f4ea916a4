"""A text as the network reads it: ids at positions, whatever they are stored as and in whatever order.

A text is a number of runs of stored ids, one behind the other: a single one for a text that is read as it stands, one
for each document where documents are shuffled. Knows nothing about files.
"""

import numpy as np
from numpy.typing import NDArray

from charrnn.data.token_store import TokenStore

_Places = NDArray[np.int64]


class TokenView:
    """TokenStore by their positions 0 ... n-1.

    Args:
        stored: numbers of symbols.
        table: the id that each number stands for.
        starts: where in ``stored`` the runs begin, in the order in which they are read.
        lengths: of the runs.
        closing: where in ``stored`` the one id lies with which the text ends, behind the last run; None adds none.

    Attributes:
        runs: how many there are.
    """

    def __init__(
        self,
        stored: TokenStore,
        table: NDArray[np.integer],
        starts: _Places,
        lengths: _Places,
        closing: int | None = None,
    ) -> None:
        self._stored, self._table = stored, table.astype(np.int64)
        self._lengths, self._closing = lengths, closing
        ends = np.cumsum(lengths)
        self._starts, self.runs = starts, len(starts)
        if closing is not None:
            starts, ends = np.append(starts, closing), np.append(ends, ends[-1] + 1 if len(ends) else 1)
        self._ends = ends
        self._shifts = starts - np.concatenate([[0], ends[:-1]])  # from a position to its place
        self._length = int(ends[-1]) if len(ends) else 0

    @classmethod
    def contiguous(
        cls, stored: TokenStore, table: NDArray[np.integer], begin: int = 0, end: int | None = None
    ) -> "TokenView":
        """A text that is read as it stands, from one place to another."""
        length = (len(stored) if end is None else end) - begin
        return cls(stored, table, np.array([begin]), np.array([length]))

    def __len__(self) -> int:
        return self._length

    def take(self, positions: NDArray[np.integer], /) -> NDArray[np.int64]:
        """The ids at these positions, of the same shape (T, B) or (N,)."""
        shifts: NDArray[np.int64] | np.int64 = self._shifts[0]
        if len(self._shifts) > 1:
            shifts = self._shifts[self._runs_at(positions)]
        return self._table.take(self._stored.take(positions + shifts))

    def shuffled(self, *seed: int) -> "TokenView":
        """The same runs in an order that follows from the numbers of a seed."""
        if self.runs < 2:
            return self
        order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(self.runs)
        return TokenView(self._stored, self._table, self._starts[order], self._lengths[order], self._closing)

    def _runs_at(self, positions: NDArray[np.integer]) -> NDArray[np.intp]:
        """Which run each position is in; neighbours along the first axis are looked for one after the other."""
        along = np.ascontiguousarray(positions.T)
        return np.searchsorted(self._ends, along, side="right").T
