"""The kernel that generates: the network in int8, the choice of the next id, and again, without leaving native code.

A row of weights is 127 steps wide on either side, with a scale of its own; a hidden state, which lies between -1 and
1, is rounded to 16 bits (``rnn/quantize.py``). Everything else is float32, rounded as it is written. ``numpy_rnn.py``
does the same operations in the same order on the same equations, so both give the same bits.

Importing this module raises ImportError where llvmlite is missing.
"""

from collections.abc import Callable
from functools import cache

from llvmlite import ir

from charrnn.config import Cell
from charrnn.rnn.cells import EQUATIONS
from charrnn.rnn.kernels.categorical import Scores, choose, surprisal
from charrnn.rnn.kernels.int8_gemv import Matrix, for_streams
from charrnn.rnn.kernels.jit import Kernel, load_kernels
from charrnn.rnn.kernels.object_cache import Target, is_cached
from charrnn.rnn.kernels.simd import F32, F64, I8, I16, I64, LANES, SHORT, Function, Index, Memory, Parameters
from charrnn.rnn.tanh_approx import tanh

_PARAMETERS: Parameters = {
    "streams": int, "steps": int, "layers": int, "units": int, "width": int, "vocab_size": int, "measure": int,
    "levels": float, "columns": F32,
    "recurrent": I8, "recurrent_scales": F32, "recurrent_biases": F32,
    "above": I8, "above_scales": F32, "above_biases": F32,
    "output": I8, "output_scales": F32, "output_biases": F32,
    "penalties": F32, "hidden": F32, "carried": F32, "codes": I16, "arriving": F32, "reading": I64,
    "forced_ids": I64, "uniforms": F64, "temperatures": F64, "logits": F32, "sums": F64, "chosen": I64, "gaps": F64,
    "totals": F64,
}  # fmt: skip


@cache
def decoding_kernel(cell: Cell, target: Target | None = None) -> Kernel:
    """Return the kernel that reads and chooses characters of S streams, for networks of a cell.

    Its arguments:
        streams, steps, layers: S, T, L.
        units: H, padded to a multiple of LANES.
        width: W, which is V padded to a multiple of LANES.
        vocab_size: V.
        measure: whether to fill ``gaps`` and ``totals``.
        levels: the integer that stands for a hidden state of 1.
        columns: (V, G * H), what each character adds to the gates of layer 0, in the order of the panels.
        recurrent, recurrent_scales, recurrent_biases: the recurrent weights of the L layers (``packing.py``).
        above, above_scales, above_biases: the input weights of the layers from 1 on.
        output, output_scales, output_biases: the output layer.
        penalties: (2, W), added to logits: for `surprisal`, and for `choose`.
        hidden: (L, S, H), replaced by the hidden state afterwards.
        carried: (L, S, H), replaced by the cell state afterwards; used by an LSTM only.
        codes: (2, L, S, H), the hidden state in integers, and room for the next.
        arriving: (S, G * LANES), workspace.
        reading: (S,), the ids that are read first; overwritten.
        forced_ids: (T, S), ids to be read after each step; where they are negative, an id is chosen.
        uniforms: (T, S), random numbers for the decode_inputs.
        temperatures: (T, S).
        logits: (S, W), filled with those after the last step.
        sums: (W,), workspace.
        chosen: (T, S), filled with the ids that are read after each step.
        gaps, totals: (T, S), filled with the `surprisal` of the ids that were chosen.

    Raises:
        ImportError: nothing can be compiled here.
    """
    functions = {"decode": _PARAMETERS}
    return load_kernels(f"decode_{cell}", functions, lambda to: _build(cell, to), target)["decode"]


def is_compiled(cell: Cell) -> bool:
    """Return whether the kernel lies on disk."""
    return is_cached(f"decode_{cell}", Target.host())


def _build(cell: Cell, target: Target) -> ir.Module:
    module = ir.Module(f"decode_{cell}")
    f = Function(module, "decode", _PARAMETERS)
    streams, layers, units, width = f["streams"], f["layers"], f["units"], f["width"]
    equations, numbers = EQUATIONS[cell], f["streams"] * f["units"]  # of a layer's state
    gate_lanes = equations.gates * LANES
    recurrent, above, output = (
        Matrix(f[name], f[f"{name}_scales"], f[f"{name}_biases"], gates)
        for name, gates in (("recurrent", equations.gates), ("above", equations.gates), ("output", 1))
    )

    def advance(layer: Index, panel: Index, before: Memory, after: Memory, inputs: Callable[[Index], Memory]) -> None:
        """Take a step in one panel of a layer; ``inputs`` gives the input products of a stream."""
        matrix, place = recurrent.at(layer * (units // LANES) + panel, units), layer * numbers + panel * LANES

        def some(stream: Index, count: int) -> None:
            states = [before.at((stream + n) * units) for n in range(count)]
            for n, echo in enumerate(matrix.multiply(f, target, states, units)):
                arriving = [inputs(stream + n).at(gate * LANES).vector() for gate in range(equations.gates)]
                own = place + (stream + n) * units
                state = [memory.at(own) for memory in (f["hidden"], f["carried"])][: equations.parts]
                pre = equations.pre(tuple(arriving), tuple(echo))
                _, new = equations.step(pre, tuple(part.vector() for part in state), tanh)
                for memory, part in zip(state, new, strict=True):
                    memory.store_vector(part)
                levels = f["levels"].to(F32.type).spread()
                code = (new[0] * levels + 0.5).at_least(-levels).at_most(levels).floor()
                after.at(panel * LANES + (stream + n) * units).store(
                    f.builder.trunc(code, ir.VectorType(SHORT, LANES))
                )

        for_streams(f, streams, some)

    def project(matrix: Matrix, states: Memory, result: Memory, pitch: Index) -> None:
        """Multiply states with one panel, for rows of a result that lie ``pitch`` numbers apart."""

        def some(stream: Index, count: int) -> None:
            own = [states.at((stream + n) * units) for n in range(count)]
            for n, gates in enumerate(matrix.multiply(f, target, own, units)):
                for gate, number in enumerate(gates):
                    result.at((stream + n) * pitch + gate * LANES).store_vector(number)

        for_streams(f, streams, some)

    with f.range(f["steps"]) as step:
        codes, flip = f["codes"], layers * numbers
        before, after = codes.at(step % 2 * flip), codes.at((step + 1) % 2 * flip)
        with f.range(units // LANES) as panel:
            columns, pitch = f["columns"].at(panel * gate_lanes), units * equations.gates
            advance(
                f.index(0), panel, before, after,
                lambda stream: columns.at(f["reading"].at(stream).index() * pitch),
            )  # fmt: skip
        with f.range(1, layers) as layer:
            below, here = after.at((layer - 1) * numbers), layer * numbers
            with f.range(units // LANES) as panel:  # for all streams, while the weights are in the cache
                matrix = above.at((layer - 1) * (units // LANES) + panel, units)
                project(matrix, below, f["arriving"], f.index(gate_lanes))
                arriving = f["arriving"]
                advance(
                    layer, panel, before.at(here), after.at(here), lambda stream: arriving.at(stream * gate_lanes)
                )
        top = after.at((layers - 1) * numbers)
        with f.range(width // LANES) as panel:
            project(output.at(panel, units), top, f["logits"].at(panel * LANES), width)
        with f.range(streams) as stream:
            _choose_next(f, step, stream)
    f.finish()
    return module


def _choose_next(f: Function, step: Index, stream: Index) -> None:
    """Write what a stream reads next: what is forced_ids, or an id that is chosen."""
    width, place = f["width"], step * f["streams"] + stream
    logits, penalties = f["logits"].at(stream * width), f["penalties"]
    reading, forced_ids = f["reading"].at(stream), f["forced_ids"].at(place).index()
    reading.store(forced_ids)
    with f.when(forced_ids.compare("<", 0)):
        uniform, temperature = f["uniforms"].at(place).number(), f["temperatures"].at(place).number()
        index = choose(f, Scores(logits, penalties.at(width), width), uniform, temperature, f["sums"])
        index = index.at_most(f["vocab_size"] - 1)  # there is such a row even if logits are NaN
        reading.store(index)
        with f.when(f["measure"].compare("!=", 0)):
            gap, total = surprisal(f, Scores(logits, penalties, width), index)
            f["gaps"].at(place).store(gap)
            f["totals"].at(place).store(total)
    f["chosen"].at(place).store(reading.index())
