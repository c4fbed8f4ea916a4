"""The kernels that train: all T steps of a layer's recurrence, forward and backward.

A step takes a tile of the layer's units at a time: their gates' products with the state of the step before, and then
their equations (``rnn/cells.py``), while the tile is in the nearest cache. A kernel runs on one thread. What doesn't
wait for the step before, such as the product with the inputs, is left to a matrix library (``rnn/recurrence.py``).

Matrices are time-major, (T * B, columns): a row is one stream at one step, and the B streams of a step are adjacent.
H is the number of hidden units, a multiple of `tile_units`. P blocks of H columns hold the pre-activations.

Importing this module raises ImportError where llvmlite is missing.
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

Precision = Literal["f32", "bf16", "f64"]  # f64 is for tests

STORED: dict[Precision, Element] = {"f32": F32, "bf16": BF16, "f64": F64}  # in matrices
WEIGHTS: dict[Precision, Element] = {"f32": F32, "bf16": PAIR, "f64": F64}  # packed
FULL: dict[Precision, Element] = {"f32": F32, "bf16": F32, "f64": F64}  # what is computed with


@cache
def training_kernels(cell: Cell, precision: Precision, target: Target | None = None) -> dict[str, Kernel]:
    """Return the kernels ``forward``, ``backward`` and ``add_rows`` for a cell.

    ``forward`` takes
        steps, batch, units: T, B, H.
        weights: (H / U, G, H, U), the recurrent weights, packed (`pack_recurrent`) for U = `tile_units`.
        gates: (T * B, P * H), pre-activations without the recurrent products; replaced by what the gradient needs.
        hidden: ((T + 1) * B + 1, H), rows of h_0 to h_T and one of zeros; h_1 to h_T are filled in.
        carried: the same in full precision, of the part of the state that is used elementwise: c of an LSTM, else h.
        previous: (T * B,), which row of these two holds the state before each step: the last one of the stream, or
            the row of zeros where the stream is reset.
        workspace: (P * TILE_ROWS * U,).

    ``backward`` takes the same, left as ``forward`` leaves them, but for
        weights: those of the transposed matrix.
        grad_outputs: (T * B, H), gradient of h_1 to h_T as the layer above sees them.
        grad_hidden: (B, H), gradient of h_T as the next chunk sees it; replaced by that of h_0.
        grad_carried: the same for the carried part. Where that is h itself, ``grad_hidden`` gets only what flows
            through the products; the sum of both is the gradient of h_0.
        grad_gates: (T * B, P * H), filled with the gradient of the pre-activations.
        grad_bias: (P * H,), to which the sum of its rows is added.

    ``add_rows`` adds rows (N, C) to the rows ``ids`` (N,) of a table (V, C) in full precision, reading the first C
    of ``columns`` columns.

    Raises:
        ImportError: nothing can be compiled here.
    """
    functions = _signatures(precision)
    return load_kernels(f"training_{cell}_{precision}", functions, lambda to: _build(cell, precision, to), target)


def _signatures(precision: Precision) -> dict[str, Parameters]:
    stored, full = STORED[precision], FULL[precision]
    common: dict[str, Any] = {
        "steps": int, "batch": int, "units": int, "weights": WEIGHTS[precision], "gates": stored, "hidden": stored,
        "carried": full, "previous": I64, "workspace": full,
    }  # fmt: skip
    grads = {
        "grad_outputs": stored, "grad_hidden": full, "grad_carried": full, "grad_gates": stored, "grad_bias": full,
    }  # fmt: skip
    return {
        "forward": common,
        "backward": common | grads,
        "add_rows": {"count": int, "width": int, "columns": int, "rows": stored, "ids": I64, "table": full},
    }


def _build(cell: Cell, precision: Precision, target: Target) -> ir.Module:
    module = ir.Module(f"training_{cell}_{precision}")
    functions = {
        name: Function(module, name, parameters, fused=True) for name, parameters in _signatures(precision).items()
    }
    tanh: Tanh = _tanh_f64 if precision == "f64" else tanh_approx.tanh
    _Recurrence(functions["forward"], EQUATIONS[cell], tanh, target).write_forward()
    _Recurrence(functions["backward"], EQUATIONS[cell], tanh, target).write_backward()
    _write_add_rows(functions["add_rows"])
    return module


class _Recurrence:
    """Writes ``forward`` or ``backward``.

    Both go through the steps, and in each step through tiles of ``width`` units and up to TILE_ROWS streams. ``unit``
    and ``stream`` are the first ones of a tile, and ``row`` counts its streams.
    """

    def __init__(self, function: Function, cell: Equations, tanh: Tanh, target: Target) -> None:
        self.f, self.cell, self.tanh, self.target = function, cell, tanh, target
        self.steps, self.batch, self.units = function["steps"], function["batch"], function["units"]
        self.width, self.columns = tile_units(target), self.units * cell.pre_activations
        self.weight_rows = self.units // 2 if function["weights"].element is PAIR else self.units
        kind = function["workspace"].element.type
        self.zero = Number(function, ir.Constant(ir.VectorType(kind, LANES), [0.0] * LANES))

    def write_forward(self) -> None:
        """Write the steps from the first to the last."""
        f, cell = self.f, self.cell
        with f.range(self.steps) as step, self._tiles() as (unit, stream):
            first, rows = step * self.batch + stream, (self.batch - stream).at_most(TILE_ROWS)
            for gate, place in enumerate(cell.recurrent):

                def start(row: Index, lane: int, place: int = place) -> Number:
                    return self._gate(f["gates"], first + row, place, unit + lane).vector()

                def hidden(row: Index) -> Memory:
                    return self._state(f["hidden"], self._source(first + row), 0)

                self._multiply(gate, unit, rows, start, hidden, self._workspace(place))
            with f.range(rows) as row:
                for lane in range(0, self.width, LANES):
                    self._forward_equations(first + row, row, unit, lane)
        f.finish()

    def write_backward(self) -> None:
        """Write the steps from the last to the first, and then the gradient of the state before it."""
        f = self.f
        with f.range(self.steps + 1) as past, self._tiles() as (unit, stream):
            step = self.steps - past - 1  # down to -1, which stands for the state before the first step
            first, rows = step * self.batch + stream, (self.batch - stream).at_most(TILE_ROWS)
            with f.when(past.compare(">", 0)):
                self._multiply_gradients(first + self.batch, stream, unit, rows)
            with f.when(past.compare("==", 0)):
                self._copy_tile(stream, unit, rows, given=True)
            with f.when(step.compare("<", 0)):
                self._copy_tile(stream, unit, rows, given=False)
            with f.when(step.compare(">", -1)), f.range(rows) as row:
                for lane in range(0, self.width, LANES):
                    self._backward_equations(first + row, stream + row, row, unit + lane, lane)
        f.finish()

    def _forward_equations(self, step_row: Index, row: Index, unit: Index, lane: int) -> None:
        """Write a step of LANES units of one stream."""
        f, cell, here = self.f, self.cell, unit + lane

        def pre(place: int) -> Number:
            if place in cell.recurrent:
                return self._workspace(place).at(row * self.width + lane).vector()
            return self._gate(f["gates"], step_row, place, here).vector()

        before = self._state(f["carried"], self._source(step_row), here).vector()
        state = (None, before) if cell.parts == 2 else (before,)
        saved, after = cell.step(tuple(map(pre, range(cell.pre_activations))), state, self.tanh)
        for place, number in enumerate(saved):
            self._gate(f["gates"], step_row, place, here).store_vector(number)
        self._state(f["hidden"], step_row + self.batch, here).store_vector(after[0])
        self._state(f["carried"], step_row + self.batch, here).store_vector(after[-1])

    def _multiply_gradients(self, later: Index, stream: Index, unit: Index, rows: Index) -> None:
        """Write the gradient of a state through the next step's products, whose rows begin at ``later``."""
        f, workspace = self.f, self._workspace(0)
        for gate, place in enumerate(self.cell.recurrent):

            def start(row: Index, lane: int, gate: int = gate) -> Number:
                return workspace.at(row * self.width + lane).vector() if gate else self.zero

            def gradients(row: Index, place: int = place) -> Memory:
                return self._gate(f["grad_gates"], later + row, place, 0)

            self._multiply(gate, unit, rows, start, gradients, workspace)
        with f.range(rows) as row, f.when(self._source(later + row).compare("!=", later + row)):
            for lane in range(0, self.width, LANES):  # nothing flows back across a reset
                workspace.at(row * self.width + lane).store_vector(self.zero)
                self._state(f["grad_carried"], stream + row, unit + lane).store_vector(self.zero)

    def _copy_tile(self, stream: Index, unit: Index, rows: Index, *, given: bool) -> None:
        """Copy a tile of ``grad_hidden`` to the workspace if it is given, or back."""
        with self.f.range(rows) as row:
            for lane in range(0, self.width, LANES):
                outside = self._state(self.f["grad_hidden"], stream + row, unit + lane)
                inside = self._workspace(0).at(row * self.width + lane)
                source, target = (outside, inside) if given else (inside, outside)
                target.store_vector(source.vector())

    def _backward_equations(self, step_row: Index, stream: Index, row: Index, here: Index, lane: int) -> None:
        """Write the gradient of a step of LANES units of one stream."""
        f, cell = self.f, self.cell
        carried = self._state(f["grad_carried"], stream, here)
        through_products = self._workspace(0).at(row * self.width + lane).vector()
        grad_h = self._state(f["grad_outputs"], step_row, here).vector() + through_products
        before = self._state(f["carried"], self._source(step_row), here).vector()
        after = self._state(f["carried"], step_row + self.batch, here).vector()
        places = range(cell.pre_activations)
        saved = tuple(self._gate(f["gates"], step_row, place, here).vector() for place in places)
        if cell.parts == 2:
            states: tuple[Any, Any, Any] = (None, before), (None, after), (grad_h, carried.vector())
        else:
            states = (before,), (after,), (grad_h + carried.vector(),)
        grad_pre, grad_before = cell.gradient(saved, *states, self.tanh)
        for place, number in enumerate(grad_pre):
            self._gate(f["grad_gates"], step_row, place, here).store_vector(number)
            total = f["grad_bias"].at(self.units * place + here)
            total.store_vector(total.vector() + number)
        carried.store_vector(self.zero if grad_before[-1] is None else grad_before[-1])

    def _multiply(
        self, gate: int, unit: Index, rows: Index, start: Start, factors: Callable[[Index], Memory], sums: Memory
    ) -> None:
        tile = self.f["weights"].at((unit * self.cell.gates + gate * self.width) * self.weight_rows)
        multiply_tile(self.f, self.target, Product(tile, self.weight_rows, factors, start, sums, rows))

    @contextmanager
    def _tiles(self) -> Iterator[tuple[Index, Index]]:
        """Write loops over the tiles of a step, and yield the first unit and stream of each."""
        with self.f.range(0, self.units, self.width) as unit, self.f.range(0, self.batch, TILE_ROWS) as stream:
            yield unit, stream

    def _source(self, step_row: Index) -> Index:
        """Return the row that holds the state before a step of a stream."""
        return self.f["previous"].at(step_row).index()  # type: ignore[no-any-return]

    def _state(self, matrix: Memory, row: Index, unit: Any) -> Memory:
        return matrix.at(row * self.units + unit)

    def _gate(self, matrix: Memory, row: Index, place: int, unit: Any) -> Memory:
        return matrix.at(row * self.columns + self.units * place + unit)

    def _workspace(self, place: int) -> Memory:
        return self.f["workspace"].at(place * TILE_ROWS * self.width)  # type: ignore[no-any-return]


def _write_add_rows(f: Function) -> None:
    with f.range(f["count"]) as row:
        source, target = f["rows"].at(row * f["columns"]), f["table"].at(f["ids"].at(row).index() * f["width"])
        with f.range(0, f["width"], LANES) as lane:
            place = target.at(lane)
            place.store_vector(place.vector() + source.at(lane).vector())
    f.finish()


def _tanh_f64(x: Number) -> Number:
    """Return tanh(x) in float64, for the tests that compare gradients with differences."""
    decay = exp(x.at_most(-x) * 2)
    share = (1 - decay) / (1 + decay)
    return share.where(x.compare(">", 0), -share)
