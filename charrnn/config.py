"""Every setting: its meaning, its default and the check of its value.

Frozen dataclasses that are written into the model file as they stand. Building one checks it, so a wrong
value is refused before a file is touched or torch is imported. Knows nothing about the shell: an error names the
field, and ``cli/options.py`` knows what the field is called there.
"""

import codecs
import math
from dataclasses import dataclass
from typing import Any, Literal, Never, get_args

from charrnn.charset import brackets
from charrnn.errors import SettingError

Cell = Literal["lstm", "gru", "rnn"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
Engine = Literal["auto", "fused", "stock"]
Unknown = Literal["error", "skip"]
Unit = Literal["char", "byte"]
Newlines = Literal["unix", "keep"]
Normalize = Literal["none", "nfc", "nfkc"]
Documents = Literal["none", "lines", "files", "separated"]
SamplePrecision = Literal["int8", "fp32"]

MOST_THREADS = 1024  # more crash the libraries below
MOST_RECENT = 10_000  # characters, of which each sample holds as many

GATES: dict[Cell, int] = {"lstm": 4, "gru": 3, "rnn": 1}  # blocks of H rows in each weight matrix of a cell


def _refuse(field: str, value: object, need: str) -> Never:
    raise SettingError(field, f"cannot be {value}", f"give {need}")


def _whole(field: str, value: object, at_least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        _refuse(field, value, f"a whole number, {at_least} or more")
    if value >= 2**63:
        _refuse(field, value, "a whole number below 2**63")


def _number(field: str, value: object, low: float, high: float, need: str, *, open_low: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if not number or not low <= value <= high or (open_low and value == low):  # type: ignore[operator]
        _refuse(field, value, need)


def _choice(field: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        _refuse(field, value, "one of " + ", ".join(get_args(choices)))


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """What a text is to the model: how bytes become characters, what counts as one, and what as a document.

    Raises:
        SettingError: a value that there is none of, or two that exclude each other.
    """

    unit: Unit = "char"  # what is predicted: a character (Unicode code point), or a byte whatever it stands for
    encoding: str | None = None  # None is UTF-8, or UTF-16 or 32 where a byte order mark says so
    newlines: Newlines = "unix"  # CR and CRLF become LF; bytes are always kept
    normalize: Normalize = "none"  # Unicode normalization form
    min_count: int = 1  # rarer characters become one unknown symbol, which is never written
    documents: Documents = "none"  # of which the text consists; each starts with a fresh state and has an end
    separator: str = ""  # what stands between separated ones

    def __post_init__(self) -> None:
        _choice("unit", self.unit, Unit)
        _choice("newlines", self.newlines, Newlines)
        _choice("normalize", self.normalize, Normalize)
        _whole("min_count", self.min_count, 1)
        _choice("documents", self.documents, Documents)
        if (self.documents == "separated") != bool(self.separator):
            raise SettingError("documents", "cannot be separated by nothing", "give a separator, such as a word")
        if self.encoding is not None:
            _encoding(self.encoding)
        if self.unit == "byte":
            for field in ("encoding", "normalize", "min_count"):
                if getattr(self, field) != getattr(ReadConfig, field):
                    raise SettingError(field, "is for characters, and bytes are read as they are", "leave it out")


def _encoding(name: str) -> None:
    try:
        known = codecs.lookup(name)
    except (LookupError, ValueError):
        known = None
    # what Python calls a codec may as well be a compressor; some others don't take a text piece by piece
    if known is None or not known._is_text_encoding or known.incrementaldecoder is None or known.name == "undefined":
        _refuse("encoding", name, "a text encoding such as utf-8, cp1251 or shift_jis")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a network.

    Raises:
        SettingError: a value out of range.
    """

    cell: Cell = "lstm"
    layers: int = 2  # L, stacked: layer l reads the hidden state of layer l-1
    hidden: int = 256  # H, units of each layer
    embedding: int = 0  # E, size of the learned vector of a character; 0 feeds it one-hot
    dropout: float = 0.0  # share of activations silenced between layers and before the output, in training

    def __post_init__(self) -> None:
        _choice("cell", self.cell, Cell)
        _whole("layers", self.layers, 1)
        _whole("hidden", self.hidden, 1)
        _whole("embedding", self.embedding, 0)
        _number("dropout", self.dropout, 0, 0.95, "a share from 0 to 0.95")

    def tensor_shapes(self, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of this network, for a vocabulary of V characters.

        ``embedding`` is (V, E); each layer has ``weight_ih`` (G*H, inputs), ``weight_hh`` (G*H, H) and two biases
        (G*H,), with G gates; ``output.weight`` is (V, H).
        """
        shapes: dict[str, tuple[int, ...]] = {}
        if self.embedding:
            shapes["embedding.weight"] = (vocabulary_size, self.embedding)
        inputs, rows = self.embedding or vocabulary_size, GATES[self.cell] * self.hidden
        for layer in range(self.layers):
            shapes[f"layers.{layer}.weight_ih"] = (rows, inputs)
            shapes[f"layers.{layer}.weight_hh"] = (rows, self.hidden)
            shapes[f"layers.{layer}.bias_ih"] = (rows,)
            shapes[f"layers.{layer}.bias_hh"] = (rows,)
            inputs = self.hidden
        shapes["output.weight"] = (vocabulary_size, self.hidden)
        shapes["output.bias"] = (vocabulary_size,)
        return shapes

    def parameters(self, vocabulary_size: int) -> int:
        """How many numbers the network learns."""
        return sum(math.prod(shape) for shape in self.tensor_shapes(vocabulary_size).values())


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained. Of a budget in steps or epochs and one in minutes, what is spent first ends the run.

    Raises:
        SettingError: a value out of range, or both epochs and steps.
    """

    seq_length: int = 64  # T, time steps of a chunk: how far back a gradient flows
    batch_size: int = 32  # B, contiguous streams read side by side
    learning_rate: float = 6e-3  # the schedule's peak
    warmup: float = 0.02  # share of the budget in which the learning rate rises to its peak
    weight_decay: float = 0.01  # AdamW's, decoupled from the gradient
    clip: float = 1.0  # largest norm of the whole gradient; 0 leaves it alone
    validation: float = 0.1  # share of the text, at its end, that is only ever used to measure
    epochs: float | None = None  # budget in passes over the training text
    steps: int | None = None  # budget in optimizer steps
    minutes: float | None = None  # budget by the clock, evaluations included
    evaluations: int = 20  # how many times the validation text is measured, spread evenly
    patience: int = 5  # evaluations without a better one after which the run ends early; 0 never ends it
    seed: int = 0  # of the first weights and of dropout
    device: Device = "auto"
    precision: Precision = "auto"  # of the matrix products; weights and sums stay fp32
    engine: Engine = "auto"  # fused: our kernels, one thread for each part of the streams; stock: torch's layers
    threads: int = 0  # CPU threads; 0 takes as many as are fastest

    def __post_init__(self) -> None:
        _whole("seq_length", self.seq_length, 1)
        _whole("batch_size", self.batch_size, 1)
        _number("learning_rate", self.learning_rate, 0, 10, "a number above 0, at most 10", open_low=True)
        _number("warmup", self.warmup, 0, 1, "a share from 0 to 1")
        _number("weight_decay", self.weight_decay, 0, 1, "a number from 0 to 1")
        _number("clip", self.clip, 0, math.inf, "a finite number, 0 or more")
        _number("validation", self.validation, 0, 0.9, "a share from 0 to 0.9")
        if self.epochs is not None:
            _number("epochs", self.epochs, 0, 1e9, "a number above 0", open_low=True)
        if self.steps is not None:
            _whole("steps", self.steps, 1)
        if self.minutes is not None:
            _number("minutes", self.minutes, 0, 1e7, "a number above 0", open_low=True)
        _whole("evaluations", self.evaluations, 1)
        _whole("patience", self.patience, 0)
        _whole("seed", self.seed, 0)
        _choice("device", self.device, Device)
        _choice("precision", self.precision, Precision)
        _choice("engine", self.engine, Engine)
        _whole("threads", self.threads, 0)
        if self.threads > MOST_THREADS:
            _refuse("threads", self.threads, f"at most {MOST_THREADS}")
        if self.epochs is not None and self.steps is not None:
            raise SettingError("steps", "given together with epochs", "give one of them")


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How the next character is chosen, and when to stop.

    Raises:
        SettingError: a value out of range.
    """

    length: int = 1000  # new characters, the prompt not counted; 0 never stops
    temperature: float | tuple[float, float] = 1.0  # divides the logits: below 1 plays safe, above 1 takes risks, 0
    # is greedy; of two, the first new character gets the one, the last the other, and those between what lies between
    top_k: int = 0  # keep the K likeliest characters; 0 keeps all
    top_p: float = 1.0  # keep the likeliest characters that together reach this probability
    min_p: float = 0.0  # drop characters less likely than this share of the likeliest
    repeat_penalty: float = 1.0  # the probability of each recent character is raised to this power
    repeat_window: int = 64  # characters that are recent, those of the prompt included
    allow: str = ""  # write only these characters, given as inside a regular expression's brackets; "" allows all
    forbid: str = ""  # never write these, given likewise
    seed: int | None = None  # None: a fresh one each time
    stop: str | tuple[str, ...] | None = None  # end before any of these strings would be written
    keep_stop: bool = False  # end after it instead
    lines: int = 0  # end with the end of so many lines; 0 doesn't count them
    logprobs: int | None = None  # tell of each character how likely it was, and of so many that were likelier
    utf8: bool = False  # of a model of bytes, write whole characters only
    unknown: Unknown = "error"  # what to do with prompt characters that the model never saw
    precision: SamplePrecision = "int8"  # of the weights in matrix products; sums and states stay fp32

    def __post_init__(self) -> None:
        _whole("length", self.length, 0)
        if isinstance(self.temperature, tuple) and len(self.temperature) != 2:
            _refuse("temperature", self.temperature, "one, or two between which to go")
        for temperature in self.temperatures:
            _number("temperature", temperature, 0, math.inf, "a finite number, 0 (greedy) or more")
        if self.temperatures[0] != self.temperatures[1] and not self.length:
            raise SettingError("temperature", "cannot be a range of an endless sample", "give a length")
        _whole("top_k", self.top_k, 0)
        _number("top_p", self.top_p, 0, 1, "a probability above 0, at most 1", open_low=True)
        _number("min_p", self.min_p, 0, 1, "a probability from 0 to 1")
        _number("repeat_penalty", self.repeat_penalty, 0, 100, "a number above 0, at most 100", open_low=True)
        _whole("repeat_window", self.repeat_window, 1)
        if self.repeat_window > MOST_RECENT:
            _refuse("repeat_window", self.repeat_window, f"at most {MOST_RECENT}")
        for name in ("allow", "forbid"):
            brackets(name, getattr(self, name))
        _whole("lines", self.lines, 0)
        if self.seed is not None:
            _whole("seed", self.seed, 0)
        if not isinstance(self.stop, str | tuple | None) or not all(isinstance(stop, str) for stop in self.stops):
            _refuse("stop", self.stop, "a string, or several")
        if "" in self.stops:  # what a shell makes of "$(printf '\\n')"
            raise SettingError("stop", "cannot be empty", "give a string, or leave it out")
        if self.logprobs is not None:
            _whole("logprobs", self.logprobs, 0)
        _choice("unknown", self.unknown, Unknown)
        _choice("precision", self.precision, SamplePrecision)

    @property
    def temperatures(self) -> tuple[float, float]:
        """Of the first new character and of the last."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature, self.temperature)

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end a sample."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()


@dataclass(frozen=True, kw_only=True)
class KeepConfig:
    """How a run is kept on disk; nothing of it changes what is learned.

    Raises:
        SettingError: a value out of range.
    """

    save_every: float = 60.0  # seconds from one save to the next at most, beside those at evaluations

    def __post_init__(self) -> None:
        _number("save_every", self.save_every, 0, math.inf, "seconds, more than 0", open_low=True)
