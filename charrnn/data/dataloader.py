"""Loads a text in B contiguous streams, in chunks of T time steps.

A text of n ids has n-1 (symbol, next symbol) pairs. They are cut into B consecutive parts of equal length, the
streams. A chunk contains the next T pairs of every stream. All chunks have the same shape, because oneDNN and CUDA
prepare a kernel for each shape. Positions past the end of a stream are padding, with `IGNORE_INDEX` as the target.
An epoch reads every pair exactly once.

Documents are shuffled in every epoch, in an order that depends on the seed and the epoch only. So a run that resumes
needs only the step number to continue at the same position.
"""

import math

import numpy as np
from numpy.typing import NDArray

from charrnn.data.token_view import TokenView

IGNORE_INDEX = -1  # target of padding; the loss ignores it
LOOKAHEAD_STEPS = 1024  # time steps that are read from the text at once


class StreamLoader:
    """Loader of batches from a text of n >= 2 ids.

    Args:
        text: The ids.
        batch_size: B, the number of streams.
        seq_length: T, the time steps of a chunk.
        seed: Seed of the document order.

    Attributes:
        num_targets: Number of symbols that an epoch predicts.
        stream_length: Number of pairs in the longest stream. The last streams may be shorter.
        steps_per_epoch: Number of chunks in an epoch.
    """

    def __init__(self, text: TokenView, batch_size: int, seq_length: int, seed: int = 0) -> None:
        self._text, self._seed = text, seed
        self._batch_size, self._seq_length = batch_size, seq_length
        self.num_targets = len(text) - 1
        self.stream_length = math.ceil(self.num_targets / batch_size)
        self.steps_per_epoch = math.ceil(self.stream_length / seq_length)
        self._window_chunks = max(1, min(LOOKAHEAD_STEPS // seq_length, self.steps_per_epoch))
        self._window_key, self._window = (-1, -1), (np.empty((0, 0), np.int64),) * 2  # (epoch, window) and its arrays
        self._epoch = -1
        self._shuffled = text  # in the order of the current epoch

    def get_batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the inputs and targets of a step, both (T, B)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._shuffled = epoch, self._text.shuffled(self._seed, epoch)
        window, offset = divmod(index, self._window_chunks)
        if self._window_key != (epoch, window):
            self._window_key, self._window = (epoch, window), self._read_window(window)
        start = offset * self._seq_length
        inputs, targets = (array[start : start + self._seq_length].copy() for array in self._window)
        return inputs, targets

    def _read_window(self, window: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the inputs and targets of several consecutive chunks. Reading chunks one by one is slower."""
        length = self._window_chunks * self._seq_length
        time = window * length + np.arange(length + 1)[:, None]  # (length + 1, 1), position in the stream
        position = time + self.stream_length * np.arange(self._batch_size)  # (length + 1, B), position in the text
        ids = self._shuffled.take(np.minimum(position, self.num_targets))
        targets = np.where(
            (time < self.stream_length) & (position < self.num_targets), np.roll(ids, -1, axis=0), IGNORE_INDEX
        )
        return ids[:-1], targets[:-1]
