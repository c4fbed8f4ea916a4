"""The training kernels: all T steps of a layer's recurrence, forward and backward.

A step processes one tile of units at a time. It multiplies the previous hidden state with the weights of the tile's
gates, and then evaluates the equations of the cell (``rnn/cells.py``) while the products are still in the L1 cache. A
kernel runs on one thread. Torch does the work that doesn't depend on the previous step, such as the product with the
inputs (``rnn/recurrence.py``).

Matrices are time-major, (T * B, columns). A row is one stream at one step, and the B streams of a step are adjacent.
H is the number of hidden units, a multiple of `tile_units`. The P pre-activations of a unit are in P blocks of H
columns; the index of a block is called a slot (`Equations`).

Importing this module raises ImportError if llvmlite is missing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

from llvmlite import ir

from charrnn.config import Cell
from charrnn.rnn import tanh_approx
from charrnn.rnn.cells import EQUATIONS, Equations, Tanh
from charrnn.rnn.kernels.gemm import TILE_ROWS, Product, Start, multiply_tile, tile_units
from charrnn.rnn.kernels.jit import Kernel, load_kernels
from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.simd import (
    BF16,
    F32,
    F64,
    I64,
    LANES,
    PAIR,
    Element,
    Function,
    Index,
    Memory,
    Number,
    Parameters,
    exp,
)  # fmt: skip

Precision = Literal["f32", "bf16", "f64"]  # f64 is used only by tests

STORED: dict[Precision, Element] = {"f32": F32, "bf16": BF16, "f64": F64}  # elements of matrices
WEIGHTS: dict[Precision, Element] = {"f32": F32, "bf16": PAIR, "f64": F64}  # elements of packed weights
FULL: dict[Precision, Element] = {"f32": F32, "bf16": F32, "f64": F64}  # elements of sums and of equations


@cache
def training_kernels(cell: Cell, precision: Precision, target: Target | None = None) -> dict[str, Kernel]:
    """Return the kernels ``forward``, ``backward`` and ``add_rows`` of a cell.

    Parameters of ``forward``:
        steps, batch, units: T, B, H.
        weights: The recurrent weights, (H / U, G, H, U), packed (`charrnn.rnn.recurrence.pack`) for U = `tile_units`.
        gates: Pre-activations without the recurrent products, (T * B, P * H), replaced by values that the gradient
            needs.
        hidden: h_0 to h_T and a row of zeros, ((T + 1) * B + 1, H). h_1 to h_T are outputs.
        cell_state: The state that the equations use elementwise, in full precision and with the shape of ``hidden``:
            c for an LSTM, and h for other cells.
        previous: The row of ``hidden`` and ``cell_state`` with the state before each step, (T * B,). It is the
            stream's row of the previous step, or the row of zeros if the stream is reset.
        workspace: (P * TILE_ROWS * U,).

    Parameters of ``backward``: those of ``forward``, with the values after that call, except for
        weights: The packed weights of the transposed matrix.
        grad_outputs: The gradient of h_1 to h_T as inputs of the next layer, (T * B, H).
        grad_hidden: The gradient of h_T as the state of the next chunk, (B, H), replaced by the gradient of h_0.
        grad_cell_state: The gradient of the last cell state, (B, H), replaced by the gradient of the first. If the
            cell state is h, ``grad_hidden`` covers only the path through the recurrent products, and the gradient of
            h_0 is the sum of both.
        grad_gates: Output: the gradient of the pre-activations, (T * B, P * H).
        grad_bias: (P * H,), to which the sum of the rows of ``grad_gates`` is added.

    ``add_rows`` adds rows (N, C), stored ``row_stride`` elements apart, to the rows ``ids`` (N,) of a table (V, C) in
    full precision.

    Args:
        cell: The cell.
        precision: The precision of matrices.
        target: The processor; None means that of this machine.

    Raises:
        ImportError: If LLVM cannot compile for the processor.
    """
    functions = _signatures(precision)
    name = f"training_{cell}_{precision}"
    return load_kernels(name, functions, lambda processor: _build(cell, precision, processor), target)


def _signatures(precision: Precision) -> dict[str, Parameters]:
    stored, full = STORED[precision], FULL[precision]
    common: dict[str, Any] = {
        "steps": int, "batch": int, "units": int, "weights": WEIGHTS[precision], "gates": stored, "hidden": stored,
        "cell_state": full, "previous": I64, "workspace": full,
    }  # fmt: skip
    grads = {
        "grad_outputs": stored, "grad_hidden": full, "grad_cell_state": full, "grad_gates": stored, "grad_bias": full,
    }  # fmt: skip
    return {
        "forward": common,
        "backward": common | grads,
        "add_rows": {"count": int, "width": int, "row_stride": int, "rows": stored, "ids": I64, "table": full},
    }


def _build(cell: Cell, precision: Precision, target: Target) -> ir.Module:
    module = ir.Module(f"training_{cell}_{precision}")
    functions = {
        name: Function(module, name, parameters, fused=True) for name, parameters in _signatures(precision).items()
    }
    tanh: Tanh = _tanh_f64 if precision == "f64" else tanh_approx.tanh
    _Recurrence(functions["forward"], EQUATIONS[cell], tanh, target).emit_forward()
    _Recurrence(functions["backward"], EQUATIONS[cell], tanh, target).emit_backward()
    _emit_add_rows(functions["add_rows"])
    return module


class _Recurrence:
    """Emits the code of ``forward`` or ``backward``.

    Both loop over the steps, and in each step over tiles of ``width`` units and up to TILE_ROWS streams. ``unit`` and
    ``stream`` are the first unit and stream of a tile, and ``row`` counts its streams.
    """

    def __init__(self, function: Function, cell: Equations, tanh: Tanh, target: Target) -> None:
        self.fn, self.cell, self.tanh, self.target = function, cell, tanh, target
        self.steps, self.batch, self.units = function["steps"], function["batch"], function["units"]
        self.width, self.columns = tile_units(target), self.units * cell.pre_activations
        self.weight_rows = self.units // 2 if function["weights"].element is PAIR else self.units
        kind = function["workspace"].element.type
        self.zero = Number(function, ir.Constant(ir.VectorType(kind, LANES), [0.0] * LANES))

    def emit_forward(self) -> None:
        """Emit the loop from the first step to the last."""
        fn, cell = self.fn, self.cell
        with fn.range(self.steps) as step, self._tiles() as (unit, stream):
            first, rows = step * self.batch + stream, (self.batch - stream).minimum(TILE_ROWS)
            for gate, slot in enumerate(cell.recurrent_slots):

                def start(row: Index, lane: int, slot: int = slot) -> Number:
                    return self._gate(fn["gates"], first + row, slot, unit + lane).vector()

                def hidden(row: Index) -> Memory:
                    return self._state(fn["hidden"], self._source(first + row), 0)

                self._multiply(gate, unit, rows, start, hidden, self._workspace(slot))
            with fn.range(rows) as row:
                for lane in range(0, self.width, LANES):
                    self._forward_equations(first + row, row, unit, lane)
        fn.finish()

    def emit_backward(self) -> None:
        """Emit the loop from the last step to the first, and the gradient of the initial state."""
        fn = self.fn
        with fn.range(self.steps + 1) as num_done, self._tiles() as (unit, stream):
            step = self.steps - num_done - 1  # from T - 1 to -1, which stands for the initial state
            first, rows = step * self.batch + stream, (self.batch - stream).minimum(TILE_ROWS)
            with fn.when(num_done.compare(">", 0)):
                self._multiply_gradients(first + self.batch, stream, unit, rows)
            with fn.when(num_done.compare("==", 0)):
                self._copy_tile(stream, unit, rows, to_workspace=True)
            with fn.when(step.compare("<", 0)):
                self._copy_tile(stream, unit, rows, to_workspace=False)
            with fn.when(step.compare(">", -1)), fn.range(rows) as row:
                for lane in range(0, self.width, LANES):
                    self._backward_equations(first + row, stream + row, row, unit + lane, lane)
        fn.finish()

    def _forward_equations(self, step_row: Index, row: Index, unit: Index, lane: int) -> None:
        """Emit the equations of a step for LANES units of one stream."""
        fn, cell, first_unit = self.fn, self.cell, unit + lane

        def pre(slot: int) -> Number:
            if slot in cell.recurrent_slots:
                return self._workspace(slot).at(row * self.width + lane).vector()
            return self._gate(fn["gates"], step_row, slot, first_unit).vector()

        before = self._state(fn["cell_state"], self._source(step_row), first_unit).vector()
        state = (None, before) if cell.num_state_arrays == 2 else (before,)
        saved, after = cell.step(tuple(map(pre, range(cell.pre_activations))), state, self.tanh)
        for slot, number in enumerate(saved):
            self._gate(fn["gates"], step_row, slot, first_unit).store_vector(number)
        self._state(fn["hidden"], step_row + self.batch, first_unit).store_vector(after[0])
        self._state(fn["cell_state"], step_row + self.batch, first_unit).store_vector(after[-1])

    def _multiply_gradients(self, next_row: Index, stream: Index, unit: Index, rows: Index) -> None:
        """Emit the gradient of a hidden state through the products of the next step, which starts at ``next_row``."""
        fn, workspace = self.fn, self._workspace(0)
        for gate, slot in enumerate(self.cell.recurrent_slots):

            def start(row: Index, lane: int, gate: int = gate) -> Number:
                return workspace.at(row * self.width + lane).vector() if gate else self.zero

            def gradients(row: Index, slot: int = slot) -> Memory:
                return self._gate(fn["grad_gates"], next_row + row, slot, 0)

            self._multiply(gate, unit, rows, start, gradients, workspace)
        with fn.range(rows) as row, fn.when(self._source(next_row + row).compare("!=", next_row + row)):
            for lane in range(0, self.width, LANES):  # no gradient passes a reset
                workspace.at(row * self.width + lane).store_vector(self.zero)
                self._state(fn["grad_cell_state"], stream + row, unit + lane).store_vector(self.zero)

    def _copy_tile(self, stream: Index, unit: Index, rows: Index, *, to_workspace: bool) -> None:
        """Emit a copy of a tile of ``grad_hidden`` to the workspace, or back."""
        with self.fn.range(rows) as row:
            for lane in range(0, self.width, LANES):
                grad_hidden = self._state(self.fn["grad_hidden"], stream + row, unit + lane)
                workspace = self._workspace(0).at(row * self.width + lane)
                source, target = (grad_hidden, workspace) if to_workspace else (workspace, grad_hidden)
                target.store_vector(source.vector())

    def _backward_equations(self, step_row: Index, stream: Index, row: Index, unit: Index, lane: int) -> None:
        """Emit the gradient of the equations of a step for LANES units of one stream."""
        fn, cell = self.fn, self.cell
        grad_cell_state = self._state(fn["grad_cell_state"], stream, unit)
        through_products = self._workspace(0).at(row * self.width + lane).vector()
        grad_h = self._state(fn["grad_outputs"], step_row, unit).vector() + through_products
        before = self._state(fn["cell_state"], self._source(step_row), unit).vector()
        after = self._state(fn["cell_state"], step_row + self.batch, unit).vector()
        slots = range(cell.pre_activations)
        saved = tuple(self._gate(fn["gates"], step_row, slot, unit).vector() for slot in slots)
        if cell.num_state_arrays == 2:
            states: tuple[Any, Any, Any] = (None, before), (None, after), (grad_h, grad_cell_state.vector())
        else:
            states = (before,), (after,), (grad_h + grad_cell_state.vector(),)
        grad_pre, grad_before = cell.gradient(saved, *states, self.tanh)
        for slot, number in enumerate(grad_pre):
            self._gate(fn["grad_gates"], step_row, slot, unit).store_vector(number)
            bias = fn["grad_bias"].at(self.units * slot + unit)
            bias.store_vector(bias.vector() + number)
        grad_cell_state.store_vector(self.zero if grad_before[-1] is None else grad_before[-1])

    def _multiply(
        self, gate: int, unit: Index, rows: Index, start: Start, factors: Callable[[Index], Memory], sums: Memory
    ) -> None:
        tile = self.fn["weights"].at((unit * self.cell.gates + gate * self.width) * self.weight_rows)
        multiply_tile(self.fn, self.target, Product(tile, self.weight_rows, factors, start, sums, rows))

    @contextmanager
    def _tiles(self) -> Iterator[tuple[Index, Index]]:
        """Emit loops over the tiles of a step, and yield the first unit and stream of a tile."""
        with self.fn.range(0, self.units, self.width) as unit, self.fn.range(0, self.batch, TILE_ROWS) as stream:
            yield unit, stream

    def _source(self, step_row: Index) -> Index:
        """Return the row with the state before a step of a stream."""
        return self.fn["previous"].at(step_row).index()  # type: ignore[no-any-return]

    def _state(self, matrix: Memory, row: Index, unit: Any) -> Memory:
        return matrix.at(row * self.units + unit)

    def _gate(self, matrix: Memory, row: Index, slot: int, unit: Any) -> Memory:
        return matrix.at(row * self.columns + self.units * slot + unit)

    def _workspace(self, slot: int) -> Memory:
        return self.fn["workspace"].at(slot * TILE_ROWS * self.width)  # type: ignore[no-any-return]


def _emit_add_rows(fn: Function) -> None:
    with fn.range(fn["count"]) as row:
        source = fn["rows"].at(row * fn["row_stride"])
        target = fn["table"].at(fn["ids"].at(row).index() * fn["width"])
        with fn.range(0, fn["width"], LANES) as lane:
            total = target.at(lane)
            total.store_vector(total.vector() + source.at(lane).vector())
    fn.finish()


def _tanh_f64(x: Number) -> Number:
    """Return tanh(x) in float64, for tests that compare gradients with finite differences."""
    decay = exp(x.minimum(-x) * 2)
    magnitude = (1 - decay) / (1 + decay)
    return magnitude.where(x.compare(">", 0), -magnitude)
