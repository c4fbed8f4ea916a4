"""The network in NumPy, a character of B streams at a time, without torch.

What doesn't depend on the state is done once, in `prepare`: layer 0 looks the input product of a character up in a
table, and biases are added wherever the equations allow it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig, SamplePrecision
from charrnn.rnn import tanh_approx
from charrnn.rnn.cells import EQUATIONS
from charrnn.rnn.quantize import Array, quantize_rows, quantize_state, state_levels
from charrnn.rnn.state import State

Ids = NDArray[np.intp]
Product = Callable[[Array], Array]  # from hidden states (B, H) to (B, rows)


@dataclass(frozen=True)
class PreparedLayer:
    """What the hidden state of a layer is multiplied by, on its way to the next step and to the layer above."""

    recurrent: Array  # (G * H, H)
    recurrent_bias: Array  # (G * H,); zero where it has been added to the input product
    above: Array  # (rows, H): the input weights of the next layer, or those of the output layer
    above_bias: Array  # (rows,)


@dataclass(frozen=True)
class PreparedWeights:
    """The weights of a network, with everything done that doesn't depend on the state."""

    columns: Array  # (V, G * H), what each character adds to the gates of layer 0
    layers: tuple[PreparedLayer, ...]


def prepare(config: ModelConfig, tensors: Mapping[str, Array]) -> PreparedWeights:
    """Prepare weights, named and shaped as `ModelConfig.tensor_shapes` says."""
    cell = EQUATIONS[config.cell]
    separate = np.array([place not in cell.inputs for place in cell.recurrent])  # gates that keep two biases

    def biases(layer: int) -> tuple[Array, Array]:
        """Return the biases of the input and of the recurrent product."""
        of_inputs, of_hidden = tensors[f"layers.{layer}.bias_ih"], tensors[f"layers.{layer}.bias_hh"]
        kept = of_hidden * np.repeat(separate, config.hidden)
        return of_inputs + (of_hidden - kept), kept

    first = tensors["layers.0.weight_ih"].T  # (V or E, G * H)
    embedded = tensors["embedding.weight"] @ first if config.embedding else first
    columns: Array = np.ascontiguousarray(embedded + biases(0)[0])
    layers = []
    for layer in range(config.layers):
        if layer + 1 < config.layers:
            above = tensors[f"layers.{layer + 1}.weight_ih"], biases(layer + 1)[0]
        else:
            above = tensors["output.weight"], tensors["output.bias"]
        layers.append(PreparedLayer(tensors[f"layers.{layer}.weight_hh"], biases(layer)[1], *above))
    return PreparedWeights(columns, tuple(layers))


class NumPyRNN:
    """The network in NumPy.

    Args:
        config: the network's shape.
        tensors: its weights, as a model file holds them.
        precision: "int8" computes what ``kernels/decode.py`` does, to the last bit, only slower; "fp32" is exact but
            for the rounding of float32, which depends on the streams computed together.
    """

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Array], precision: SamplePrecision = "int8"
    ) -> None:
        self._config, self._cell = config, EQUATIONS[config.cell]
        self._tanh = tanh_approx.tanh if precision == "int8" else np.tanh
        prepared = prepare(config, tensors)
        self._columns = prepared.columns

        def product(weights: Array, bias: Array) -> Product:
            if precision == "int8":
                return _int8_product(weights, bias, state_levels(config.hidden))
            return _product(weights, bias)

        self._products = [
            (product(layer.recurrent, layer.recurrent_bias), product(layer.above, layer.above_bias))
            for layer in prepared.layers
        ]

    def zero_state(self, batch: int) -> State:
        """Return the state of B streams before their first character."""
        return State.zeros(self._config, batch)

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Read a character of each stream.

        Args:
            ids: (B,).
            state: before them.

        Returns:
            The logits of the next characters (B, V), and the state after these.
        """
        signal = self._columns[ids]
        layers = []
        for (recurrent, above), before in zip(self._products, state.layers, strict=True):
            pre = self._cell.pre(self._gates(signal), self._gates(recurrent(before[0])))
            _, after = self._cell.step(pre, before, self._tanh)
            signal = above(after[0])
            layers.append(after)
        return signal, State(tuple(layers))

    def score(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.floating], State]:
        """Read T characters of B streams; see `charrnn.rnn.backend.Scorer.score`."""
        nats = np.empty(inputs.shape, dtype=np.float32)
        streams = np.arange(inputs.shape[1])
        for ids, wanted, mask, row in zip(inputs, targets, reset, nats, strict=True):
            logits, state = self.step(ids, state.reset(mask))
            largest = logits.max(axis=1)
            row[:] = np.log(np.exp(logits - largest[:, None]).sum(axis=1)) + largest - logits[streams, wanted]
        return nats, state

    def _gates(self, rows: Array) -> tuple[Array, ...]:
        """Return (B, G * H) as G views of (B, H)."""
        size = self._config.hidden
        return tuple(rows[:, start : start + size] for start in range(0, self._cell.gates * size, size))


def _product(weights: Array, bias: Array) -> Product:
    columns = weights.T

    def product(hidden: Array) -> Array:
        result: Array = hidden.dot(columns)
        result += bias
        return result

    return product if bias.any() else lambda hidden: hidden.dot(columns)


def _int8_product(weights: Array, bias: Array, levels: np.float32) -> Product:
    """Multiply integers in float64, which holds their sums in whatever order they are added."""
    small, scales = quantize_rows(weights)
    integers, scales = small.astype(np.float64), scales / levels

    def product(hidden: Array) -> Array:
        codes = quantize_state(hidden, levels).astype(np.float64)
        result: Array = codes.dot(integers.T).astype(np.float32)
        result *= scales
        result += bias
        return result

    return product
