"""The loop of ``writer.py`` compiled: the network in int8, the choice, and again, without leaving the machine code.

A row of weights is 127 steps wide on either side, with a scale of its own; a hidden state, which lies between -1 and
1, is rounded to 16 bits. Their products are summed in whole numbers, so that a stream gets the very same sums
whatever others are computed beside it. All else is fp32, rounded as it is written, which is as NumPy does it: whoever
computes, the text is the same.

Importing this module raises ImportError where Numba is missing.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import binding
from numba import carray, cfunc, types
from numba.core import config
from numba.core.errors import NumbaError

from charrnn.config import GATES, Cell
from charrnn.rnn.kernels.categorical import choose, surprise
from charrnn.rnn.kernels.int8_gemv import STREAMS, advance, project
from charrnn.rnn.kernels.jit import EXACT, FEATURES, exact
from charrnn.rnn.kernels.object_cache import Source
from charrnn.rnn.kernels.packing import LANES

_OPTIONS = {name: value for name, value in EXACT.items() if name != "nogil"}  # whoever calls it holds no lock
_FLOATS, _DOUBLES, _IDS = (types.CPointer(kind) for kind in (types.float32, types.float64, types.int64))
_PANELS = types.CPointer(types.int8), _FLOATS, _FLOATS
_SIGNATURE = types.void(
    *(types.int64,) * 7, types.float32, _FLOATS, *_PANELS, *_PANELS, *_PANELS, _FLOATS,
    _FLOATS, _FLOATS, types.CPointer(types.int16), _FLOATS, _IDS, _IDS,
    _IDS, _DOUBLES, _DOUBLES, _FLOATS, _DOUBLES, _IDS, _DOUBLES, _DOUBLES,
)  # fmt: skip


def source(cell: Cell) -> Source:
    """The function ``run`` in it, for networks of such cells; the places of a result and of an error come first.

    Raises:
        ImportError: Numba cannot compile it.
    """
    gates = GATES[cell]
    advance_all, project_all, score_all = _advance_all(cell), _project_all(gates), _project_all(1)

    def run(
        streams: int, steps: int, layers: int, size: int, wide: int, vocabulary: int, measure: int, levels: Any,
        columns_: Any, recurrent_: Any, scales_: Any, biases_: Any, above_: Any, above_scales_: Any,
        above_biases_: Any, output_: Any, output_scales_: Any, output_biases_: Any, bars_: Any,
        hidden_: Any, carry_: Any, rounded_: Any, arriving_: Any, own_: Any, reading_: Any,
        given_: Any, uniforms_: Any, temperatures_: Any, logits_: Any, weights_: Any, chosen_: Any, nats_: Any,
        totals_: Any,
    ) -> None:  # fmt: skip
        """Reads and chooses characters of S streams.

        Its arguments:
            streams, steps, layers: S, T and L.
            size: H, padded as all below.
            wide: W, which is V, padded.
            vocabulary: V.
            measure: whether to fill nats and totals.
            levels: the whole number that stands for a hidden state of 1.
            columns_: (V, G*H), what each character adds to the gates of layer 0, in the order of the panels.
            recurrent_, scales_, biases_: `Panels` of the L layers.
            above_, above_scales_, above_biases_: those of the input weights of the layers from 1 on, likewise.
            output_, output_scales_, output_biases_: those of the output layer.
            bars_: (2, W), see `charrnn.rnn.kernels.categorical`.
            hidden_: (L, S, H), replaced by what it is afterwards.
            carry_: (L, S, H), likewise; unused but for an LSTM.
            rounded_: (2, L, S, H), hidden in whole numbers, and room for the next.
            arriving_: (S, G*LANES), room for what arrives from below.
            own_: (S,), each stream's number.
            reading_: (S,), the ids that are read first.
            given_: (T, S), ids to be read after each; where they are negative, what is chosen is.
            uniforms_: (T, S), random numbers for the choices.
            temperatures_: (T, S).
            logits_: (S, W), filled with those after the last step.
            weights_: (W,), room for a choice.
            chosen_: (T, S), filled with the ids that are read after each.
            nats_, totals_: (T, S), filled with the `surprise` of those that were chosen.
        """
        rows, panel_rows = gates * size, gates * LANES
        columns, arriving = carray(columns_, (vocabulary, rows)), carray(arriving_, (streams, panel_rows))
        own, reading = carray(own_, (streams,)), carray(reading_, (streams,))
        recurrent, above = carray(recurrent_, (layers, rows * size)), carray(above_, (layers, rows * size))
        scales, biases = carray(scales_, (layers, rows)), carray(biases_, (layers, rows))
        above_scales, above_biases = carray(above_scales_, (layers, rows)), carray(above_biases_, (layers, rows))
        output, logits = carray(output_, (wide * size,)), carray(logits_, (streams, wide))
        output_scales, output_biases = carray(output_scales_, (wide,)), carray(output_biases_, (wide,))
        hidden, carry = carray(hidden_, (layers, streams, size)), carray(carry_, (layers, streams, size))
        rounded = carray(rounded_, (2, layers, streams, size))
        given, chosen = carray(given_, (steps, streams)), carray(chosen_, (steps, streams))
        uniforms, temperatures = carray(uniforms_, (steps, streams)), carray(temperatures_, (steps, streams))
        nats, totals = carray(nats_, (steps, streams)), carray(totals_, (steps, streams))
        for t in range(steps):
            before, after = rounded[t % 2], rounded[1 - t % 2]
            for panel in range(size // LANES):
                advance_all(
                    recurrent[0], scales[0], biases[0], before[0], panel,
                    columns, reading, panel * panel_rows, levels, hidden[0], carry[0], after[0],
                )  # fmt: skip
            for n in range(1, layers):
                below = n - 1
                for panel in range(size // LANES):  # once for all streams each, while the weights are in the cache
                    project_all(
                        above[below], above_scales[below], above_biases[below], after[below], panel, arriving, 0
                    )
                    advance_all(
                        recurrent[n], scales[n], biases[n], before[n], panel,
                        arriving, own, 0, levels, hidden[n], carry[n], after[n],
                    )  # fmt: skip
            for panel in range(wide // LANES):
                score_all(output, output_scales, output_biases, after[layers - 1], panel, logits, panel * LANES)
            for s in range(streams):
                reading[s] = given[t, s]
                if given[t, s] < 0:
                    chose = choose(logits_, s, bars_, wide, uniforms[t, s], temperatures[t, s], weights_)
                    reading[s] = min(chose, vocabulary - 1)  # a row that there is, even if logits are no numbers
                    if measure:
                        nats[t, s], totals[t, s] = surprise(logits_, s, bars_, wide, reading[s], weights_)
                chosen[t, s] = reading[s]

    try:
        made = cfunc(_SIGNATURE, **_OPTIONS)(run)
    except (NumbaError, OSError, RuntimeError, ValueError) as error:  # or LLVM does not know this processor
        raise ImportError(str(error)) from error
    name, processor = made.native_name.removeprefix("cfunc."), config.CPU_NAME or binding.get_host_cpu_name()
    return Source(made.inspect_llvm(), name, processor, ",".join(FEATURES))


def _project_all(gates: int) -> Callable[..., None]:
    some, one = project(gates, STREAMS), project(gates, 1)

    @exact
    def project_all(
        weights: Any, scales: Any, biases: Any, states: Any, panel: int, numbers: Any, column: int
    ) -> None:
        """`project`, for all streams."""
        streams = len(states)
        together = streams // STREAMS * STREAMS
        for s in range(0, together, STREAMS):
            some(weights, scales, biases, states, panel, s, numbers, column)
        for s in range(together, streams):
            one(weights, scales, biases, states, panel, s, numbers, column)

    return project_all


def _advance_all(cell: Cell) -> Callable[..., None]:
    some, one = advance(cell, STREAMS), advance(cell, 1)

    @exact
    def advance_all(
        weights: Any, scales: Any, biases: Any, states: Any, panel: int, signal: Any, rows: Any, column: int,
        levels: Any, hidden: Any, carry: Any, after: Any,
    ) -> None:  # fmt: skip
        """`advance`, for all streams."""
        streams = len(states)
        together = streams // STREAMS * STREAMS
        for s in range(0, together, STREAMS):
            some(weights, scales, biases, states, panel, s, signal, rows, column, levels, hidden, carry, after)
        for s in range(together, streams):
            one(weights, scales, biases, states, panel, s, signal, rows, column, levels, hidden, carry, after)

    return advance_all
