"""The kernel that generates text: T steps of the network in int8, each of which samples the next id.

Weights are quantized to int8 with a scale for each row, and hidden states to int16 (``rnn/quantize.py``). All
other values of the network are float32, and every operation is rounded separately. ``numpy_rnn.py`` uses the same
equations and the same order of operations, so both are bit-identical.

Importing this module raises ImportError if llvmlite is missing.
"""

from collections.abc import Callable
from functools import cache

from llvmlite import ir

from charrnn.config import Cell
from charrnn.rnn.cells import EQUATIONS
from charrnn.rnn.kernels.categorical import Scores, sample_id, surprisal
from charrnn.rnn.kernels.int8_gemv import Matrix, for_streams
from charrnn.rnn.kernels.jit import Kernel, load_kernels
from charrnn.rnn.kernels.object_cache import Target, is_cached
from charrnn.rnn.kernels.simd import F32, F64, I8, I16, I64, LANES, SHORT, Function, Index, Memory, Parameters
from charrnn.rnn.tanh_approx import tanh

_PARAMETERS: Parameters = {
    "streams": int, "steps": int, "layers": int, "units": int, "width": int, "vocab_size": int, "measure": int,
    "levels": float, "input_table": F32,
    "recurrent": I8, "recurrent_scales": F32, "recurrent_biases": F32,
    "input": I8, "input_scales": F32, "input_biases": F32,
    "output": I8, "output_scales": F32, "output_biases": F32,
    "penalties": F32, "hidden": F32, "cell_state": F32, "quantized_hidden": I16, "input_products": F32,
    "current_ids": I64, "forced_ids": I64, "uniforms": F64, "temperatures": F64, "logits": F32,
    "cumulative_sums": F64, "next_ids": I64, "logit_gaps": F64, "exp_sums": F64,
}  # fmt: skip


@cache
def decoding_kernel(cell: Cell, target: Target | None = None) -> Kernel:
    """Return the kernel that reads and samples characters of S streams.

    The kernel's parameters:
        streams, steps, layers: S, T, L.
        units: H, padded to a multiple of LANES.
        width: W, which is V padded to a multiple of LANES.
        vocab_size: V.
        measure: Whether to compute ``logit_gaps`` and ``exp_sums``.
        levels: The integer that represents a hidden state of 1.
        input_table: The input product of each id in layer 0, (V, G * H), in the order of the panels.
        recurrent, recurrent_scales, recurrent_biases: The recurrent weights of the L layers (``packing.py``).
        input, input_scales, input_biases: The input weights of layers 1 to L - 1.
        output, output_scales, output_biases: The weights of the output layer.
        penalties: (2, W), added to logits; row 0 for the surprisal, row 1 for sampling.
        hidden: The hidden state, (L, S, H), which is updated.
        cell_state: The cell state, (L, S, H), which is updated. Used only by an LSTM.
        quantized_hidden: (2, L, S, H). Row 0 is the quantized hidden state; row 1 is workspace.
        input_products: Workspace, (S, G * LANES).
        current_ids: The ids to read first, (S,), which are overwritten.
        forced_ids: The ids to read after each step, (T, S). Where they are negative, an id is sampled.
        uniforms: Random numbers in [0, 1) for sampling, (T, S).
        temperatures: Sampling temperatures, (T, S).
        logits: Output: the logits after the last step, (S, W).
        cumulative_sums: Workspace, (W,).
        next_ids: Output: the forced or sampled id after each step, (T, S).
        logit_gaps, exp_sums: Output: both parts of the `surprisal` of sampled ids, (T, S).

    Args:
        cell: The cell of the network.
        target: The processor; None means that of this machine.

    Raises:
        ImportError: If LLVM cannot compile for the processor.
    """
    functions = {"decode": _PARAMETERS}
    return load_kernels(f"decode_{cell}", functions, lambda processor: _build(cell, processor), target)["decode"]


def is_compiled(cell: Cell) -> bool:
    """Return whether the cache has the compiled kernel of a cell."""
    return is_cached(f"decode_{cell}", Target.host())


def _build(cell: Cell, target: Target) -> ir.Module:
    module = ir.Module(f"decode_{cell}")
    fn = Function(module, "decode", _PARAMETERS)
    streams, layers, units, width = fn["streams"], fn["layers"], fn["units"], fn["width"]
    equations = EQUATIONS[cell]
    layer_size = streams * units  # elements of an array of a layer's state
    gate_lanes = equations.gates * LANES
    recurrent, inputs, output = (
        Matrix(fn[name], fn[f"{name}_scales"], fn[f"{name}_biases"], gates)
        for name, gates in (("recurrent", equations.gates), ("input", equations.gates), ("output", 1))
    )

    def advance(
        layer: Index, panel: Index, before: Memory, after: Memory, input_products: Callable[[Index], Memory]
    ) -> None:
        """Emit a step of one panel of a layer for all streams.

        Args:
            layer: The index of the layer.
            panel: The index of the panel.
            before: The layer's quantized hidden state before the step.
            after: The layer's quantized hidden state after the step.
            input_products: Returns the input products of a stream, (G, LANES).
        """
        matrix = recurrent.at(layer * (units // LANES) + panel, units)
        panel_offset = layer * layer_size + panel * LANES

        def emit(first: Index, count: int) -> None:
            hidden = [before.at((first + n) * units) for n in range(count)]
            for n, recurrent_products in enumerate(matrix.multiply(fn, target, hidden, units)):
                stream = first + n
                products = [input_products(stream).at(gate * LANES).vector() for gate in range(equations.gates)]
                offset = panel_offset + stream * units
                memories = [memory.at(offset) for memory in (fn["hidden"], fn["cell_state"])]
                memories = memories[: equations.num_state_arrays]
                pre = equations.pre(tuple(products), tuple(recurrent_products))
                _, new_state = equations.step(pre, tuple(memory.vector() for memory in memories), tanh)
                for memory, value in zip(memories, new_state, strict=True):
                    memory.store_vector(value)
                levels = fn["levels"].to(F32.type).broadcast()
                quantized = (new_state[0] * levels + 0.5).maximum(-levels).minimum(levels).floor()
                after.at(panel * LANES + stream * units).store(
                    fn.builder.trunc(quantized, ir.VectorType(SHORT, LANES))
                )

        for_streams(fn, streams, emit)

    def project(matrix: Matrix, hidden: Memory, result: Memory, row_stride: Index) -> None:
        """Emit the product of hidden states with one panel, and store it in rows of a result."""

        def emit(first: Index, count: int) -> None:
            states = [hidden.at((first + n) * units) for n in range(count)]
            for n, products in enumerate(matrix.multiply(fn, target, states, units)):
                for gate, product in enumerate(products):
                    result.at((first + n) * row_stride + gate * LANES).store_vector(product)

        for_streams(fn, streams, emit)

    with fn.range(fn["steps"]) as step:
        # One row of quantized_hidden is the state before a step, and the other the state after it. They take turns.
        quantized_hidden, state_size = fn["quantized_hidden"], layers * layer_size
        before, after = quantized_hidden.at(step % 2 * state_size), quantized_hidden.at((step + 1) % 2 * state_size)
        with fn.range(units // LANES) as panel:
            table_columns, row_stride = fn["input_table"].at(panel * gate_lanes), units * equations.gates
            advance(
                fn.index(0), panel, before, after,
                lambda stream: table_columns.at(fn["current_ids"].at(stream).index() * row_stride),
            )  # fmt: skip
        with fn.range(1, layers) as layer:
            below, offset = after.at((layer - 1) * layer_size), layer * layer_size
            with fn.range(units // LANES) as panel:  # all streams, while the panel's weights are in the cache
                matrix = inputs.at((layer - 1) * (units // LANES) + panel, units)
                input_products = fn["input_products"]
                project(matrix, below, input_products, fn.index(gate_lanes))
                advance(
                    layer, panel, before.at(offset), after.at(offset),
                    lambda stream: input_products.at(stream * gate_lanes),
                )  # fmt: skip
        last_hidden = after.at((layers - 1) * layer_size)
        with fn.range(width // LANES) as panel:
            project(output.at(panel, units), last_hidden, fn["logits"].at(panel * LANES), width)
        with fn.range(streams) as stream:
            _sample_next(fn, step, stream)
    fn.finish()
    return module


def _sample_next(fn: Function, step: Index, stream: Index) -> None:
    """Emit code that sets the next id of a stream: the forced id, or a sampled one."""
    width, offset = fn["width"], step * fn["streams"] + stream
    logits, penalties = fn["logits"].at(stream * width), fn["penalties"]
    current_id, forced_id = fn["current_ids"].at(stream), fn["forced_ids"].at(offset).index()
    current_id.store(forced_id)
    with fn.when(forced_id.compare("<", 0)):
        uniform, temperature = fn["uniforms"].at(offset).number(), fn["temperatures"].at(offset).number()
        scores = Scores(logits, penalties.at(width), width)
        sampled = sample_id(fn, scores, uniform, temperature, fn["cumulative_sums"])
        sampled = sampled.minimum(fn["vocab_size"] - 1)  # a valid id even if logits are NaN
        current_id.store(sampled)
        with fn.when(fn["measure"].compare("!=", 0)):
            logit_gap, exp_sum = surprisal(fn, Scores(logits, penalties, width), sampled)
            fn["logit_gaps"].at(offset).store(logit_gap)
            fn["exp_sums"].at(offset).store(exp_sum)
    fn["next_ids"].at(offset).store(current_id.index())
