"""The network of ``rnn/torch_rnn.py`` in NumPy, one character of B streams at a time, without torch.

What does not depend on the state is done once, in the constructor: layer 0 looks a character's share of the gates up
in a table instead of multiplying; and as s(z) = (1 + tanh(z / 2)) / 2, the rows of all sigmoid gates are halved
(exactly, in binary) and put first, so that one tanh serves every gate. The equations stand in ``rnn/layers.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from charrnn.config import GATES, Cell, ModelConfig, SamplePrecision
from charrnn.rnn.quantize import levels, rounded, whole_state
from charrnn.rnn.tanh_approx import FURTHEST, quotient

Array = NDArray[np.float32]
Ids = NDArray[np.intp]
LayerState = tuple[Array, ...]  # (h,), or (h, c) for an LSTM; each (B, H)
State = tuple[LayerState, ...]  # one entry per layer; passed in, passed out, never kept
Product = Callable[[Array], Array]  # from hidden states (B, H) to (B, rows)
Tanh = Callable[..., Array]  # of an array, into another if there is an ``out``

_ORDER: dict[Cell, tuple[int, ...]] = {"lstm": (0, 1, 3, 2), "gru": (0, 1, 2), "rnn": (0,)}  # sigmoid gates first
_SIGMOIDS: dict[Cell, int] = {"lstm": 3, "gru": 2, "rnn": 0}  # how many of them
_HALF = np.array(0.5, dtype=np.float32)  # an array, which NumPy takes faster than a number


class Network(Protocol):
    """What reads one character of each stream and gives the logits of the next."""

    def zero_state(self, batch: int) -> State:
        """The state of so many streams before their first character."""

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Reads the characters with these ids (B,): logits of the next (B, V), and the state after them."""


@dataclass(frozen=True)
class Layer:
    """What the state of a layer is multiplied by, on its way to the next step and to the layer above."""

    recurrent: Array  # (G*H, H)
    recurrent_bias: Array  # (G*H,), zero where it has been added to what arrives from below
    above: Array  # (rows, H): the input weights of the next layer, or the output layer's
    above_bias: Array  # (rows,)


@dataclass(frozen=True)
class Arranged:
    """A network as it is stepped through."""

    columns: Array  # (V, G*H), what each character adds to the gates of layer 0
    layers: tuple[Layer, ...]


def arrange(config: ModelConfig, tensors: Mapping[str, Array]) -> Arranged:
    """Does once what does not depend on the state."""

    def gates(layer: int, name: str) -> Array:
        return _gates_in_order(config.cell, tensors[f"layers.{layer}.{name}"])

    def biases(layer: int) -> tuple[Array, Array]:
        """Of what arrives from below and of what returns; only a GRU's candidate tells one from the other."""
        arriving, returning = gates(layer, "bias_ih"), gates(layer, "bias_hh")
        apart = returning.copy()
        apart[: 2 * config.hidden if config.cell == "gru" else None] = 0
        return arriving + (returning - apart), apart

    first = gates(0, "weight_ih").T  # (V or E, G*H)
    embedded = tensors["embedding.weight"] @ first if config.embedding else first
    columns: Array = np.ascontiguousarray(embedded + biases(0)[0])
    layers = []
    for layer in range(config.layers):
        if layer + 1 < config.layers:
            above = gates(layer + 1, "weight_ih"), biases(layer + 1)[0]
        else:
            above = tensors["output.weight"], tensors["output.bias"]
        layers.append(Layer(gates(layer, "weight_hh"), biases(layer)[1], *above))
    return Arranged(columns, tuple(layers))


@runtime_checkable
class Runner(Network, Protocol):
    """One that can go on by itself, for any number of steps."""

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
        """Takes T steps, reading what is given and choosing the rest; see `Compiled.run`."""


class NumPyRNN:
    """The network in NumPy.

    Args:
        config: the network's shape.
        tensors: its weights, as a model file holds them.
        precision: "int8" computes what `kernel.py` does, to the last bit, and takes its time; "fp32" is exact
            but for the rounding of fp32, whose sums depend on the streams beside.
    """

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, Array], precision: SamplePrecision = "int8"
    ) -> None:
        self._states = 2 if config.cell == "lstm" else 1
        self._hidden = config.hidden
        self._cell = _CELLS[config.cell]
        self._tanh = _exact_tanh if precision == "int8" else np.tanh
        arranged = arrange(config, tensors)
        self._columns = arranged.columns

        def product(weights: Array, bias: Array) -> Product:
            return _whole(weights, bias, levels(config.hidden)) if precision == "int8" else _plain(weights, bias)

        self._products = [
            (product(layer.recurrent, layer.recurrent_bias), product(layer.above, layer.above_bias))
            for layer in arranged.layers
        ]

    def zero_state(self, batch: int) -> State:
        """The state of so many streams before their first character."""
        zeros = np.zeros((batch, self._hidden), dtype=np.float32)
        return tuple((zeros,) * self._states for _ in self._products)

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Reads the characters with these ids (B,): logits of the next (B, V), and the state after them."""
        signal = self._columns[ids]
        after = []
        for (recurrent, above), before in zip(self._products, state, strict=True):
            now = self._cell(signal, recurrent(before[0]), before, self._tanh)
            signal = above(now[0])
            after.append(now)
        return signal, tuple(after)


def rows_of(state: State, rows: NDArray[np.intp]) -> State:
    """The state of some of the streams."""
    return tuple(tuple(part[rows] for part in layer) for layer in state)


def joined(states: Sequence[State]) -> State:
    """The streams of all these states as one."""
    return tuple(
        tuple(np.concatenate(parts) for parts in zip(*layers, strict=True)) for layers in zip(*states, strict=True)
    )


def _plain(weights: Array, bias: Array) -> Product:
    columns = weights.T

    def product(hidden: Array) -> Array:
        result: Array = hidden.dot(columns)
        result += bias
        return result

    return product if bias.any() else lambda hidden: hidden.dot(columns)


def _whole(weights: Array, bias: Array, levels: np.float32) -> Product:
    """In whole numbers, which float64 holds whatever the order of a sum."""
    small, scales = rounded(weights)
    whole, scales = small.astype(np.float64), scales / levels

    def product(hidden: Array) -> Array:
        result: Array = whole_state(hidden, levels).astype(np.float64).dot(whole.T).astype(np.float32)
        result *= scales
        result += bias
        return result

    return product


def _exact_tanh(x: Array, out: Array | None = None) -> Array:
    result = quotient(np.clip(x, -FURTHEST, FURTHEST))
    if out is None:
        return np.asarray(result)
    out[...] = result
    return out


def _gates_in_order(cell: Cell, rows: Array) -> Array:
    """The blocks of a weight matrix or a bias in our order of gates, those of sigmoid gates halved."""
    blocks = np.split(rows, GATES[cell])
    halved = [blocks[gate] * np.float32(0.5) for gate in _ORDER[cell][: _SIGMOIDS[cell]]]
    return np.concatenate([*halved, *(blocks[gate] for gate in _ORDER[cell][_SIGMOIDS[cell] :])])


def _rnn(signal: Array, echo: Array, before: LayerState, tanh: Tanh) -> LayerState:
    echo += signal
    return (tanh(echo, out=echo),)


def _lstm(signal: Array, echo: Array, before: LayerState, tanh: Tanh) -> LayerState:
    size = before[0].shape[1]
    echo += signal
    tanh(echo, out=echo)
    gates = echo[:, : 3 * size]  # input, forget, output
    gates *= _HALF
    gates += _HALF
    cell = gates[:, size : 2 * size] * before[1]
    gates[:, :size] *= echo[:, 3 * size :]  # the candidate
    cell += gates[:, :size]
    hidden = tanh(cell)
    hidden *= gates[:, 2 * size :]
    return hidden, cell


def _gru(signal: Array, echo: Array, before: LayerState, tanh: Tanh) -> LayerState:
    size = before[0].shape[1]
    gates = signal[:, : 2 * size] + echo[:, : 2 * size]  # reset, update
    tanh(gates, out=gates)
    gates *= _HALF
    gates += _HALF
    candidate = echo[:, 2 * size :]
    candidate *= gates[:, :size]
    candidate += signal[:, 2 * size :]
    tanh(candidate, out=candidate)
    hidden = before[0] - candidate
    hidden *= gates[:, size:]
    hidden += candidate
    return (hidden,)


_CELLS: dict[Cell, Callable[[Array, Array, LayerState, Tanh], LayerState]] = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}
