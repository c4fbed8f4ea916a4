"""The network in torch: ids and a state in, logits and the next state out.

Shapes in the whole package: T time steps, B streams, V vocabulary size, H hidden units, L layers, E embedding size
(0 = one-hot), G gates. Arrays are time-major: ids (T, B), logits (T, B, V).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from charrnn.config import Cell, ModelConfig
from charrnn.rnn.cells import EQUATIONS
from charrnn.rnn.state import State

Reset = NDArray[np.bool_] | None  # (T, B), whether a stream is reset to the zero state before a step
LayerState = tuple[Tensor, ...]  # (h,), or (h, c) for an LSTM; each (B, H)


class LayerWeights(NamedTuple):
    """The weights of a layer, with torch's names and shapes."""

    weight_ih: Tensor  # (G * H, I); if the inputs are ids, a table (G * H, V) with a column for each id
    weight_hh: Tensor  # (G * H, H)
    bias_ih: Tensor  # (G * H,)
    bias_hh: Tensor  # (G * H,)


class PackedWeights(NamedTuple):
    """The recurrent weights of a layer in the memory layout of the kernels. Valid until the weights change."""

    forward: Tensor
    backward: Tensor
    dtype: torch.dtype  # of the operands of matrix products: float32, float64 or bfloat16


_TORCH_LAYERS: dict[Cell, Callable[[int, int], nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
_FORGET_GATE = 1  # index among the gates of an LSTM


class RecurrentLayer(nn.Module):
    """A recurrent layer that computes all T steps of a chunk in one call.

    Args:
        cell: "lstm", "gru" or "rnn".
        inputs: I, the size of x_t.
        hidden: H, the size of h_t.

    Attributes:
        native: Whether the compiled kernels (``recurrence.py``) compute the layer instead of torch. Both use the same
            weights.
    """

    def __init__(self, cell: Cell, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = cell
        self.layer = _TORCH_LAYERS[cell](inputs, hidden)  # uses oneDNN or cuDNN where available
        self.native = False

    def initialize(self, input_scale: float, generator: torch.Generator) -> None:
        """Draw the initial weights.

        The recurrent matrix of each gate is orthogonal (Saxe et al. 2014), so that a state neither fades nor grows.
        With torch's default scale for input weights, 1/sqrt(H), a one-hot character would have almost no effect; this
        costs 0.1 nats after a minute of training. The forget-gate bias of an LSTM is initialized to 1 (Gers et al.
        2000; Jozefowicz et al. 2015).

        Args:
            input_scale: The inverse of the standard deviation of the input weights.
            generator: The source of random numbers.
        """
        weight_ih, weight_hh, bias_ih, bias_hh = self._weights()
        gates = EQUATIONS[self.cell].gates
        nn.init.normal_(weight_ih, std=1 / input_scale, generator=generator)
        for block in weight_hh.detach().chunk(gates):
            nn.init.orthogonal_(block, generator=generator)
        nn.init.zeros_(bias_ih)
        nn.init.zeros_(bias_hh)
        if self.cell == "lstm":
            bias_ih.detach().chunk(gates)[_FORGET_GATE].fill_(1)  # the forget gate's bias

    def forward(
        self,
        inputs: Tensor,
        state: LayerState,
        embedding: Tensor | None = None,
        reset: Reset = None,
        packed: PackedWeights | None = None,
    ) -> tuple[Tensor, LayerState]:
        """Run T steps.

        Args:
            inputs: Vectors (T, B, I), or ids (T, B). An id stands for a row of ``embedding``, or a one-hot vector.
            state: The state before the first step.
            embedding: The vectors of the ids, (V, I); None means one-hot.
            reset: Whether a stream is reset to the zero state before a step, (T, B). None means never.
            packed: The result of `pack`. If it is None, a native layer packs its weights in each call.

        Returns:
            The hidden states h_1 to h_T, (T, B, H), and the state after the last step.
        """
        if self.native:
            return self._forward_native(inputs, state, embedding, reset, packed)
        if not inputs.is_floating_point():
            inputs = self._embed(inputs, embedding)
        outputs = []
        for start, stop, streams in _without_resets(reset, len(inputs)):
            if len(streams):
                rows = torch.from_numpy(streams).to(inputs.device)
                state = tuple(array.index_fill(0, rows, 0) for array in state)
            output, state = self._forward_torch(inputs[start:stop], state)
            outputs.append(output)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs), state

    def pack(self) -> PackedWeights:
        """Return the recurrent weights in the memory layout of the kernels."""
        from charrnn.rnn.recurrence import pack

        weight_hh = self._weights()[1]
        return pack(self.cell, weight_hh, _matmul_dtype(weight_hh))

    def _forward_torch(self, inputs: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Run steps without resets in torch's layer."""
        before = tuple(array.unsqueeze(0) for array in state)  # (1, B, H) each
        outputs, after = self.layer(inputs, before if len(before) > 1 else before[0])
        return outputs, tuple(array.squeeze(0) for array in (after if isinstance(after, tuple) else (after,)))

    def _forward_native(
        self,
        inputs: Tensor,
        state: LayerState,
        embedding: Tensor | None,
        reset: Reset,
        packed: PackedWeights | None,
    ) -> tuple[Tensor, LayerState]:
        from charrnn.rnn.recurrence import recur  # imports llvmlite, which torch's layers don't need

        weights = self._weights()
        if embedding is not None:
            # Look up the input products of ids in a table, unless it would have more rows than there are ids.
            if len(embedding) <= inputs.numel():
                weights = weights._replace(weight_ih=weights.weight_ih @ embedding.t())  # (G * H, V)
            else:
                inputs = self._embed(inputs, embedding)
        return recur(self.cell, inputs, weights, packed or self.pack(), state, reset)

    def _weights(self) -> LayerWeights:
        return LayerWeights(*(cast(Tensor, getattr(self.layer, name)) for name in _WEIGHTS))

    def _embed(self, ids: Tensor, embedding: Tensor | None) -> Tensor:
        """Return the input vectors of ids (T, B): embeddings or one-hot vectors, (T, B, I)."""
        if embedding is not None:
            return functional.embedding(ids, embedding)
        weights = self._weights().weight_ih
        return functional.one_hot(ids, weights.shape[1]).to(weights.dtype)


class CharRNN(nn.Module):
    """A character-level recurrent network: an optional embedding, recurrent layers, and an output layer.

    Args:
        config: Cell, number of layers, sizes and dropout.
        vocab_size: V.
        boundary_id: The id of a document boundary, or None. A stream is reset before it reads a boundary.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, boundary_id: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.boundary_id = boundary_id
        self.embedding = nn.Embedding(vocab_size, config.embedding) if config.embedding else None
        sizes = [config.embedding or vocab_size, *[config.hidden] * config.layers]
        self._stack = [RecurrentLayer(config.cell, inputs, config.hidden) for inputs in sizes[: config.layers]]
        self.layers = nn.ModuleList(self._stack)
        self.output = nn.Linear(config.hidden, vocab_size)

    def initialize(self, seed: int) -> None:
        """Draw the initial weights from a seed."""
        generator = torch.Generator().manual_seed(seed)
        input_scale = 1.0  # the norm of a one-hot vector
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, generator=generator)
            input_scale = self.config.embedding**0.5
        for layer in self._stack:
            layer.initialize(input_scale, generator)
            input_scale = (2 * self.config.hidden) ** 0.5  # chosen by experiment
        nn.init.xavier_uniform_(self.output.weight, generator=generator)
        nn.init.zeros_(self.output.bias)

    @property
    def native(self) -> bool:
        """Whether the compiled kernels compute the layers, instead of torch."""
        return self._stack[0].native

    @native.setter
    def native(self, native: bool) -> None:
        for layer in self._stack:
            layer.native = native

    def compile_kernels(self) -> None:
        """Compile the kernels of a native network for the current precision, before threads need them.

        Raises:
            ImportError: If LLVM cannot compile for this processor.
        """
        if self.native:
            from charrnn.rnn.recurrence import compile_kernels

            compile_kernels(self.config.cell, _matmul_dtype(self.output.weight))

    def zero_state(self, batch_size: int) -> State:
        """Return the zero state of B streams."""
        return State.zeros(self.config, batch_size, self.output.weight.new_zeros)

    def packing(self) -> list[Callable[[], PackedWeights]]:
        """Return a function for each native layer that packs its weights. These functions may run in parallel.

        Pass their results to `read`, in the same order. They are valid until the weights change.
        """
        return [layer.pack for layer in self._stack if self.native]

    def forward(
        self, ids: Tensor, state: State, dropout: torch.Generator | None = None, reset: Reset = None
    ) -> tuple[Tensor, State]:
        """Return the logits of the next characters (T, B, V), and the state after the last step; see `read`."""
        hidden, after = self.read(ids, state, dropout, reset)
        return self.output(hidden), after

    def read(
        self,
        ids: Tensor,
        state: State,
        dropout: torch.Generator | None = None,
        reset: Reset = None,
        packed: Sequence[PackedWeights] = (),
    ) -> tuple[Tensor, State]:
        """Read T characters of B streams.

        Args:
            ids: Ids of the characters, (T, B).
            state: The state before the first step.
            dropout: The source of random numbers for dropout; None disables dropout.
            reset: Whether a stream is reset to the zero state before a step, (T, B). None means at document
                boundaries.
            packed: The weights that the functions of `packing` returned. Several calls can share them.

        Returns:
            The inputs of the output layer (T, B, H), and the state after the last step.
        """
        hidden, vectors = ids, self.embedding.weight if self.embedding is not None else None
        if reset is None and self.boundary_id is not None:
            reset = (ids == self.boundary_id).cpu().numpy()  # reset the state at every document boundary
        after = []
        for index, (layer, before) in enumerate(zip(self._stack, state.layers, strict=True)):
            layer_packed = packed[index] if packed else None
            hidden, layer_state = layer(hidden, before, vectors, reset, layer_packed)  # (T, B, H)
            vectors = None
            after.append(layer_state)
            if dropout is not None and self.config.dropout:
                hidden = _dropout(hidden, self.config.dropout, dropout)
        return hidden, State(tuple(after))

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of the weights, with the names of `ModelConfig.tensor_shapes`."""
        return {
            plain_name(name): value.detach().float().cpu().numpy().copy() for name, value in self.state_dict().items()
        }

    def load_tensors(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Load weights with the names of `ModelConfig.tensor_shapes`."""
        self.load_state_dict({name: torch.from_numpy(tensors[plain_name(name)]) for name in self.state_dict()})


def detach(state: State) -> State:
    """Return the state in float32, detached from the autograd graph."""
    return state.map(lambda tensor: tensor.detach().float())


def plain_name(name: str) -> str:
    """Return the name in `ModelConfig.tensor_shapes` of a parameter."""
    return name.replace(".layer.", ".").removesuffix("_l0")


def _dropout(values: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Apply dropout to the outputs of a layer (Zaremba et al. 2014), with one mask for all T steps.

    The shared mask is that of Gal & Ghahramani (2016). Drawing a mask for every step takes longer than the rest of
    the step, and networks learned less that way in experiments.
    """
    drawn = torch.empty_like(values[0], dtype=torch.float32).uniform_(generator=generator)  # (B, H)
    return values * (drawn >= probability).to(values.dtype).mul_(1 / (1 - probability))


def _matmul_dtype(weights: Tensor) -> torch.dtype:
    """Return the dtype of matrix products with these weights on the CPU."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weights.dtype


def _without_resets(reset: Reset, steps: int) -> Iterator[tuple[int, int, NDArray[np.intp]]]:
    """Yield ranges of steps that no reset interrupts: start, stop, and the streams that are reset at the start."""
    starts = [] if reset is None else np.flatnonzero(reset.any(axis=1)).tolist()
    for start, stop in pairwise([0, *(start for start in starts if start), steps]):
        yield start, stop, np.empty(0, dtype=np.intp) if reset is None else np.flatnonzero(reset[start])
