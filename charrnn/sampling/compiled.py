"""The network of ``stepper.py`` by compiled code (``kernel.py``), the streams shared out among the processor's cores.

Importing this module raises ImportError where Numba is missing, and `Compiled` does where it cannot compile.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numba.core.errors import NumbaError
from numpy.typing import NDArray

from charrnn.config import Cell, ModelConfig
from charrnn.sampling import kernel
from charrnn.sampling.rounding import levels, rounded
from charrnn.sampling.stepper import Array, Ids, State, arrange

_KINDS: dict[Cell, int] = {"lstm": kernel.LSTM, "gru": kernel.GRU, "rnn": kernel.RNN}
_FEWEST = 4  # streams that are worth a core of their own

_Matrix = tuple[NDArray[np.int8], Array, Array]  # weights (R, K), scales (R,), biases (R,), padded


class Compiled:
    """Reads and chooses characters of many streams.

    Args:
        config: the network's shape.
        tensors: its weights, as a model file holds them.

    Raises:
        ImportError: there is no compiling here.
    """

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Array]) -> None:
        self._states, self._hidden = 2 if config.cell == "lstm" else 1, config.hidden
        self._cell, self._levels = _KINDS[config.cell], levels(config.hidden)
        arranged = arrange(config, tensors)
        self._columns = arranged.columns
        recurrent = [_padded(layer.recurrent, layer.recurrent_bias, self._levels) for layer in arranged.layers]
        *above, self._output = (_padded(layer.above, layer.above_bias, self._levels) for layer in arranged.layers)
        self._recurrent, self._above = _stacked(recurrent), _stacked(above or recurrent[:0], like=recurrent[0])
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._cores, self._others = cores, (0, ThreadPoolExecutor(1))
        try:
            self.step(np.zeros(1, dtype=np.intp), self.zero_state(1))  # compiles the kernel, or finds it on disk
        except (NumbaError, OSError, RuntimeError, EOFError, ValueError) as error:  # or the cache is full or damaged
            raise ImportError(str(error)) from error

    def zero_state(self, batch: int) -> State:
        """The state of so many streams before their first character."""
        zeros = np.zeros((batch, self._hidden), dtype=np.float32)
        return tuple((zeros,) * self._states for _ in self._recurrent[0])

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Reads the characters with these ids (B,): logits of the next (B, V), and the state after them."""
        given = np.zeros((1, len(ids)), dtype=np.intp)
        nothing = np.zeros(given.shape)
        never = np.zeros(len(self._columns), dtype=bool)
        logits, _, _, after = self._shared_out(ids, state, given, nothing, nothing, never, measure=False)
        return logits, after

    def run(
        self,
        ids: Ids,
        state: State,
        given: Ids,
        uniforms: NDArray[np.float64],
        temperatures: NDArray[np.float64],
        never: NDArray[np.bool_],
        *,
        measure: bool,
    ) -> tuple[Ids, NDArray[np.float64], State]:
        """Takes T steps; see `kernel.run` for the arguments.

        Returns:
            The ids (T, B) that were read next, how surprising they were if that is measured, and the state after.
        """
        _, chosen, nats, after = self._shared_out(ids, state, given, uniforms, temperatures, never, measure=measure)
        return chosen, nats, after

    def _shared_out(
        self,
        ids: Ids,
        state: State,
        given: Ids,
        uniforms: NDArray[np.float64],
        temperatures: NDArray[np.float64],
        never: NDArray[np.bool_],
        *,
        measure: bool,
    ) -> tuple[Array, Ids, NDArray[np.float64], State]:
        batch, vocabulary = len(ids), len(self._columns)
        hidden = np.stack([layer[0] for layer in state])  # (L, B, H)
        carry = np.stack([layer[-1] for layer in state])
        logits = np.empty((batch, len(self._output[1])), dtype=np.float32)
        chosen, nats = np.empty_like(given), np.zeros(given.shape)

        def run(streams: slice) -> tuple[Array, Array]:
            h, c = (np.ascontiguousarray(part[:, streams]) for part in (hidden, carry))
            known = np.ascontiguousarray(given[:, streams])
            read, surprise = np.empty_like(known), np.zeros(known.shape)
            kernel.run(
                self._cell, self._levels, self._columns, self._recurrent, self._above, self._output, h, c,
                ids[streams], known, np.ascontiguousarray(uniforms[:, streams]),
                np.ascontiguousarray(temperatures[:, streams]), never, measure, logits[streams], read, surprise,
            )  # fmt: skip
            chosen[:, streams], nats[:, streams] = read, surprise
            return h, c

        shards = max(1, min(self._cores, batch // _FEWEST))
        edges = [batch * shard // shards for shard in range(shards + 1)]
        work = [slice(*pair) for pair in pairwise(edges)]
        if shards > 1 and self._others[0] != os.getpid():  # threads do not outlive a fork
            self._others = os.getpid(), ThreadPoolExecutor(self._cores)
        later = [self._others[1].submit(run, streams) for streams in work[1:]]
        parts = [run(work[0]), *(future.result() for future in later)]
        h, c = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        after = tuple((h[n], c[n])[: self._states] for n in range(len(h)))
        return logits[:, :vocabulary], chosen, nats, after


def _padded(weights: Array, biases: Array, levels: np.float32) -> _Matrix:
    """A matrix in whole numbers, with rows of zeros and zeros in its rows as the kernel wants them."""
    rows, columns = (
        -(-size // step) * step for size, step in zip(weights.shape, (kernel.ROWS, kernel.WIDE), strict=True)
    )
    whole, scales = rounded(weights)
    scales = scales / levels  # of the states
    below, beside = rows - len(weights), columns - weights.shape[1]
    filled = np.ascontiguousarray(np.pad(whole, ((0, below), (0, beside))))  # as the kernel walks through it
    return filled, np.pad(scales, (0, below)), np.pad(biases, (0, below))


def _stacked(matrices: list[_Matrix], like: _Matrix | None = None) -> _Matrix:
    """Several matrices of one shape as one array each; of none, empty ones like another."""
    if not matrices and like is not None:
        return like[0][None][:0], like[1][None][:0], like[2][None][:0]
    whole, scales, biases = (np.stack(parts) for parts in zip(*matrices, strict=True))
    return whole, scales, biases
