"""Chooses the backend that computes the network: NumPy, compiled code or torch.

All backends compute the same function (``cells.py``). In int8, the results of NumPy and of the compiled decoder are
bit-identical. All others agree to rounding. So the choice affects only the speed. NumPy starts at once; the others
compute faster, but take time to load. No other module chooses a backend.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint import Checkpoint
from charrnn.config import Device, Engine, SamplePrecision
from charrnn.errors import ModelFileError, SettingError
from charrnn.io.memory import available_memory
from charrnn.rnn.cells import EQUATIONS
from charrnn.rnn.costs import Costs, load_costs
from charrnn.rnn.decode_inputs import DecodeInputs
from charrnn.rnn.numpy_rnn import Ids, NumPyRNN
from charrnn.rnn.quantize import Array
from charrnn.rnn.state import State
from charrnn.rnn.worker_pool import usable_cores
from charrnn.units import format_bytes

TORCH_MARGIN = 1.15  # torch's layers are chosen only if they are this many times as fast as the compiled kernels

_FLOAT_BYTES = 4


class Decoder(Protocol):
    """A network that reads one character of each stream at a time."""

    def zero_state(self, batch: int) -> State:
        """Return the zero state of B streams."""

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Read one character of each stream; return the logits of the next ones (B, V) and the new state."""


@runtime_checkable
class FusedDecoder(Decoder, Protocol):
    """A decoder that can also sample characters, so that one call can take many steps."""

    def run(
        self, ids: Ids, state: State, decode_inputs: DecodeInputs, *, measure: bool
    ) -> tuple[Ids, NDArray[np.float64], State]:
        """Take T steps. Some ids are forced, and the others are sampled; see `CompiledRNN.run`."""


class Scorer(Protocol):
    """A network that computes the surprisal of many streams in parallel.

    Attributes:
        vocab_size: V.
        boundary_id: The id of a document boundary, before which a stream is reset; or None.
    """

    vocab_size: int
    boundary_id: int | None

    def zero_state(self, batch: int) -> State:
        """Return the zero state of B streams."""

    def score(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.floating], State]:
        """Read T characters of B streams.

        Args:
            inputs: Ids, (T, B).
            targets: The id that follows each input, (T, B).
            reset: Whether a stream is reset to the zero state before a step, (T, B).
            state: The state before the first step.

        Returns:
            The surprisal of each target in nats, (T, B), and the state after the last step.
        """


class Timing(Protocol):
    """The measured time of an optimizer step, and the engine that was measured."""

    @property
    def seconds_per_step(self) -> float:
        """The duration of an optimizer step."""

    @property
    def engine(self) -> Engine:
        """The engine that computed the layers."""


_Timing = TypeVar("_Timing", bound=Timing)


class DecoderSelector:
    """Chooses between the decoders of a model. Each decoder is created when it is first needed.

    Args:
        model: The model.
        on_compile: Called before the decoder is compiled. Not called if the compiled code is on disk.
        costs: The costs of the backends; None loads those saved on this machine.
    """

    def __init__(
        self, model: Checkpoint, on_compile: Callable[[], None] = lambda: None, costs: Costs | None = None
    ) -> None:
        self._model, self._on_compile = model, on_compile
        self._costs = costs or load_costs()
        self._numpy: dict[SamplePrecision, Decoder] = {}
        self._compiled: Decoder | None = None
        self._cannot_compile = False

    def choose(self, precision: SamplePrecision, characters: float, streams: int = 1) -> Decoder:
        """Return the decoder that is expected to finish first, including the time to load it.

        Args:
            precision: The precision of the decoder. Only int8 can be compiled.
            characters: The number of characters to read and generate.
            streams: The number of streams that are read in parallel.

        Raises:
            ModelFileError: If the decoder of a saved model does not fit into memory.
        """
        if self._compiled is None and precision not in self._numpy:
            check_memory(self._model, streams)
        seconds = self._costs.decoding(characters, self._model.model_config.num_parameters(0))
        if precision == "int8":
            if self._compiled is None and seconds > self._costs.load_compiled and not self._cannot_compile:
                self._compiled = self._load_compiled(seconds)
            if self._compiled is not None:
                return self._compiled
        if precision not in self._numpy:
            self._numpy[precision] = NumPyRNN(self._model.model_config, self._model.tensors, precision)
        return self._numpy[precision]

    def _load_compiled(self, seconds: float) -> Decoder | None:
        """Return the compiled decoder, or None if NumPy would finish first or compilation is impossible.

        Args:
            seconds: The time that NumPy would take.
        """
        try:
            from charrnn.rnn.compiled_rnn import CompiledRNN
            from charrnn.rnn.kernels.decode import is_compiled

            if seconds > self._costs.compile or is_compiled(self._model.model_config.cell):
                return CompiledRNN(self._model.model_config, self._model.tensors, self._on_compile)
        except ImportError:  # no llvmlite, or it cannot compile for this processor
            self._cannot_compile = True
        return None


def check_memory(model: Checkpoint, streams: int) -> None:
    """Check that there is enough memory for the smallest decoder of a model, if it was loaded from a file.

    Args:
        model: The model.
        streams: The number of streams, B.

    Raises:
        ModelFileError: If there is not enough.
    """
    config, vocab_size = model.model_config, len(model.vocabulary)
    gates, parts = EQUATIONS[config.cell].gates, EQUATIONS[config.cell].num_state_arrays
    table = vocab_size * gates * config.hidden  # products of the first layer's input weights, for each character
    others = config.num_parameters(0) + config.hidden * vocab_size  # other weights, at least one byte each
    states = streams * (config.layers * parts * config.hidden + vocab_size)  # recurrent state and logits
    needed = _FLOAT_BYTES * (table + states) + others
    if model.path is not None and needed > (available := available_memory()):
        sizes = f"{format_bytes(needed)} of memory, but only {format_bytes(available)} is available"
        raise ModelFileError(str(model.path), f"reading a text with this model needs {sizes}", "use a smaller model")


class SwitchingScorer:
    """Reads with NumPy and switches to torch when that is faster. The results agree to rounding.

    Torch is loaded as soon as the estimated time in NumPy exceeds the time to load torch. The estimate covers the
    expected characters at first, and the characters read so far later.

    Args:
        model: The model.
        load_torch: Returns the scorer that uses torch.
        expected: The number of characters to read, as far as known.
        streams: The approximate number of streams that are read in parallel.
        costs: The costs of the backends; None loads those saved on this machine.
    """

    def __init__(
        self,
        model: Checkpoint,
        load_torch: Callable[[], Scorer],
        expected: int = 0,
        streams: int = 1,
        costs: Costs | None = None,
    ) -> None:
        self.vocab_size, self.boundary_id = len(model.vocabulary), model.vocabulary.boundary_id
        self._parameters, self._costs = model.model_config.num_parameters(self.vocab_size), costs or load_costs()
        check_memory(model, streams)
        self._numpy = NumPyRNN(model.model_config, model.tensors, "fp32")
        self._load_torch, self._numpy_seconds = load_torch, 0.0  # estimated time in NumPy of all work so far
        self._torch = load_torch() if self._is_worth_torch(self._seconds(expected // streams, streams)) else None

    def zero_state(self, batch: int) -> State:
        """Return the zero state of B streams."""
        return self._numpy.zero_state(batch)

    def score(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.floating], State]:
        """Read T characters of B streams; see `Scorer.score`."""
        self._numpy_seconds += self._seconds(*inputs.shape)
        if self._torch is None and self._is_worth_torch(self._numpy_seconds):
            self._torch = self._load_torch()
        scorer: Scorer | NumPyRNN = self._torch or self._numpy
        return scorer.score(inputs, targets, reset, state)

    def _seconds(self, steps: int, streams: int) -> float:
        return self._costs.reading(steps, streams, self._parameters)

    def _is_worth_torch(self, seconds: float) -> bool:
        return seconds > self._costs.load_torch


def choose_scorer(
    model: Checkpoint, expected: int = 0, *, streams: int = 1, device: Device = "auto", threads: int = 0
) -> Scorer:
    """Return the scorer of a model that is likely to finish first.

    Args:
        model: The model.
        expected: The number of characters to read, as far as known.
        streams: The approximate number of streams that are read in parallel.
        device: The device. "auto" and "cpu" start with NumPy; any other device is used from the start.
        threads: The number of threads of torch; 0 means one for each core.
    """

    def load_torch() -> Scorer:
        from charrnn.rnn.torch_scorer import torch_scorer

        return torch_scorer(model, resolve_device(device), threads or usable_cores())

    return SwitchingScorer(model, load_torch, expected, streams) if device in ("auto", "cpu") else load_torch()


def fastest(timings: Iterable[_Timing]) -> _Timing:
    """Return the timing whose settings are expected to train the fastest.

    Torch's layers must win by a margin, because a short measurement overestimates their speed. They slow down when
    streams are reset within a chunk. When other programs use the CPU, they slow down more than the compiled kernels.
    """
    margins = {"torch": TORCH_MARGIN}
    return min(timings, key=lambda timing: timing.seconds_per_step * margins.get(timing.engine, 1))


def resolve_device(device: Device) -> Device:
    """Return the device to use. "auto" means a CUDA GPU, or the CPU if there is none.

    Raises:
        SettingError: If torch doesn't find the device.
    """
    import torch

    if device == "auto":  # never mps: its recurrent gradients have been silently wrong (pytorch#190056)
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise SettingError("device", f"torch finds no {device} device", "use cpu")
    return device
