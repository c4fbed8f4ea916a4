"""The network in torch: ids and a state in, logits and the next state out.

The legend of shapes for the whole package: T time steps, B streams, V vocabulary size, H hidden units, L layers, E
embedding size (0 = one-hot). Time comes first: ids (T, B), logits (T, B, V).
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

Reset = NDArray[np.bool_] | None  # (T, B): which streams start from a zero state before which step; None: none does
LayerState = tuple[Tensor, ...]  # (h,), or (h, c) for an LSTM; each (B, H)


class LayerWeights(NamedTuple):
    """The weights of a layer, with torch's names and shapes."""

    weight_ih: Tensor  # (G * H, inputs); where the inputs are ids, a table with a column for each
    weight_hh: Tensor  # (G * H, H)
    bias_ih: Tensor  # (G * H,)
    bias_hh: Tensor  # (G * H,)


class PackedWeights(NamedTuple):
    """The recurrent weights of a layer as the kernels read them. Good until the weights change."""

    forward: Tensor
    backward: Tensor
    dtype: torch.dtype  # of a weight, and so of the matrix products: float32, float64 or bfloat16


_TORCH_LAYERS: dict[Cell, Callable[[int, int], nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
_FORGET_GATE = 1  # its place among the LSTM's gates


class RecurrentLayer(nn.Module):
    """One layer of one cell, over all T steps at once.

    Args:
        cell: "lstm", "gru" or "rnn".
        inputs: size of x_t.
        hidden: H, size of h_t.

    Attributes:
        native: whether the compiled kernels (``recurrence.py``) compute it, or torch's layer, with the same weights.
    """

    def __init__(self, cell: Cell, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = cell
        self.layer = _TORCH_LAYERS[cell](inputs, hidden)  # oneDNN's or cuDNN's kernel where there is one
        self.native = False

    def initialize(self, input_scale: float, generator: torch.Generator) -> None:
        """Draw the first weights.

        The recurrent matrix of each gate is orthogonal (Saxe et al. 2014), so that a state neither fades nor grows.
        Input weights of torch's own size, 1/sqrt(H), would leave a one-hot character almost without effect, which
        costs 0.1 nats after a minute of training. An LSTM's forget gate starts open, with bias 1 (Gers et al. 2000;
        Jozefowicz et al. 2015).

        Args:
            input_scale: inverse of the standard deviation of the input weights.
            generator: the source of random numbers.
        """
        weight_ih, weight_hh, bias_ih, bias_hh = self._weights()
        gates = EQUATIONS[self.cell].gates
        nn.init.normal_(weight_ih, std=1 / input_scale, generator=generator)
        for block in weight_hh.detach().chunk(gates):
            nn.init.orthogonal_(block, generator=generator)
        nn.init.zeros_(bias_ih)
        nn.init.zeros_(bias_hh)
        if self.cell == "lstm":
            bias_ih.detach().chunk(gates)[_FORGET_GATE].fill_(1)

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
            inputs: (T, B, inputs); or ids (T, B), each standing for its row of ``embedding`` or a one-hot vector.
            state: the state before them.
            embedding: (V, inputs), the vectors of the ids.
            reset: where streams start from a zero state.
            packed: what `pack` gave of these weights; without it the kernels pack them for each call.

        Returns:
            h_1 to h_T as (T, B, H), and the state after the last step.
        """
        if self.native:
            return self._native(inputs, state, embedding, reset, packed)
        if not inputs.is_floating_point():
            inputs = self._vectors(inputs, embedding)
        outputs = []
        for start, stop, streams in _without_resets(reset, len(inputs)):
            if len(streams):
                rows = torch.from_numpy(streams).to(inputs.device)
                state = tuple(part.index_fill(0, rows, 0) for part in state)
            output, state = self._torch(inputs[start:stop], state)
            outputs.append(output)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs), state

    def pack(self) -> PackedWeights:
        """Return the recurrent weights as the kernels read them, good until they change."""
        from charrnn.rnn.recurrence import pack

        weight_hh = self._weights()[1]
        return pack(self.cell, weight_hh, _product_type(weight_hh))

    def _torch(self, inputs: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Run steps in which no stream is reset."""
        before = tuple(part.unsqueeze(0) for part in state)  # (1, B, H) each
        outputs, after = self.layer(inputs, before if len(before) > 1 else before[0])
        return outputs, tuple(part.squeeze(0) for part in (after if isinstance(after, tuple) else (after,)))

    def _native(
        self,
        inputs: Tensor,
        state: LayerState,
        embedding: Tensor | None,
        reset: Reset,
        packed: PackedWeights | None,
    ) -> tuple[Tensor, LayerState]:
        from charrnn.rnn.recurrence import recur  # llvmlite, which torch's layers do without

        weights = self._weights()
        if embedding is not None:  # ids: their products are looked up in a table, unless it is larger than they are
            if len(embedding) <= inputs.numel():
                weights = weights._replace(weight_ih=weights.weight_ih @ embedding.t())  # (rows, V)
            else:
                inputs = self._vectors(inputs, embedding)
        return recur(self.cell, inputs, weights, packed or self.pack(), state, reset)

    def _weights(self) -> LayerWeights:
        return LayerWeights(*(cast(Tensor, getattr(self.layer, name)) for name in _WEIGHTS))

    def _vectors(self, ids: Tensor, embedding: Tensor | None) -> Tensor:
        """Return ids as (T, B, inputs)."""
        if embedding is not None:
            return functional.embedding(ids, embedding)
        weights = self._weights().weight_ih
        return functional.one_hot(ids, weights.shape[1]).to(weights.dtype)


class CharRNN(nn.Module):
    """A stack of recurrent layers between characters and a distribution over the next character.

    Args:
        config: cell, layers, hidden, embedding, dropout.
        vocab_size: V.
        boundary_id: the id with which a document starts: reading it resets a stream.
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
        """Draw the first weights; the same seed gives the same ones."""
        generator = torch.Generator().manual_seed(seed)
        input_scale = 1.0  # the norm of a one-hot vector
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, generator=generator)
            input_scale = self.config.embedding**0.5
        for layer in self._stack:
            layer.initialize(input_scale, generator)
            input_scale = (2 * self.config.hidden) ** 0.5  # found by trial
        nn.init.xavier_uniform_(self.output.weight, generator=generator)
        nn.init.zeros_(self.output.bias)

    @property
    def native(self) -> bool:
        """Whether the compiled kernels compute the layers, or torch."""
        return self._stack[0].native

    @native.setter
    def native(self, native: bool) -> None:
        for layer in self._stack:
            layer.native = native

    def compile_kernels(self) -> None:
        """Compile the kernels of a native network for the present precision, before threads need them.

        Raises:
            ImportError: nothing can be compiled here.
        """
        if self.native:
            from charrnn.rnn.recurrence import compile_kernels

            compile_kernels(self.config.cell, _product_type(self.output.weight))

    def zero_state(self, batch_size: int) -> State:
        """Return the state of B streams before their first character."""
        return State.zeros(self.config, batch_size, self.output.weight.new_zeros)

    def packing(self) -> list[Callable[[], PackedWeights]]:
        """Return functions that pack the weights of a layer each, to be run side by side.

        Their results, in this order, may be given to every `read` until the weights change.
        """
        return [layer.pack for layer in self._stack if self.native]

    def forward(
        self, ids: Tensor, state: State, dropout: torch.Generator | None = None, reset: Reset = None
    ) -> tuple[Tensor, State]:
        """Return logits of the next character (T, B, V), and the state after the last one; see `read`."""
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
            ids: (T, B), integers below V.
            state: the state before them.
            dropout: the source of dropout's random numbers; None switches dropout off.
            reset: which streams are reset before which step (T, B). Left out, they are reset before a boundary.
            packed: results of `packing`, where several calls share them.

        Returns:
            What ``output`` takes for logits (T, B, H), and the state after the last character.
        """
        hidden, vectors = ids, self.embedding.weight if self.embedding is not None else None
        if reset is None and self.boundary_id is not None:
            reset = (ids == self.boundary_id).cpu().numpy()
        after = []
        for index, (layer, before) in enumerate(zip(self._stack, state.layers, strict=True)):
            hidden, layer_state = layer(
                hidden, before, vectors, reset, packed[index] if packed else None
            )  # (T, B, H)
            vectors = None
            after.append(layer_state)
            if dropout is not None and self.config.dropout:
                hidden = _drop(hidden, self.config.dropout, dropout)
        return hidden, State(tuple(after))

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of the weights under their plain names, as `ModelConfig.tensor_shapes` lists them."""
        return {
            plain_name(name): value.detach().float().cpu().numpy().copy() for name, value in self.state_dict().items()
        }

    def load_tensors(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Take over weights that `tensors` gave."""
        self.load_state_dict({name: torch.from_numpy(tensors[plain_name(name)]) for name in self.state_dict()})


def detach(state: State) -> State:
    """Return the state in float32 without its graph, so that gradients end here."""
    return state.map(lambda part: part.detach().float())


def plain_name(name: str) -> str:
    """Return what a parameter is called in `ModelConfig.tensor_shapes`."""
    return name.replace(".layer.", ".").removesuffix("_l0")


def _drop(values: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Apply dropout between layers (Zaremba et al. 2014), to the same units for all T steps (Gal & Ghahramani 2016).

    A mask for every step would take more random numbers than everything else in a step together, and by trial the
    network learns less with it.
    """
    drawn = torch.empty_like(values[0], dtype=torch.float32).uniform_(generator=generator)  # (B, H)
    return values * (drawn >= share).to(values.dtype).mul_(1 / (1 - share))


def _product_type(weights: Tensor) -> torch.dtype:
    """Return the type in which the CPU multiplies weights."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weights.dtype


def _without_resets(reset: Reset, steps: int) -> Iterator[tuple[int, int, NDArray[np.intp]]]:
    """Yield runs of steps without a reset in between: start, stop, and the streams that are reset at the start."""
    starts = [] if reset is None else np.flatnonzero(reset.any(axis=1)).tolist()
    for start, stop in pairwise([0, *(start for start in starts if start), steps]):
        yield start, stop, np.empty(0, dtype=np.intp) if reset is None else np.flatnonzero(reset[start])
