"""Ids in the order in which the network reads them: B contiguous streams, T time steps at a time.

A text of n ids has n-1 (character, next character) pairs. They are dealt to the streams as B runs of equal length;
each chunk holds the next T pairs of every stream. All chunks have one shape, because oneDNN and CUDA prepare a
kernel per shape: what juts out over the end of a stream is padding, whose target is `IGNORED`. So in one epoch every
pair is read exactly once. A cursor is the number of the next chunk and nothing else.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = -1  # the target of padding; the loss leaves it out


@dataclass(frozen=True)
class Streams:
    """A text of n >= 2 ids cut into B contiguous streams and chunks of T time steps."""

    ids: NDArray[np.unsignedinteger]  # (n,)
    batch_size: int  # B
    seq_length: int  # T

    @property
    def pairs(self) -> int:
        """How many characters are predicted in one epoch."""
        return len(self.ids) - 1

    @property
    def stream_length(self) -> int:
        """Pairs of the longest stream; the last streams may be shorter."""
        return math.ceil(self.pairs / self.batch_size)

    @property
    def chunks(self) -> int:
        """Chunks in one epoch."""
        return math.ceil(self.stream_length / self.seq_length)

    def chunk(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets of chunk ``index`` of an epoch, both (T, B)."""
        time = index * self.seq_length + np.arange(self.seq_length)[:, None]  # (T, 1) within the stream
        place = time + self.stream_length * np.arange(self.batch_size)  # (T, B) within the text
        inputs = self.ids.take(place, mode="clip").astype(np.int64)
        targets = self.ids.take(place + 1, mode="clip").astype(np.int64)
        targets[(time >= self.stream_length) | (place >= self.pairs)] = IGNORED
        return inputs, targets
