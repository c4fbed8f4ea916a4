"""The network of ``numpy_rnn.py`` by compiled code (``kernels/decode.py``), for many streams on all cores.

Importing this module raises ImportError where llvmlite is missing, and `CompiledRNN` does where nothing can be
compiled.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig
from charrnn.rnn.cells import EQUATIONS
from charrnn.rnn.decode_inputs import DecodeInputs
from charrnn.rnn.kernels.decode import decoding_kernel, is_compiled
from charrnn.rnn.kernels.packing import Panels, in_panels, pack_panels, padded
from charrnn.rnn.kernels.simd import LANES
from charrnn.rnn.numpy_rnn import Ids, prepare
from charrnn.rnn.quantize import Array, quantize_state, state_levels
from charrnn.rnn.state import State
from charrnn.rnn.worker_pool import WorkerPool, usable_cores

_FEWEST = 4  # streams that are worth a core of their own, and that the kernel takes together


class CompiledRNN:
    """Reads and chooses characters of many streams.

    Args:
        config: the network's shape.
        tensors: its weights, as a model file holds them.
        on_compile: called before a compilation, which takes a while and leaves its result on disk.

    Raises:
        ImportError: nothing can be compiled here.
    """

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Array], on_compile: Callable[[], None] = lambda: None
    ) -> None:
        if not is_compiled(config.cell):
            on_compile()
        self._kernel, self._config = decoding_kernel(config.cell), config
        self._levels = state_levels(config.hidden)
        prepared, gates = prepare(config, tensors), EQUATIONS[config.cell].gates
        self.vocab_size = len(prepared.columns)
        recurrent = [
            pack_panels(layer.recurrent, layer.recurrent_bias, gates, self._levels) for layer in prepared.layers
        ]
        *below, last = prepared.layers
        above = [pack_panels(layer.above, layer.above_bias, gates, self._levels) for layer in below]
        output = pack_panels(last.above, last.above_bias, 1, self._levels, fill=-np.inf)  # never chosen
        self._width = output.biases.size
        self._weights = {
            "columns": in_panels(prepared.columns, gates),
            **_named("recurrent", recurrent), **_named("above", above or recurrent), **_named("output", [output]),
        }  # fmt: skip
        self._gate_lanes = gates * LANES
        self._workers = WorkerPool(usable_cores())

    def zero_state(self, batch: int) -> State:
        """Return the state of B streams before their first character."""
        return State.zeros(self._config, batch)

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Read a character of each stream; see `NumPyRNN.step`."""
        known = DecodeInputs.forced(np.zeros((1, len(ids)), dtype=np.intp))
        logits, _, _, after = self._on_all_cores(ids, state, known, measure=False)
        return logits, after

    def run(
        self, ids: Ids, state: State, decode_inputs: DecodeInputs, *, measure: bool
    ) -> tuple[Ids, NDArray[np.float64], State]:
        """Take T steps.

        Args:
            ids: (B,), read first.
            state: before them.
            decode_inputs: what is read next, step by step.
            measure: whether to compute the surprisal of what was chosen.

        Returns:
            The ids (T, B) that were read next, the surprisal in nats of those that were chosen, and the state after.
        """
        _, chosen, nats, after = self._on_all_cores(ids, state, decode_inputs, measure=measure)
        return chosen, nats, after

    def _on_all_cores(
        self, ids: Ids, state: State, decode_inputs: DecodeInputs, *, measure: bool
    ) -> tuple[Array, Ids, NDArray[np.float64], State]:
        """Run the kernel, the streams dealt to the processor's cores.

        Raises:
            IndexError: an id that is not in the vocabulary.
        """
        if (
            ids.min() < 0 or max(ids.max(), decode_inputs.forced_ids.max()) >= self.vocab_size
        ):  # which a kernel doesn't ask
            raise IndexError("an id is not in the vocabulary")
        batch = len(ids)
        count = max(1, min(self._workers.threads, batch // _FEWEST))
        edges = [batch // _FEWEST * part // count * _FEWEST for part in range(count)] + [batch]
        works = [partial(self._run, ids, state, decode_inputs, slice(*pair), measure) for pair in pairwise(edges)]
        logits, chosen, nats, after = zip(*self._workers.run(works), strict=True)
        return _joined(logits, 0)[:, : self.vocab_size], _joined(chosen, 1), _joined(nats, 1), State.join(after)

    def _run(
        self, ids: Ids, state: State, decode_inputs: DecodeInputs, streams: slice, measure: bool
    ) -> tuple[Array, Ids, NDArray[np.float64], State]:
        """Run the kernel for some streams."""
        forced_ids = np.array(decode_inputs.forced_ids[:, streams], dtype=np.int64, order="C")
        (steps, count), layers, units = forced_ids.shape, len(state.layers), self._config.hidden
        hidden = np.zeros((layers, count, padded(units)), dtype=np.float32)
        carried = np.zeros_like(hidden)
        for layer, own in enumerate(state.layers):
            hidden[layer, :, :units], carried[layer, :, :units] = own[0][streams], own[-1][streams]
        codes = np.empty((2, *hidden.shape), dtype=np.int16)
        codes[0] = quantize_state(hidden, self._levels)
        penalties = np.zeros((2, self._width), dtype=np.float32)
        penalties[1, np.flatnonzero(decode_inputs.forbidden)] = -np.inf
        logits = np.empty((count, self._width), dtype=np.float32)
        chosen, gaps, totals = np.empty_like(forced_ids), np.zeros(forced_ids.shape), np.ones(forced_ids.shape)
        self._kernel(
            streams=count, steps=steps, layers=layers, units=hidden.shape[2], width=self._width,
            vocab_size=self.vocab_size, measure=measure, levels=float(self._levels), **self._weights,
            penalties=penalties, hidden=hidden, carried=carried, codes=codes,
            arriving=np.empty((count, self._gate_lanes), dtype=np.float32), reading=ids[streams].astype(np.int64),
            forced_ids=forced_ids, uniforms=np.array(decode_inputs.uniforms[:, streams], order="C"),
            temperatures=np.array(decode_inputs.temperatures[:, streams], order="C"), logits=logits,
            sums=np.empty(self._width), chosen=chosen, gaps=gaps, totals=totals,
        )  # fmt: skip
        parts = EQUATIONS[self._config.cell].parts
        after = State(tuple((hidden[n, :, :units], carried[n, :, :units])[:parts] for n in range(layers)))
        return logits, chosen, gaps + np.log(totals) if measure else gaps, after


def _joined(parts: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
    return np.concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]


def _named(name: str, matrices: list[Panels]) -> dict[str, NDArray[Any]]:
    """Return several matrices of one shape as one, by the names of the kernel's parameters."""
    weights, scales, biases = (np.stack(parts) for parts in zip(*matrices, strict=True))
    return {name: weights, f"{name}_scales": scales, f"{name}_biases": biases}
