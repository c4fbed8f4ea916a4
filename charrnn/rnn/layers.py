"""The recurrent cells: their equations, their first weights, and what computes them.

x_t is the input, h_t the hidden state, c_t the cell state, * the elementwise product, s the logistic function; W_x
and W_h stand for the rows of ``weight_ih`` and ``weight_hh`` that belong to a gate, b for the sum of the two biases.

RNN (Elman 1990)
    h_t = tanh(W_x x_t + W_h h_{t-1} + b)

LSTM (Hochreiter & Schmidhuber 1997; the forget gate: Gers, Schmidhuber & Cummins 2000); rows in the order i, f, g, o
    i, f, o = s(W_x x_t + W_h h_{t-1} + b)     input, forget and output gate, each with rows of its own
    g       = tanh(W_x x_t + W_h h_{t-1} + b)  candidate
    c_t     = f * c_{t-1} + i * g
    h_t     = o * tanh(c_t)

GRU (Cho et al. 2014, in the form that cuDNN and torch compute); rows in the order r, u, n
    r, u = s(W_x x_t + W_h h_{t-1} + b)        reset and update gate
    n    = tanh(W_x x_t + b_x + r * (W_h h_{t-1} + b_h))
    h_t  = (1 - u) * n + u * h_{t-1}
  The reset gate acts after the matrix product. Lecture notes often print tanh(W_x x_t + W_h (r * h_{t-1})), which is
  another function, and some of them swap u and 1 - u.

Knows nothing about stacking, characters or training.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from charrnn.config import GATES, Cell

LayerState = tuple[Tensor, ...]  # (h,), or (h, c) for an LSTM; each (B, H)
Laid = tuple[NDArray[Any], NDArray[Any]]  # a layer's recurrent weights, in the kernels' order: forward, backward
Fresh = NDArray[np.bool_] | None  # (T, B), before which steps the state of which streams is zero; None is of none

_STOCK: dict[Cell, Callable[[int, int], nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
_FORGET_GATE = 1  # its place among the LSTM's blocks of rows


class RecurrentLayer(nn.Module):
    """One layer of one cell, over all T steps at once.

    Args:
        cell: "lstm", "gru" or "rnn".
        inputs: size of x_t.
        hidden: H, size of h_t.

    Attributes:
        fused: whether our own kernels (``recurrence.py``) compute it, or torch's layer, with the same weights.
    """

    def __init__(self, cell: Cell, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = cell
        self.hidden = hidden
        self.stock = _STOCK[cell](inputs, hidden)  # oneDNN's or cuDNN's kernel where there is one
        self.fused = False

    def initialize(self, input_scale: float, generator: torch.Generator) -> None:
        """Draws the first weights.

        The recurrent matrix of each gate is orthogonal (Saxe et al. 2014), so that a state neither fades nor grows.
        The character must be heard: torch's own 1/sqrt(H) for the input weights leaves a one-hot character almost
        unheard, and costs 0.1 nats after a minute of training. An LSTM's forget gate starts open,
        with bias 1 (Gers et al. 2000; Jozefowicz et al. 2015).

        Args:
            input_scale: inverse of the standard deviation of the input weights.
            generator: where the randomness comes from.
        """
        stock = self.stock
        nn.init.normal_(cast(Tensor, stock.weight_ih_l0), std=1 / input_scale, generator=generator)
        for block in cast(Tensor, stock.weight_hh_l0).detach().chunk(GATES[self.cell]):
            nn.init.orthogonal_(block, generator=generator)
        nn.init.zeros_(cast(Tensor, stock.bias_ih_l0))
        nn.init.zeros_(cast(Tensor, stock.bias_hh_l0))
        if self.cell == "lstm":
            cast(Tensor, stock.bias_ih_l0).detach().chunk(GATES[self.cell])[_FORGET_GATE].fill_(1)

    def zero_state(self, batch_size: int, like: Tensor) -> LayerState:
        """The state before the first character, for B streams, on the device of ``like``."""
        return tuple(like.new_zeros(batch_size, self.hidden) for _ in range(2 if self.cell == "lstm" else 1))

    def forward(
        self,
        inputs: Tensor,
        state: LayerState,
        embedding: Tensor | None = None,
        fresh: Fresh = None,
        laid: Laid | None = None,
    ) -> tuple[Tensor, LayerState]:
        """Runs T steps.

        Args:
            inputs: (T, B, inputs); or ids (T, B), each standing for its row of ``embedding`` or a one-hot vector.
            state: the state before them.
            embedding: (V, inputs), the vectors of the ids.
            fresh: where streams begin anew.
            laid: what `lay` gave of these weights, which the kernels else do for each call.

        Returns:
            h_1 to h_T as (T, B, H), and the state after the last step.
        """
        if self.fused:
            return self._fused(inputs, state, embedding, fresh, laid)
        return self._stock(inputs, state, embedding, fresh)

    def lay(self, backward: bool) -> NDArray[Any]:
        """One half of what ``forward`` takes as ``laid``."""
        from charrnn.rnn.recurrence import lay

        weights = cast(Tensor, self.stock.weight_hh_l0)
        return lay(weights, _product_type(weights), backward)

    def _stock(
        self, inputs: Tensor, state: LayerState, embedding: Tensor | None, fresh: Fresh
    ) -> tuple[Tensor, LayerState]:
        if not inputs.is_floating_point():
            inputs = self._vectors(inputs, embedding)
        outputs = []
        for begin, end, streams in _stretches(fresh, len(inputs)):
            if len(streams):
                rows = torch.from_numpy(streams).to(inputs.device)
                state = tuple(part.index_fill(0, rows, 0) for part in state)
            output, state = self._stretch(inputs[begin:end], state)
            outputs.append(output)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs), state

    def _stretch(self, inputs: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Steps in which no stream begins anew."""
        held = tuple(part.unsqueeze(0) for part in state)  # (1, B, H) each
        outputs, after = self.stock(inputs, held if len(held) > 1 else held[0])
        return outputs, tuple(part.squeeze(0) for part in (after if isinstance(after, tuple) else (after,)))

    def _fused(
        self, inputs: Tensor, state: LayerState, embedding: Tensor | None, fresh: Fresh, laid: Laid | None
    ) -> tuple[Tensor, LayerState]:
        from charrnn.rnn.recurrence import recur  # Numba, which the stock layers do without

        weight_ih, weight_hh, bias_ih, bias_hh = (cast(Tensor, getattr(self.stock, name)) for name in _WEIGHTS)
        if embedding is not None:  # ids: their products are looked up in a table, if it isn't larger than they are
            if len(embedding) <= inputs.numel():
                weight_ih = weight_ih @ embedding.t()  # (rows, V)
            else:
                inputs = self._vectors(inputs, embedding)
        weights = weight_ih, weight_hh, bias_ih, bias_hh
        dtype = _product_type(weight_hh)
        outputs, hidden, carry = recur(self.cell, dtype, inputs, weights, state[0], state[-1], fresh, laid)
        return outputs, {"lstm": (hidden, carry), "gru": (carry,), "rnn": (hidden,)}[self.cell]

    def _vectors(self, ids: Tensor, embedding: Tensor | None) -> Tensor:
        """As (T, B, inputs)."""
        if embedding is not None:
            return functional.embedding(ids, embedding)
        weights = cast(Tensor, self.stock.weight_ih_l0)
        return functional.one_hot(ids, weights.shape[1]).to(weights.dtype)


def _product_type(weights: Tensor) -> torch.dtype:
    """In which the CPU multiplies them."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weights.dtype


def _stretches(fresh: Fresh, steps: int) -> Iterator[tuple[int, int, NDArray[np.intp]]]:
    """The steps in which no stream begins anew: the first, the one after the last, and who does before the first."""
    begins = [] if fresh is None else np.flatnonzero(fresh.any(axis=1)).tolist()
    for begin, end in pairwise([0, *(begin for begin in begins if begin), steps]):
        yield begin, end, np.empty(0, dtype=np.intp) if fresh is None else np.flatnonzero(fresh[begin])
