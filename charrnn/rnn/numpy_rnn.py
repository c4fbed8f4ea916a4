"""The network in NumPy, without torch. It reads one character of B streams at a time.

`prepare` computes everything that doesn't depend on the state. Layer 0 then looks up the input product of a character
in a table, and most biases are added in advance.
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
Product = Callable[[Array], Array]  # hidden states (B, H) -> products with the rows of a matrix (B, R)


@dataclass(frozen=True)
class PreparedLayer:
    """The two matrices by which the hidden state of a layer is multiplied, and their biases."""

    recurrent_weight: Array  # (G * H, H)
    recurrent_bias: Array  # (G * H,), zero where it is part of the input bias
    next_weight: Array  # (R, H), the input weights of the next layer, or the weights of the output layer
    next_bias: Array  # (R,)


@dataclass(frozen=True)
class PreparedWeights:
    """The weights of a network, prepared for reading one character at a time."""

    input_table: Array  # (V, G * H), the input product of each character in layer 0, with its bias
    layers: tuple[PreparedLayer, ...]


def prepare(config: ModelConfig, tensors: Mapping[str, Array]) -> PreparedWeights:
    """Return the prepared weights of a network.

    Args:
        config: The shape of the network.
        tensors: The weights, with the names and shapes of `ModelConfig.tensor_shapes`.
    """
    cell = EQUATIONS[config.cell]
    separate = np.array([slot not in cell.input_slots for slot in cell.recurrent_slots])  # gates with two biases

    def biases(layer: int) -> tuple[Array, Array]:
        """Return the biases of the input and the recurrent product. Where one bias suffices, the first is the sum."""
        bias_ih, bias_hh = tensors[f"layers.{layer}.bias_ih"], tensors[f"layers.{layer}.bias_hh"]
        recurrent_bias = bias_hh * np.repeat(separate, config.hidden)
        return bias_ih + (bias_hh - recurrent_bias), recurrent_bias

    weight_ih = tensors["layers.0.weight_ih"].T  # (V or E, G * H)
    input_products = tensors["embedding.weight"] @ weight_ih if config.embedding else weight_ih
    input_table: Array = np.ascontiguousarray(input_products + biases(0)[0])
    layers = []
    for layer in range(config.layers):
        if layer + 1 < config.layers:
            following = tensors[f"layers.{layer + 1}.weight_ih"], biases(layer + 1)[0]
        else:
            following = tensors["output.weight"], tensors["output.bias"]
        layers.append(PreparedLayer(tensors[f"layers.{layer}.weight_hh"], biases(layer)[1], *following))
    return PreparedWeights(input_table, tuple(layers))


class NumPyRNN:
    """The network in NumPy.

    Args:
        config: The shape of the network.
        tensors: The weights, as in a model file.
        precision: The precision of the matrix products. "int8" is bit-identical to ``kernels/decode.py``, but slower.
            "fp32" doesn't quantize; its rounding depends on the number of streams.
    """

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Array], precision: SamplePrecision = "int8"
    ) -> None:
        self._config, self._cell = config, EQUATIONS[config.cell]
        self._tanh = tanh_approx.tanh if precision == "int8" else np.tanh
        prepared = prepare(config, tensors)
        self._input_table = prepared.input_table

        def product(weights: Array, bias: Array) -> Product:
            if precision == "int8":
                return _int8_product(weights, bias, state_levels(config.hidden))
            return _product(weights, bias)

        self._products = [
            (product(layer.recurrent_weight, layer.recurrent_bias), product(layer.next_weight, layer.next_bias))
            for layer in prepared.layers
        ]

    def zero_state(self, batch: int) -> State:
        """Return the zero state of B streams."""
        return State.zeros(self._config, batch)

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Read one character of each stream.

        Args:
            ids: Ids of the characters, (B,).
            state: The state before them.

        Returns:
            The logits of the next characters (B, V), and the state after ``ids``.
        """
        products = self._input_table[ids]  # (B, G * H)
        layers = []
        for (recurrent_product, next_product), before in zip(self._products, state.layers, strict=True):
            pre = self._cell.pre(self._gates(products), self._gates(recurrent_product(before[0])))
            _, after = self._cell.step(pre, before, self._tanh)
            products = next_product(after[0])  # (B, G * H), or (B, V) above the last layer
            layers.append(after)
        return products, State(tuple(layers))

    def score(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.floating], State]:
        """Read T characters of B streams; see `charrnn.rnn.backend.Scorer.score`."""
        nats = np.empty(inputs.shape, dtype=np.float32)
        streams = np.arange(inputs.shape[1])
        for ids, target_ids, mask, row in zip(inputs, targets, reset, nats, strict=True):
            logits, state = self.step(ids, state.reset(mask))
            largest = logits.max(axis=1)
            row[:] = np.log(np.exp(logits - largest[:, None]).sum(axis=1)) + largest - logits[streams, target_ids]
        return nats, state

    def _gates(self, rows: Array) -> tuple[Array, ...]:
        """Return (B, G * H) as G views of (B, H)."""
        size = self._config.hidden
        return tuple(rows[:, start : start + size] for start in range(0, self._cell.gates * size, size))


def _product(weights: Array, bias: Array) -> Product:
    transposed = weights.T

    def product(hidden: Array) -> Array:
        result: Array = hidden.dot(transposed)
        result += bias
        return result

    return product if bias.any() else lambda hidden: hidden.dot(transposed)


def _int8_product(weights: Array, bias: Array, levels: np.float32) -> Product:
    """Return a product of quantized values.

    Integers are multiplied as float64, because NumPy calls BLAS only for floats. The sums are exact in any order.
    """
    quantized, scales = quantize_rows(weights)
    integers, scales = quantized.astype(np.float64), scales / levels

    def product(hidden: Array) -> Array:
        quantized_hidden = quantize_state(hidden, levels).astype(np.float64)
        result: Array = quantized_hidden.dot(integers.T).astype(np.float32)
        result *= scales
        result += bias
        return result

    return product
