"""All T steps of a layer at once, forward and backward, by our own kernels and a few large matrix products.

Two kinds of work are kept apart. What does not wait for the step before (the product of the inputs, the gradients of
weights and inputs) is one product each for all T steps, which the matrix library does best, in bfloat16 if asked to.
What does is the recurrence, in ``lstm.py``, ``gru.py`` and ``rnn.py``.

Needs Numba: importing this module raises ImportError without it. CPU only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numba.core.errors import NumbaError
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from charrnn.config import Cell
from charrnn.rnn.kernels import gru, lstm, rnn, tables
from charrnn.rnn.kernels.tiles import HEIGHT, LANES, ROOM


class _Form(NamedTuple):
    """How the columns of a cell lie in the matrix of its gates, counted in blocks of H."""

    blocks: int
    inputs: slice  # columns with an input product
    hidden: slice  # columns with a recurrent product
    turn: int  # blocks by which the former are rolled against their order in the weights
    forward: Callable[..., None]
    backward: Callable[..., None]


_FORMS: dict[Cell, _Form] = {
    "lstm": _Form(4, slice(0, 4), slice(0, 4), 0, lstm.forward, lstm.backward),
    # n, r, u, m: the two halves of the candidate are kept apart, and yet each product has adjacent columns
    "gru": _Form(4, slice(0, 3), slice(1, 4), 1, gru.forward, gru.backward),
    "rnn": _Form(1, slice(0, 1), slice(0, 1), 0, rnn.forward, rnn.backward),
}


_ROOM = {1: (0, 1), 2: (0, 0, 0, 1)}  # for one more unit in each gate's biases or weights


def recur(
    cell: Cell,
    dtype: torch.dtype,
    inputs: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    hidden: Tensor,
    carry: Tensor,
    fresh: NDArray[np.bool_] | None = None,
    laid: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs T steps of one layer.

    Args:
        cell: "lstm", "gru" or "rnn".
        dtype: of the large products and of what is kept for them: float32, float64 or bfloat16.
        inputs: (T, B, inputs); or ids (T, B), and then ``weight_ih`` is a table with a column for each id.
        weights: ``weight_ih``, ``weight_hh`` and the biases, as `ModelConfig.tensor_shapes` has them.
        hidden: h_0 (B, H).
        carry: what goes from step to step without a product, (B, H): c_0 of an LSTM, h_0 of a GRU; unused by an RNN.
        fresh: (T, B), before which steps the state of which streams is zero instead.
        laid: what `lay` gives for ``weight_hh``, forward and backward, where several calls share it.

    Returns:
        h_1 to h_T as (T, B, H); h_T (B, H) and the last carry (B, H).

    Raises:
        IndexError: an id that has no column.
        RuntimeError: the kernels cannot be compiled.
    """
    units = hidden.shape[1]
    if _wants_another(units, dtype):
        weight_ih, weight_hh, bias_ih, bias_hh = (_one_more(part, units) for part in weights)
        weights = weight_ih, functional.pad(weight_hh, (0, 1)), bias_ih, bias_hh
        hidden, carry = functional.pad(hidden, (0, 1)), functional.pad(carry, (0, 1))
    try:
        outputs, last, carry = _Recurrence.apply(  # type: ignore[no-untyped-call]
            cell, dtype, fresh, laid, inputs, *weights, hidden, carry
        )
    except NumbaError as error:
        raise RuntimeError(f"the kernels cannot be compiled: {error}") from error
    return outputs[..., :units], last[:, :units], carry[:, :units]


def lay(weight_hh: Tensor, dtype: torch.dtype, backward: bool) -> NDArray[Any]:
    """Recurrent weights (gates * H, H) in the order in which the kernels read them; good until they are changed."""
    weight_hh, units = weight_hh.detach(), weight_hh.shape[1]
    if _wants_another(units, dtype):
        weight_hh = functional.pad(_one_more(weight_hh, units), (0, 1))
    weights = weight_hh.to(dtype)
    return _tiles(weights.t(), 1) if backward else _tiles(weights, len(weights) // weights.shape[1])


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        dtype: torch.dtype,
        fresh: NDArray[np.bool_] | None,
        laid: tuple[NDArray[Any], NDArray[Any]] | None,
        inputs: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        hidden_before: Tensor,
        carry_before: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (steps, batch), units, form = inputs.shape[:2], weight_hh.shape[1], _FORMS[cell]
        of_inputs, of_hidden = _columns(form.inputs, units), _columns(form.hidden, units)
        weight_ih = _roll(weight_ih, form.turn * units)
        bias = weight_ih.new_zeros(form.blocks * units)
        bias[of_inputs] += bias_ih.roll(form.turn * units)
        bias[of_hidden] += bias_hh

        gates = torch.empty(steps * batch, form.blocks * units, dtype=dtype)
        inputs = inputs.flatten(0, 1)  # (T * B, inputs) or (T * B,)
        if inputs.dim() == 1:
            if not 0 <= int(inputs.min()) <= int(inputs.max()) < weight_ih.shape[1]:
                raise IndexError("an id is not in the table")  # where it is, a kernel doesn't ask
            weight_ih = (weight_ih + bias[of_inputs, None]).to(dtype)
            tables.look_up(_array(weight_ih.t()), inputs.numpy(), _array(gates))
        else:
            inputs, weight_ih = inputs.to(dtype), weight_ih.to(dtype)
            torch.addmm(bias[of_inputs].to(dtype), inputs, weight_ih.t(), out=gates[:, of_inputs])
        gates[:, of_inputs.stop :] = bias[of_inputs.stop :]

        hidden = torch.empty((steps + 1) * batch, units, dtype=dtype)
        carry = torch.empty(hidden.shape, dtype=torch.promote_types(dtype, torch.float32))
        hidden[:batch], carry[:batch] = hidden_before, carry_before
        weights = laid[0] if laid else lay(weight_hh, dtype, backward=False)
        anew = np.zeros((steps + 1) * batch, dtype=np.bool_)
        if fresh is not None:
            anew[: steps * batch] = fresh.ravel()
        places = torch.from_numpy(np.flatnonzero(anew))
        kept = torch.empty(len(places), units, dtype=dtype), carry.new_empty(len(places), units)
        states = gates, hidden, carry
        form.forward(weights, steps, batch, *map(_array, states), anew, *map(_array, kept), _room(carry))

        ctx.form, ctx.batch, ctx.anew, ctx.laid = form, batch, anew, laid
        ctx.save_for_backward(inputs, weight_ih, weight_hh, gates, hidden, carry, kept[1])
        last = hidden[-batch:].to(carry.dtype, copy=True), carry[-batch:].clone()
        outputs = hidden[batch:]
        if len(places):  # the layer above sees what was
            later = places >= batch
            outputs = outputs.clone()
            outputs[places[later] - batch] = kept[0][later]
        return outputs.view(steps, batch, units), *last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_outputs: Tensor, grad_hidden_last: Tensor, grad_carry_last: Tensor
    ) -> tuple[Tensor | None, ...]:
        inputs, weight_ih, weight_hh, gates, hidden, carry, kept = ctx.saved_tensors
        form, batch, units = ctx.form, ctx.batch, hidden.shape[1]
        steps = len(hidden) // batch - 1
        of_inputs, of_hidden = _columns(form.inputs, units), _columns(form.hidden, units)
        grad_gates = torch.empty_like(gates)
        grad_bias = carry.new_zeros(form.blocks * units)
        grad_hidden, grad_carry = (
            grad.clone(memory_format=torch.contiguous_format) for grad in (grad_hidden_last, grad_carry_last)
        )
        forward = _array(gates), _array(hidden), _array(carry.clone() if len(kept) else carry)
        backward = _array(grad_hidden), _array(grad_carry), _array(grad_gates), _array(grad_bias)
        weights = ctx.laid[1] if ctx.laid else lay(weight_hh, gates.dtype, backward=True)
        outside = _array(grad_outputs.flatten(0, 1))
        form.backward(weights, steps, batch, *forward, ctx.anew, _array(kept), outside, *backward, _room(carry))

        grad_weight_hh = grad_gates[:, of_hidden].t() @ hidden[:-batch]
        grad_inputs = None
        if inputs.dim() == 1:
            grad_table = torch.zeros(weight_ih.t().shape, dtype=carry.dtype)
            tables.look_up_backward(_array(grad_gates), inputs.numpy(), _array(grad_table))
            grad_weight_ih = grad_table.t().contiguous()  # the fused AdamW takes it for that without a look
        else:
            grad_weight_ih = grad_gates[:, of_inputs].t() @ inputs
            if ctx.needs_input_grad[4]:
                grad_inputs = (grad_gates[:, of_inputs] @ weight_ih).view(steps, batch, -1)
        grad_weights = _roll(grad_weight_ih, -form.turn * units), grad_weight_hh
        biases = grad_bias[of_inputs].roll(-form.turn * units), grad_bias[of_hidden]  # in memory of its own each
        return (None, None, None, None, grad_inputs, *grad_weights, *biases, grad_hidden, grad_carry)


def _wants_another(units: int, dtype: torch.dtype) -> bool:
    """Whether the kernels want one more unit, which is always zero: they take bfloat16 in pairs."""
    return dtype == torch.bfloat16 and units % 2 == 1


def _one_more(part: Tensor, units: int) -> Tensor:
    """Weights or biases with a row for one more unit in each gate."""
    return functional.pad(part.view(-1, units, *part.shape[1:]), _ROOM[part.dim()]).flatten(0, 1)


def _roll(rows: Tensor, places: int) -> Tensor:
    """Rows moved on, the last ones to the front; torch copies them also where they stay."""
    return rows.roll(places, 0) if places else rows


def _columns(blocks: slice, units: int) -> slice:
    return slice(blocks.start * units, blocks.stop * units)


def _tiles(weights: Tensor, gates: int) -> NDArray[Any]:
    """Weights (gates * units, K) as the kernels have them, with zeros for the units that the last tile lacks."""
    if weights.dtype == torch.bfloat16:  # a pair in each number
        bits = weights.view(torch.int16)
        lower, upper = bits[:, 0::2].int(), bits[:, 1::2].int()
        weights = upper.bitwise_left_shift_(16).bitwise_or_(lower.bitwise_and_(0xFFFF))
    blocks = weights.reshape(gates, -1, weights.shape[1])  # (gates, units, numbers)
    blocks = functional.pad(blocks, (0, 0, 0, -blocks.shape[1] % LANES))
    tiles = _array(blocks.reshape(gates, -1, LANES, blocks.shape[2]).permute(1, 0, 3, 2))
    return tiles.view(np.uint32) if tiles.dtype == np.int32 else tiles


def _room(like: Tensor) -> NDArray[Any]:
    return _array(like.new_zeros(ROOM, HEIGHT, LANES))


def _array(tensor: Tensor) -> NDArray[Any]:
    """The same memory for a kernel, bfloat16 as its bits; contiguous, for kernels are compiled for that."""
    tensor = tensor.contiguous()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
