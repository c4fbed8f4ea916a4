"""All T steps of a layer by the compiled kernels, as a function that torch can differentiate.

What doesn't wait for the step before (the product with the inputs, the gradients of weights and inputs) is one matrix
product for all T steps, which torch does best. What does is left to ``kernels/training.py``. CPU only.

Importing this module raises ImportError where llvmlite is missing.
"""

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from charrnn.config import Cell
from charrnn.rnn.cells import EQUATIONS, Equations
from charrnn.rnn.kernels.gemm import TILE_ROWS, tile_units
from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.training import Precision, training_kernels
from charrnn.rnn.torch_rnn import LayerWeights, PackedWeights, Reset

_PRECISIONS: dict[torch.dtype, Precision] = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float64: "f64"}


def recur(
    cell: Cell,
    inputs: Tensor,
    weights: LayerWeights,
    packed: PackedWeights,
    state: tuple[Tensor, ...],
    reset: Reset = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run T steps of one layer.

    Args:
        cell: "lstm", "gru" or "rnn".
        inputs: (T, B, inputs), or ids (T, B).
        weights: of the layer.
        packed: what `pack` gave for them; its type is also that of what is kept for the gradient.
        state: (h_0,) or (h_0, c_0), each (B, H).
        reset: which streams start from a zero state before which step.

    Returns:
        h_1 to h_T as (T, B, H), and the state after the last step.

    Raises:
        IndexError: an id that has no column.
        ImportError: nothing can be compiled here.
    """
    equations, units = EQUATIONS[cell], weights.weight_hh.shape[1]
    if reset is not None and not reset.any():
        reset = None
    if missing := _missing(units):
        weights = LayerWeights(*(_padded_gates(part, equations.gates, missing) for part in weights))
        weights = weights._replace(weight_hh=functional.pad(weights.weight_hh, (0, missing)))
        state = tuple(functional.pad(part, (0, missing)) for part in state)
    outputs, *after = _Recurrence.apply(  # type: ignore[no-untyped-call]
        cell, reset, packed, inputs, *weights, state[0], state[-1]
    )
    return outputs[..., :units], tuple(part[:, :units] for part in after[2 - equations.parts :])


def compile_kernels(cell: Cell, dtype: torch.dtype) -> None:
    """Compile or load what `recur` needs, which it otherwise does when it is first called.

    Raises:
        ImportError: nothing can be compiled here.
    """
    training_kernels(cell, _PRECISIONS[dtype])


def pack(cell: Cell, weight_hh: Tensor, dtype: torch.dtype) -> PackedWeights:
    """Return recurrent weights (G * H, H), padded to whole tiles, in the order in which the kernels read them."""
    gates, width = EQUATIONS[cell].gates, tile_units(Target.host())
    missing = _missing(weight_hh.shape[1])
    weights = weight_hh.detach().to(dtype)
    if missing:
        weights = functional.pad(_padded_gates(weights, gates, missing), (0, missing))
    units, pair = weights.shape[1], 2 if dtype == torch.bfloat16 else 1  # two bfloat16 make one number
    forward = weights.view(gates, units // width, width, units // pair, pair).permute(1, 0, 3, 2, 4)
    backward = weights.view(gates, units // pair, pair, units // width, width).permute(3, 0, 1, 4, 2)
    return PackedWeights(_packed(forward.contiguous()), _packed(backward.contiguous()), dtype)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        reset: Reset,
        packed: PackedWeights,
        inputs: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        hidden_before: Tensor,
        carried_before: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (steps, batch), units, equations = inputs.shape[:2], weight_hh.shape[1], EQUATIONS[cell]
        dtype = packed.dtype
        rows, with_inputs = steps * batch, equations.gates * units
        bias = weight_ih.new_zeros(equations.pre_activations, units)
        for part, places in ((bias_ih, equations.inputs), (bias_hh, equations.recurrent)):
            bias[list(places)] += part.view(-1, units)
        bias = bias.flatten()
        gates = torch.empty(rows, len(bias), dtype=dtype)
        inputs = inputs.flatten(0, 1).contiguous()  # (T * B, inputs) or (T * B,)
        if inputs.dim() == 1:
            table = functional.pad(weight_ih.t(), (0, len(bias) - with_inputs)) + bias
            torch.index_select(table.to(dtype), 0, inputs, out=gates)
        else:
            inputs, weight_ih = inputs.to(dtype), weight_ih.to(dtype)
            torch.addmm(bias[:with_inputs].to(dtype), inputs, weight_ih.t(), out=gates[:, :with_inputs])
            gates[:, with_inputs:] = bias[with_inputs:]

        full = torch.promote_types(dtype, torch.float32)
        hidden = torch.empty(rows + batch + 1, units, dtype=dtype)
        carried = torch.empty(hidden.shape, dtype=full)
        for states, before in ((hidden, hidden_before), (carried, carried_before)):
            states[:batch], states[-1] = before, 0
        previous = torch.arange(rows)
        if reset is not None:
            previous[torch.from_numpy(reset.ravel())] = len(hidden) - 1  # the row of zeros
        ctx.kernels = training_kernels(cell, _PRECISIONS[dtype])
        ctx.workspace = torch.empty(equations.pre_activations * TILE_ROWS * tile_units(Target.host()), dtype=full)
        ctx.kernels["forward"](
            steps=steps, batch=batch, units=units, weights=_array(packed.forward), gates=_array(gates),
            hidden=_array(hidden), carried=_array(carried), previous=_array(previous),
            workspace=_array(ctx.workspace),
        )  # fmt: skip

        ctx.equations, ctx.packed, ctx.resets = equations, packed, reset is not None
        ctx.steps, ctx.batch = steps, batch
        ctx.save_for_backward(inputs, weight_ih, gates, hidden, carried, previous)
        last = slice(rows, rows + batch)
        outputs = hidden[batch : rows + batch].view(steps, batch, units)
        return outputs, hidden[last].to(full, copy=True), carried[last].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_outputs: Tensor, grad_hidden_last: Tensor, grad_carried_last: Tensor
    ) -> tuple[Tensor | None, ...]:
        inputs, weight_ih, gates, hidden, carried, previous = ctx.saved_tensors
        equations, steps, batch, units = ctx.equations, ctx.steps, ctx.batch, hidden.shape[1]
        rows, with_inputs = steps * batch, equations.gates * units
        grad_gates = torch.empty_like(gates)
        grad_bias = carried.new_zeros(equations.pre_activations * units)
        grad_hidden, grad_carried = (
            grad.clone(memory_format=torch.contiguous_format) for grad in (grad_hidden_last, grad_carried_last)
        )
        ctx.kernels["backward"](
            steps=steps, batch=batch, units=units, weights=_array(ctx.packed.backward), gates=_array(gates),
            hidden=_array(hidden), carried=_array(carried), previous=_array(previous),
            workspace=_array(ctx.workspace),
            grad_outputs=_array(grad_outputs.flatten(0, 1).contiguous()), grad_hidden=_array(grad_hidden),
            grad_carried=_array(grad_carried), grad_gates=_array(grad_gates), grad_bias=_array(grad_bias),
        )  # fmt: skip

        before = hidden[previous] if ctx.resets else hidden[:rows]
        grad_weight_hh = torch.cat([grad_gates[:, run].t() @ before for run in _runs(equations, units)])
        grad_inputs = None
        if inputs.dim() == 1:
            grad_table = torch.zeros(weight_ih.shape[1], with_inputs, dtype=carried.dtype)
            ctx.kernels["add_rows"](
                count=rows, width=with_inputs, columns=gates.shape[1], rows=_array(grad_gates), ids=_array(inputs),
                table=_array(grad_table),
            )  # fmt: skip
            grad_weight_ih = grad_table.t().contiguous()  # the fused AdamW doesn't look at strides
        else:
            grad_weight_ih = grad_gates[:, :with_inputs].t() @ inputs
            if ctx.needs_input_grad[3]:
                grad_inputs = (grad_gates[:, :with_inputs] @ weight_ih).view(steps, batch, -1)
        by_place = grad_bias.view(-1, units)
        biases = (by_place[list(places)].flatten() for places in (equations.inputs, equations.recurrent))  # copies
        grads = grad_inputs, grad_weight_ih, grad_weight_hh, *biases, grad_hidden, grad_carried
        return (None, None, None, *grads)


def _runs(equations: Equations, units: int) -> Iterator[slice]:
    """Yield the columns of the recurrent pre-activations, as few slices as there are."""
    start = previous = equations.recurrent[0]
    for place in (*equations.recurrent[1:], -1):
        if place != previous + 1:
            yield slice(start * units, (previous + 1) * units)
            start = place
        previous = place


def _missing(units: int) -> int:
    """Return how many units the last tile lacks. Those added have no weights, and stay zero."""
    return -units % tile_units(Target.host())


def _padded_gates(part: Tensor, gates: int, missing: int) -> Tensor:
    """Return weights or biases (G * H, ...) with more rows for each gate."""
    blocks = part.view(gates, -1, *part.shape[1:])
    return functional.pad(blocks, (0, 0) * (blocks.dim() - 2) + (0, missing)).flatten(0, 1)


def _packed(weights: Tensor) -> Tensor:
    """Return weights (..., U, 1 or 2) as numbers (..., U), of two bfloat16 each where there are two."""
    return weights.view(torch.uint32).squeeze(-1) if weights.shape[-1] == 2 else weights.squeeze(-1)


def _array(tensor: Tensor) -> NDArray[Any]:
    """Return the same memory for a kernel, bfloat16 as its bits."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
