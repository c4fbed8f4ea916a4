"""TokenStore in the order in which the network reads them: B contiguous streams, T time steps at a time.

A text of n ids has n-1 (symbol, next symbol) pairs. They are dealt to the streams as B runs of equal length; each
chunk holds the next T pairs of every stream. All chunks have one shape, because oneDNN and CUDA prepare a kernel per
shape: what juts out over the end of a stream is padding, whose target is `IGNORE_INDEX`. So in one epoch every pair is
read exactly once. Documents come in another order in every epoch, which follows from the seed and the epoch's number;
so where the streams are is told by the number of steps and nothing else.
"""

import math

import numpy as np
from numpy.typing import NDArray

from charrnn.data.token_view import TokenView

IGNORE_INDEX = -1  # the target of padding; the loss leaves it out
LOOKAHEAD_STEPS = 1024  # time steps that are looked up at once


class StreamLoader:
    """A text of n >= 2 ids cut into B contiguous streams and chunks of T time steps.

    Args:
        text: the ids.
        batch_size: B.
        seq_length: T.
        seed: of the order of documents.

    Attributes:
        num_targets: how many symbols are predicted in one epoch.
        stream_length: pairs of the longest stream; the last streams may be shorter.
        steps_per_epoch: steps of one epoch.
    """

    def __init__(self, text: TokenView, batch_size: int, seq_length: int, seed: int = 0) -> None:
        self._text, self._seed = text, seed
        self._batch_size, self._seq_length = batch_size, seq_length
        self.num_targets = len(text) - 1
        self.stream_length = math.ceil(self.num_targets / batch_size)
        self.steps_per_epoch = math.ceil(self.stream_length / seq_length)
        self._chunks_ahead = max(1, min(LOOKAHEAD_STEPS // seq_length, self.steps_per_epoch))
        self._ahead_of, self._ahead = (-1, -1), (np.empty((0, 0), np.int64),) * 2  # the chunks that were looked up
        self._epoch = -1
        self._in_order = text  # of the present epoch

    def get_batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets of a step, both (T, B)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._in_order = epoch, self._text.shuffled(self._seed, epoch)
        window, offset = divmod(index, self._chunks_ahead)
        if self._ahead_of != (epoch, window):
            self._ahead_of, self._ahead = (epoch, window), self._look_ahead(window)
        begin = offset * self._seq_length
        inputs, targets = (part[begin : begin + self._seq_length].copy() for part in self._ahead)
        return inputs, targets

    def _look_ahead(self, window: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets of several chunks, one behind the other: to look for each alone would take longer."""
        length = self._chunks_ahead * self._seq_length
        time = window * length + np.arange(length + 1)[:, None]  # (length + 1, 1) within the stream
        place = time + self.stream_length * np.arange(self._batch_size)  # (length + 1, B) within the text
        ids = self._in_order.take(np.minimum(place, self.num_targets))
        targets = np.where(
            (time < self.stream_length) & (place < self.num_targets), np.roll(ids, -1, axis=0), IGNORE_INDEX
        )
        return ids[:-1], targets[:-1]
