"""Which backend computes the network: NumPy, which is there at once, compiled code, or torch.

They compute the same function (``cells.py``). NumPy and the compiled decoder in int8 agree to the last bit, all
others to rounding. So the choice is a matter of speed alone, and this is the only place that makes it.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from charrnn.checkpoint import Checkpoint
from charrnn.config import Device, Engine, SamplePrecision
from charrnn.errors import SettingError
from charrnn.rnn.costs import Costs, load_costs
from charrnn.rnn.decode_inputs import DecodeInputs
from charrnn.rnn.numpy_rnn import Ids, NumPyRNN
from charrnn.rnn.quantize import Array
from charrnn.rnn.state import State
from charrnn.rnn.worker_pool import usable_cores

NATIVE_MARGIN = 1.15  # how much faster torch's layers must be to be preferred to the compiled kernels


class Decoder(Protocol):
    """A network that reads one character of each stream and returns the logits of the next."""

    def zero_state(self, batch: int) -> State:
        """Return the state of B streams before their first character."""

    def step(self, ids: Ids, state: State) -> tuple[Array, State]:
        """Read characters (B,): the logits of the next (B, V), and the state after them."""


@runtime_checkable
class FusedDecoder(Decoder, Protocol):
    """A network that takes any number of steps by itself."""

    def run(
        self, ids: Ids, state: State, decode_inputs: DecodeInputs, *, measure: bool
    ) -> tuple[Ids, NDArray[np.float64], State]:
        """Take T steps, reading what is given and choosing the rest; see `CompiledRNN.run`."""


class Scorer(Protocol):
    """A network that measures the surprisal of many streams side by side.

    Attributes:
        vocab_size: V.
        boundary_id: the id before which a stream is reset, or None.
    """

    vocab_size: int
    boundary_id: int | None

    def zero_state(self, batch: int) -> State:
        """Return the state of B streams before their first character."""

    def score(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.floating], State]:
        """Read T characters of B streams.

        Args:
            inputs: ids (T, B).
            targets: what comes after each of them.
            reset: (T, B), which streams are reset before which step.
            state: before them.

        Returns:
            The surprisal of each target in nats (T, B), and the state after the last step.
        """


class Timing(Protocol):
    """How fast one way to train turned out to be."""

    @property
    def seconds_per_step(self) -> float:
        """Seconds of an optimizer step."""

    @property
    def engine(self) -> Engine:
        """What computed the layers."""


_Timing = TypeVar("_Timing", bound=Timing)


class DecoderSelector:
    """The networks of a model that generate; each is made when it is first needed.

    Args:
        model: the model.
        on_compile: called before the compilation of code that isn't on disk yet.
        costs: of the backends; those that are remembered of this machine unless given.
    """

    def __init__(
        self, model: Checkpoint, on_compile: Callable[[], None] = lambda: None, costs: Costs | None = None
    ) -> None:
        self._model, self._on_compile = model, on_compile
        self._costs = costs or load_costs()
        self._numpy: dict[SamplePrecision, Decoder] = {}
        self._compiled: Decoder | None = None
        self._cannot_compile = False

    def choose(self, precision: SamplePrecision, characters: float) -> Decoder:
        """Return the network that will be done first with so many characters; if possible one that is there."""
        seconds = self._costs.decoding(characters, self._model.model_config.num_parameters(0))
        if precision == "int8":
            if self._compiled is None and seconds > self._costs.load_compiled and not self._cannot_compile:
                self._compiled = self._load(seconds)
            if self._compiled is not None:
                return self._compiled
        if precision not in self._numpy:
            self._numpy[precision] = NumPyRNN(self._model.model_config, self._model.tensors, precision)
        return self._numpy[precision]

    def _load(self, seconds: float) -> Decoder | None:
        """Return the compiled network, unless it would have to be compiled and NumPy would be done before that."""
        try:
            from charrnn.rnn.compiled_rnn import CompiledRNN
            from charrnn.rnn.kernels.decode import is_compiled

            if seconds > self._costs.compile or is_compiled(self._model.model_config.cell):
                return CompiledRNN(self._model.model_config, self._model.tensors, self._on_compile)
        except ImportError:  # no llvmlite, or it cannot compile for this processor
            self._cannot_compile = True
        return None


class SwitchingScorer:
    """Reads with NumPy and switches to torch when that is faster. The results agree to rounding.

    Args:
        model: the model.
        load_torch: returns the network in torch.
        expected: characters that will be read, as far as known.
        streams: streams in which they will be read, about.
        costs: of the backends; those that are remembered of this machine unless given.
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
        self._numpy = NumPyRNN(model.model_config, model.tensors, "fp32")
        self._load_torch, self._spent = load_torch, 0.0
        self._torch = load_torch() if self._is_worth_torch(self._seconds(expected // streams, streams)) else None

    def zero_state(self, batch: int) -> State:
        """Return the state of B streams before their first character."""
        return self._numpy.zero_state(batch)

    def score(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.floating], State]:
        """Read T characters of B streams; see `Scorer.score`."""
        self._spent += self._seconds(*inputs.shape)
        if self._torch is None and self._is_worth_torch(self._spent):
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
    """Return the network of a model that will be done first with so many characters in so many streams.

    Args:
        model: the model.
        expected: characters that will be read, as far as known.
        streams: streams in which they will be read, about.
        device: "auto" and "cpu" start with NumPy; any other is used from the first character on.
        threads: of torch; 0 takes one for each core.
    """

    def load_torch() -> Scorer:
        from charrnn.rnn.torch_scorer import torch_scorer

        return torch_scorer(model, resolve_device(device), threads or usable_cores())

    return SwitchingScorer(model, load_torch, expected, streams) if device in ("auto", "cpu") else load_torch()


def fastest(timings: Iterable[_Timing]) -> _Timing:
    """Return the way to train that promises to be the fastest.

    Torch's layers must win by a margin, for what a measurement of a moment doesn't see: they slow down where streams
    are reset within a chunk, and more than the kernels do where other programs are busy.
    """
    margins = {"torch": NATIVE_MARGIN}
    return min(timings, key=lambda timing: timing.seconds_per_step * margins.get(timing.engine, 1))


def resolve_device(device: Device) -> Device:
    """Return the device that is meant: "auto" takes a CUDA GPU if there is one.

    Raises:
        SettingError: torch doesn't find it here.
    """
    import torch

    if device == "auto":  # never mps: its recurrent gradients have been silently wrong (pytorch#190056)
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise SettingError("device", f"torch finds no {device} here", "give cpu")
    return device
