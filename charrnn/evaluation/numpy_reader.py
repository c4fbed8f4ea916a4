"""The network of a model as a `SurprisalMeter` reads it: in NumPy, until torch is worth loading."""

from collections.abc import Callable

import numpy as np

from charrnn.checkpoint import Checkpoint
from charrnn.evaluation.surprisal import LANE_LENGTH, LANES, Marks, Nats, Places, Reader
from charrnn.rnn.numpy_rnn import NumPyRNN, State

LOADING = 2.5  # seconds that it takes to load torch and our kernels
# Seconds that NumPy takes, in a laptop's order of magnitude.
_PER_STEP, _PER_CHARACTER, _PER_PARAMETER = 6e-5, 5e-6, 3e-11


class Thrifty:
    """A network that knows how to read at once, and when to learn how to read fast; both say the same.

    See `charrnn.evaluation.surprisal.Reader`.

    Args:
        contents: the model.
        fast: gives the network in torch.
        expected: characters that will be read, as far as that is known.
    """

    def __init__(self, contents: Checkpoint, fast: Callable[[], Reader], expected: int = 0) -> None:
        self.vocabulary_size, self.boundary = len(contents.vocabulary), contents.vocabulary.boundary
        self._each = _PER_CHARACTER + _PER_PARAMETER * contents.model.parameters(self.vocabulary_size)
        self._stepper = NumPyRNN(contents.model, contents.tensors, "fp32")
        self._fast, self._spent = fast, 0.0
        lanes = max(1, min(LANES, expected // LANE_LENGTH))
        self._reader = fast() if self._seconds(expected // lanes, lanes) > LOADING else None

    def zero_state(self, streams: int) -> State:
        """The state of so many streams before their first symbol."""
        return self._stepper.zero_state(streams)

    def read(self, inputs: Places, targets: Places, fresh: Marks, state: State) -> tuple[Nats, State]:
        """Reads T symbols of B streams."""
        self._spent += self._seconds(*inputs.shape)
        if self._reader is None and self._spent > LOADING:
            self._reader = self._fast()
        if self._reader is not None:
            return self._reader.read(inputs, targets, fresh, state)
        nats = np.empty(inputs.shape, dtype=np.float32)
        streams = np.arange(inputs.shape[1])
        for ids, wanted, anew, row in zip(inputs, targets, fresh, nats, strict=True):
            if anew.any():
                kept = ~anew[:, None]
                state = tuple(tuple(part * kept for part in layer) for layer in state)
            logits, state = self._stepper.step(ids, state)
            most = logits.max(axis=1)
            row[:] = np.log(np.exp(logits - most[:, None]).sum(axis=1)) + most - logits[streams, wanted]
        return nats, state

    def _seconds(self, steps: int, streams: int) -> float:
        return steps * (_PER_STEP + streams * self._each)


def reader_of(contents: Checkpoint, expected: int = 0) -> Reader:
    """The network of a model on this processor; see `Thrifty`."""

    def fast() -> Reader:
        from charrnn.evaluation.torch_reader import torch_reader

        return torch_reader(contents)

    return Thrifty(contents, fast, expected)
