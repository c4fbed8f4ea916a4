"""A recurrent layer computed by the compiled kernels, as a torch autograd function. CPU only.

Some matrix products don't depend on the previous step: the product with the inputs, and those for the gradients of
weights and inputs. Torch computes each of them once for all T steps. ``kernels/training.py`` computes the rest.

Importing this module raises ImportError if llvmlite is missing.
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
        inputs: Vectors (T, B, I), or ids (T, B).
        weights: The weights of the layer. If the inputs are ids, ``weight_ih`` has a column for each id.
        packed: The result of `pack` for ``weight_hh``. Values saved for the backward pass have the same dtype.
        state: (h_0,) or (h_0, c_0), each (B, H).
        reset: Whether a stream is reset to the zero state before a step, (T, B).

    Returns:
        The hidden states h_1 to h_T, (T, B, H), and the state after the last step.

    Raises:
        IndexError: If an id has no column in ``weight_ih``.
        ImportError: If LLVM cannot compile for this processor.
    """
    equations, units = EQUATIONS[cell], weights.weight_hh.shape[1]
    if reset is not None and not reset.any():
        reset = None
    if padding := _padding(units):
        weights = LayerWeights(*(_pad_gates(weight, equations.gates, padding) for weight in weights))
        weights = weights._replace(weight_hh=functional.pad(weights.weight_hh, (0, padding)))
        state = tuple(functional.pad(array, (0, padding)) for array in state)
    outputs, *after = _Recurrence.apply(  # type: ignore[no-untyped-call]
        cell, reset, packed, inputs, *weights, state[0], state[-1]
    )
    return outputs[..., :units], tuple(array[:, :units] for array in after[2 - equations.num_state_arrays :])


def compile_kernels(cell: Cell, dtype: torch.dtype) -> None:
    """Compile or load the kernels that `recur` needs, before its first call does.

    Raises:
        ImportError: If LLVM cannot compile for this processor.
    """
    training_kernels(cell, _PRECISIONS[dtype])


def pack(cell: Cell, weight_hh: Tensor, dtype: torch.dtype) -> PackedWeights:
    """Return recurrent weights (G * H, H) in the memory layout of the kernels, padded to whole tiles."""
    gates, width = EQUATIONS[cell].gates, tile_units(Target.host())
    padding = _padding(weight_hh.shape[1])
    weights = weight_hh.detach().to(dtype)
    if padding:
        weights = functional.pad(_pad_gates(weights, gates, padding), (0, padding))
    units, pair = weights.shape[1], 2 if dtype == torch.bfloat16 else 1  # pairs of bfloat16 are stored as uint32
    forward = weights.view(gates, units // width, width, units // pair, pair).permute(1, 0, 3, 2, 4)
    backward = weights.view(gates, units // pair, pair, units // width, width).permute(3, 0, 1, 4, 2)
    return PackedWeights(_join_pairs(forward.contiguous()), _join_pairs(backward.contiguous()), dtype)


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
        initial_hidden: Tensor,
        initial_cell_state: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (steps, batch), units, equations = inputs.shape[:2], weight_hh.shape[1], EQUATIONS[cell]
        dtype = packed.dtype
        rows, input_columns = steps * batch, equations.gates * units
        bias = weight_ih.new_zeros(equations.pre_activations, units)
        for gate_bias, slots in ((bias_ih, equations.input_slots), (bias_hh, equations.recurrent_slots)):
            bias[list(slots)] += gate_bias.view(-1, units)
        bias = bias.flatten()
        gates = torch.empty(rows, len(bias), dtype=dtype)
        inputs = inputs.flatten(0, 1).contiguous()  # (T * B, I) or (T * B,)
        if inputs.dim() == 1:
            table = functional.pad(weight_ih.t(), (0, len(bias) - input_columns)) + bias
            torch.index_select(table.to(dtype), 0, inputs, out=gates)
        else:
            inputs, weight_ih = inputs.to(dtype), weight_ih.to(dtype)
            torch.addmm(bias[:input_columns].to(dtype), inputs, weight_ih.t(), out=gates[:, :input_columns])
            gates[:, input_columns:] = bias[input_columns:]

        full_dtype = torch.promote_types(dtype, torch.float32)
        hidden = torch.empty(rows + batch + 1, units, dtype=dtype)
        cell_state = torch.empty(hidden.shape, dtype=full_dtype)
        for states, initial in ((hidden, initial_hidden), (cell_state, initial_cell_state)):
            states[:batch], states[-1] = initial, 0
        previous = torch.arange(rows)
        if reset is not None:
            previous[torch.from_numpy(reset.ravel())] = len(hidden) - 1  # the row of zeros at the end
        ctx.kernels = training_kernels(cell, _PRECISIONS[dtype])
        ctx.workspace = torch.empty(
            equations.pre_activations * TILE_ROWS * tile_units(Target.host()), dtype=full_dtype
        )
        ctx.kernels["forward"](
            steps=steps, batch=batch, units=units, weights=_array(packed.forward), gates=_array(gates),
            hidden=_array(hidden), cell_state=_array(cell_state), previous=_array(previous),
            workspace=_array(ctx.workspace),
        )  # fmt: skip

        ctx.equations, ctx.packed, ctx.has_resets = equations, packed, reset is not None
        ctx.steps, ctx.batch = steps, batch
        ctx.save_for_backward(inputs, weight_ih, gates, hidden, cell_state, previous)
        last = slice(rows, rows + batch)
        outputs = hidden[batch : rows + batch].view(steps, batch, units)
        return outputs, hidden[last].to(full_dtype, copy=True), cell_state[last].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_outputs: Tensor, grad_final_hidden: Tensor, grad_final_cell_state: Tensor
    ) -> tuple[Tensor | None, ...]:
        inputs, weight_ih, gates, hidden, cell_state, previous = ctx.saved_tensors
        equations, steps, batch, units = ctx.equations, ctx.steps, ctx.batch, hidden.shape[1]
        rows, input_columns = steps * batch, equations.gates * units
        grad_gates = torch.empty_like(gates)
        grad_bias = cell_state.new_zeros(equations.pre_activations * units)
        grad_hidden, grad_cell_state = (
            grad.clone(memory_format=torch.contiguous_format) for grad in (grad_final_hidden, grad_final_cell_state)
        )
        ctx.kernels["backward"](
            steps=steps, batch=batch, units=units, weights=_array(ctx.packed.backward), gates=_array(gates),
            hidden=_array(hidden), cell_state=_array(cell_state), previous=_array(previous),
            workspace=_array(ctx.workspace),
            grad_outputs=_array(grad_outputs.flatten(0, 1).contiguous()), grad_hidden=_array(grad_hidden),
            grad_cell_state=_array(grad_cell_state), grad_gates=_array(grad_gates), grad_bias=_array(grad_bias),
        )  # fmt: skip

        before = hidden[previous] if ctx.has_resets else hidden[:rows]
        grad_weight_hh = torch.cat(
            [grad_gates[:, columns].t() @ before for columns in _recurrent_columns(equations, units)]
        )
        grad_inputs = None
        if inputs.dim() == 1:
            grad_table = torch.zeros(weight_ih.shape[1], input_columns, dtype=cell_state.dtype)
            ctx.kernels["add_rows"](
                count=rows, width=input_columns, row_stride=gates.shape[1], rows=_array(grad_gates),
                ids=_array(inputs), table=_array(grad_table),
            )  # fmt: skip
            grad_weight_ih = grad_table.t().contiguous()  # torch's fused AdamW ignores strides
        else:
            grad_weight_ih = grad_gates[:, :input_columns].t() @ inputs
            if ctx.needs_input_grad[3]:
                grad_inputs = (grad_gates[:, :input_columns] @ weight_ih).view(steps, batch, -1)
        grad_slots = grad_bias.view(-1, units)
        # Indexing with a list copies, so that the gradients of the two biases don't share memory.
        grad_biases = (
            grad_slots[list(slots)].flatten() for slots in (equations.input_slots, equations.recurrent_slots)
        )
        grads = grad_inputs, grad_weight_ih, grad_weight_hh, *grad_biases, grad_hidden, grad_cell_state
        return (None, None, None, *grads)


def _recurrent_columns(equations: Equations, units: int) -> Iterator[slice]:
    """Yield the columns of the pre-activations that have a recurrent product, in as few slices as possible."""
    start = previous = equations.recurrent_slots[0]
    for slot in (*equations.recurrent_slots[1:], -1):
        if slot != previous + 1:
            yield slice(start * units, (previous + 1) * units)
            start = slot
        previous = slot


def _padding(units: int) -> int:
    """Return the number of units that fill up the last tile. They have zero weights, so their states stay zero."""
    return -units % tile_units(Target.host())


def _pad_gates(weight: Tensor, gates: int, padding: int) -> Tensor:
    """Return weights or biases (G * H, ...) with ``padding`` rows of zeros added to each gate."""
    blocks = weight.view(gates, -1, *weight.shape[1:])
    return functional.pad(blocks, (0, 0) * (blocks.dim() - 2) + (0, padding)).flatten(0, 1)


def _join_pairs(weights: Tensor) -> Tensor:
    """Return weights (..., U, 1 or 2) as (..., U). Pairs of bfloat16 become one uint32."""
    return weights.view(torch.uint32).squeeze(-1) if weights.shape[-1] == 2 else weights.squeeze(-1)


def _array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's memory as an array for a kernel. bfloat16 becomes uint16."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
