"""The network of ``stepper.py`` by compiled code (``decode.py``), the streams shared out among the processor's cores.

Importing this module raises ImportError where llvmlite is missing, and `Compiled` does where nothing can be compiled.
"""

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import GATES, Cell, ModelConfig
from charrnn.rnn.kernels.object_cache import MachineCode, Source, is_kept
from charrnn.rnn.kernels.packing import LANES, Panels, in_lanes, padded, panels
from charrnn.rnn.numpy_rnn import Array, Ids, State, arrange
from charrnn.rnn.quantize import levels, whole_state

_FEWEST = 4  # streams that are worth a core of their own, and that the kernel takes together
_HERE = Path(__file__).parent
_SOURCES = [
    *sorted((_HERE / "kernels").glob("*.py")),
    *(_HERE.parent / f"{name}.py" for name in ("rnn/tanh_approx", "config")),
]
_NUMBERS, _ARRAYS = 7, 25  # that the kernel takes
_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * _NUMBERS, ctypes.c_float, *[ctypes.c_void_p] * _ARRAYS
)
_kernels: dict[Cell, "Kernel"] = {}  # there is one for each kind of cell; those that were loaded


class Kernel:
    """The compiled function for networks of some cells.

    Args:
        cell: their kind.
        compiling: called before a compilation, which takes seconds; not where its result lies on disk.

    Raises:
        ImportError: there is no compiling here.
    """

    def __init__(self, cell: Cell, compiling: Callable[[], None]) -> None:
        def make() -> Source:
            from charrnn.rnn.kernels import decode

            compiling()
            return decode.source(cell)

        self._code = MachineCode(_name(cell), _SOURCES, make)
        self._function = _FUNCTION(self._code.address)
        self._nothing = np.zeros(2, dtype=np.int64)  # what Numba's functions write about results and errors: zeros
        self._first = _place(self._nothing)

    def __call__(self, numbers: list[int], level: float, places: list[int]) -> None:
        """Runs it, without Python's lock; the arguments are those in `decode.source`, of arrays their places."""
        self._function(self._first, self._first + 8, *numbers, level, *places)


def is_compiled(cell: Cell) -> bool:
    """Whether the function for such networks lies on disk."""
    return cell in _kernels or is_kept(_name(cell), _SOURCES)


def _name(cell: Cell) -> str:
    return f"charrnn_{cell}"


def _place(array: NDArray[Any]) -> int:
    """Where an array begins, which has to be C-contiguous; faster than to ask NumPy."""
    return ctypes.addressof((ctypes.c_byte * 0).from_buffer(array.data))


class Compiled:
    """Reads and chooses characters of many streams.

    Args:
        config: the network's shape.
        tensors: its weights, as a model file holds them.
        compiling: called before a compilation, which takes seconds and leaves its result on disk.

    Raises:
        ImportError: there is no compiling here.
    """

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Array], compiling: Callable[[], None] = lambda: None
    ) -> None:
        if config.cell not in _kernels:
            _kernels[config.cell] = Kernel(config.cell, compiling)
        self._kernel, self._config = _kernels[config.cell], config
        self._states, self._levels = 2 if config.cell == "lstm" else 1, levels(config.hidden)
        arranged, gates = arrange(config, tensors), GATES[config.cell]
        self._vocabulary = len(arranged.columns)
        recurrent = [panels(layer.recurrent, layer.recurrent_bias, gates, self._levels) for layer in arranged.layers]
        *below, last = arranged.layers
        above = [panels(layer.above, layer.above_bias, gates, self._levels) for layer in below]
        output = panels(last.above, last.above_bias, 1, self._levels, rest=-np.inf)  # never chosen
        self._wide = output.biases.size
        self._weights = [in_lanes(arranged.columns, gates), *_stacked(recurrent), *_stacked(above or recurrent)]
        self._weights += output
        self._places = [_place(array) for array in self._weights]
        self._arriving = gates * LANES
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._cores, self._others = cores, (0, ThreadPoolExecutor(1))

    def zero_state(self, batch: int) -> State:
        """The state of so many streams before their first character."""
        zeros = np.zeros((batch, self._config.hidden), dtype=np.float32)
        return tuple((zeros,) * self._states for _ in range(self._config.layers))

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Reads the characters with these ids (B,): logits of the next (B, V), and the state after them."""
        given = np.zeros((1, len(ids)), dtype=np.intp)
        nothing = np.zeros(given.shape)
        never = np.zeros(self._vocabulary, dtype=bool)
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
        """Takes T steps.

        Args:
            ids: (B,), read first.
            state: before them.
            given: (T, B), ids to be read after each; where they are negative, what is chosen is.
            uniforms: (T, B), random numbers for the choices.
            temperatures: (T, B).
            never: (V,), which ids are not to be chosen.
            measure: whether to tell how surprising the choices were.

        Returns:
            The ids (T, B) that were read next, the surprise in nats of those that were chosen, and the state after.
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
        batch, hidden = len(ids), self._config.hidden
        bars = np.zeros((2, self._wide), dtype=np.float32)
        bars[1, : self._vocabulary][never] = -np.inf

        def run(streams: slice) -> tuple[Array, Ids, NDArray[np.float64], Array, Array]:
            known = np.array(given[:, streams], dtype=np.int64, order="C")
            steps, count = known.shape
            h = np.zeros((len(state), count, padded(hidden)), dtype=np.float32)
            c = np.zeros_like(h)
            for n, layer in enumerate(state):
                h[n, :, :hidden], c[n, :, :hidden] = layer[0][streams], layer[-1][streams]
            rounded = np.empty((2, *h.shape), dtype=np.int16)
            rounded[0] = whole_state(h, self._levels)
            logits = np.empty((count, self._wide), dtype=np.float32)
            read, nats, totals = np.empty_like(known), np.zeros(known.shape), np.ones(known.shape)
            arrays: tuple[NDArray[Any], ...] = (  # kept until the kernel is done
                bars, h, c, rounded, np.empty((count, self._arriving), dtype=np.float32),
                np.arange(count, dtype=np.int64), ids[streams].astype(np.int64), known,
                np.array(uniforms[:, streams], order="C"), np.array(temperatures[:, streams], order="C"),
                logits, np.empty(self._wide), read, nats, totals,
            )  # fmt: skip
            numbers = [count, steps, *h.shape[::2], self._wide, self._vocabulary, measure]
            self._kernel(numbers, float(self._levels), self._places + [_place(array) for array in arrays])
            return logits, read, nats + np.log(totals) if measure else nats, h, c

        shards = max(1, min(self._cores, batch // _FEWEST))
        edges = [batch // _FEWEST * shard // shards * _FEWEST for shard in range(shards)] + [batch]
        work = [slice(*pair) for pair in pairwise(edges)]
        if shards > 1 and self._others[0] != os.getpid():  # threads do not outlive a fork
            self._others = os.getpid(), ThreadPoolExecutor(self._cores)
        later = [self._others[1].submit(run, streams) for streams in work[1:]]
        parts = [run(work[0]), *(future.result() for future in later)]
        logits, *of_steps, h, c = zip(*parts, strict=True)
        read, nats = (_joined(part, 1) for part in of_steps)
        hs, cs = (_joined(part, 1)[:, :, :hidden] for part in (h, c))
        after = tuple((hs[n], cs[n])[: self._states] for n in range(len(state)))
        return _joined(logits, 0)[:, : self._vocabulary], read, nats, after


def _joined(parts: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
    return np.concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]


def _stacked(matrices: list[Panels]) -> list[NDArray[Any]]:
    """Several matrices of one shape as one."""
    return [np.stack(parts) for parts in zip(*matrices, strict=True)]
