"""The network in int8, computed by compiled code (``kernels/decode.py``), for many streams on all cores.

The results are bit-identical to those of ``numpy_rnn.py`` in int8. Importing this module raises ImportError if
llvmlite is missing. `CompiledRNN` raises it if LLVM cannot compile for this processor.
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

_BLOCK = 4  # streams that the kernel reads together; a core gets a multiple of them


class CompiledRNN:
    """A compiled network that reads and samples characters of many streams.

    Args:
        config: The shape of the network.
        tensors: The weights, as in a model file.
        on_compile: Called before a compilation, which takes a second or two. Its result is kept on disk.

    Raises:
        ImportError: If LLVM cannot compile for this processor.
    """

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Array], on_compile: Callable[[], None] = lambda: None
    ) -> None:
        if not is_compiled(config.cell):
            on_compile()
        self._kernel, self._config = decoding_kernel(config.cell), config
        self._levels = state_levels(config.hidden)
        prepared, gates = prepare(config, tensors), EQUATIONS[config.cell].gates
        self.vocab_size = len(prepared.input_table)
        recurrent = [
            pack_panels(layer.recurrent_weight, layer.recurrent_bias, gates, self._levels)
            for layer in prepared.layers
        ]
        *lower, last = prepared.layers
        inputs = [pack_panels(layer.next_weight, layer.next_bias, gates, self._levels) for layer in lower]
        # Rows that pad the last panel get a logit of -inf, so that they are never sampled.
        output = pack_panels(last.next_weight, last.next_bias, 1, self._levels, fill=-np.inf)
        self._width = output.biases.size
        self._weights = {
            "input_table": in_panels(prepared.input_table, gates),
            **_stacked("recurrent", recurrent),
            **_stacked("input", inputs or recurrent),  # a network of one layer doesn't read these
            **_stacked("output", [output]),
        }
        self._gate_lanes = gates * LANES
        self._workers = WorkerPool(usable_cores())

    def zero_state(self, batch: int) -> State:
        """Return the zero state of B streams."""
        return State.zeros(self._config, batch)

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Read one character of each stream; see `NumPyRNN.step`."""
        unused = DecodeInputs.forced(np.zeros((1, len(ids)), dtype=np.intp))
        logits, _, _, after = self._run_parallel(ids, state, unused, measure=False)
        return logits, after

    def run(
        self, ids: Ids, state: State, decode_inputs: DecodeInputs, *, measure: bool
    ) -> tuple[Ids, NDArray[np.float64], State]:
        """Take T steps.

        Args:
            ids: The ids to read first, (B,).
            state: The state before them.
            decode_inputs: For each step, the id to read next, or how to sample it.
            measure: Whether to compute the surprisal of sampled ids.

        Returns:
            The forced or sampled id after each step, (T, B); the surprisal of the sampled ids in nats, (T, B), which
            is 0 for forced ids and without ``measure``; and the state after the last step. The last ids have not
            been read.

        Raises:
            IndexError: If an id is not in the vocabulary.
        """
        _, next_ids, nats, after = self._run_parallel(ids, state, decode_inputs, measure=measure)
        return next_ids, nats, after

    def _run_parallel(
        self, ids: Ids, state: State, decode_inputs: DecodeInputs, *, measure: bool
    ) -> tuple[Array, Ids, NDArray[np.float64], State]:
        """Run the kernel with the streams divided among all cores. Return logits (B, V), and the results of `run`."""
        # The kernel doesn't check ids.
        if ids.min() < 0 or max(ids.max(), decode_inputs.forced_ids.max()) >= self.vocab_size:
            raise IndexError("an id is not in the vocabulary")
        batch = len(ids)
        num_tasks = max(1, min(self._workers.threads, batch // _BLOCK))
        num_blocks = batch // _BLOCK
        edges = [num_blocks * task // num_tasks * _BLOCK for task in range(num_tasks)] + [batch]
        tasks = [partial(self._run, ids, state, decode_inputs, slice(*pair), measure) for pair in pairwise(edges)]
        logits, next_ids, nats, after = zip(*self._workers.run(tasks), strict=True)
        return (
            _concatenate(logits, 0)[:, : self.vocab_size], _concatenate(next_ids, 1), _concatenate(nats, 1),
            State.join(after),
        )  # fmt: skip

    def _run(
        self, ids: Ids, state: State, decode_inputs: DecodeInputs, streams: slice, measure: bool
    ) -> tuple[Array, Ids, NDArray[np.float64], State]:
        """Run the kernel for a slice of the streams."""
        forced_ids = np.array(decode_inputs.forced_ids[:, streams], dtype=np.int64, order="C")
        (steps, count), layers, units = forced_ids.shape, len(state.layers), self._config.hidden
        hidden = np.zeros((layers, count, padded(units)), dtype=np.float32)
        cell_state = np.zeros_like(hidden)
        for index, layer in enumerate(state.layers):
            hidden[index, :, :units], cell_state[index, :, :units] = layer[0][streams], layer[-1][streams]
        quantized_hidden = np.empty((2, *hidden.shape), dtype=np.int16)
        quantized_hidden[0] = quantize_state(hidden, self._levels)
        penalties = np.zeros((2, self._width), dtype=np.float32)
        penalties[1, np.flatnonzero(decode_inputs.forbidden)] = -np.inf
        logits = np.empty((count, self._width), dtype=np.float32)
        next_ids, logit_gaps = np.empty_like(forced_ids), np.zeros(forced_ids.shape)
        exp_sums = np.ones(forced_ids.shape)
        self._kernel(
            streams=count, steps=steps, layers=layers, units=hidden.shape[2], width=self._width,
            vocab_size=self.vocab_size, measure=measure, levels=float(self._levels), **self._weights,
            penalties=penalties, hidden=hidden, cell_state=cell_state, quantized_hidden=quantized_hidden,
            input_products=np.empty((count, self._gate_lanes), dtype=np.float32),
            current_ids=ids[streams].astype(np.int64),
            forced_ids=forced_ids, uniforms=np.array(decode_inputs.uniforms[:, streams], order="C"),
            temperatures=np.array(decode_inputs.temperatures[:, streams], order="C"), logits=logits,
            cumulative_sums=np.empty(self._width), next_ids=next_ids, logit_gaps=logit_gaps, exp_sums=exp_sums,
        )  # fmt: skip
        num_arrays = EQUATIONS[self._config.cell].num_state_arrays
        after = State(tuple((hidden[n, :, :units], cell_state[n, :, :units])[:num_arrays] for n in range(layers)))
        return logits, next_ids, logit_gaps + np.log(exp_sums) if measure else logit_gaps, after


def _concatenate(parts: Sequence[NDArray[Any]], axis: int) -> NDArray[Any]:
    return np.concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]


def _stacked(name: str, matrices: list[Panels]) -> dict[str, NDArray[Any]]:
    """Stack matrices of equal shape, and return them by the names of the kernel's parameters."""
    weights, scales, biases = (np.stack(parts) for parts in zip(*matrices, strict=True))
    return {name: weights, f"{name}_scales": scales, f"{name}_biases": biases}
