"""Every setting: its default, its check, its option and its help text.

Frozen dataclasses that are written into the model file as they stand. Creating one checks it, so a wrong value is
refused before a file is touched or torch is imported. An error names the field; ``cli/options.py`` knows the option.
"""
# ruff: noqa: RUF009 - setting() makes a field

import math
from dataclasses import dataclass
from typing import Literal

from charrnn.charset import compile_charset
from charrnn.config.checks import (
    Integer,
    OneOf,
    Range,
    check_encoding,
    check_stop,
    check_temperature,
    parse_temperature,
)
from charrnn.config.settings import Option, check, setting
from charrnn.errors import SettingError

Cell = Literal["lstm", "gru", "rnn"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
Engine = Literal["auto", "native", "torch"]
Unknown = Literal["error", "skip"]
Unit = Literal["char", "byte"]
Newlines = Literal["unix", "keep"]
Normalize = Literal["none", "nfc", "nfkc"]
Documents = Literal["none", "lines", "files", "separated"]
SamplePrecision = Literal["int8", "fp32"]
Temperature = float | tuple[float, float]

GLOB = "**/*.txt"  # the files of a folder that are read
MAX_THREADS = 1024  # more crash the libraries below
MAX_REPEAT_WINDOW = 10_000  # characters; each sample keeps that many in memory

GATES: dict[Cell, int] = {"lstm": 4, "gru": 3, "rnn": 1}  # blocks of H rows in each weight matrix of a cell


def check_documents(documents: Documents | None, separator: str | None) -> None:
    """Raise SettingError unless there is a separator just where documents are separated."""
    if (documents == "separated") != bool(separator):
        raise SettingError("documents", "cannot be separated by nothing", "give a separator, such as a word")


def check_bytes(
    unit: Unit | None, encoding: str | None, normalize: Normalize | None = None, min_count: int | None = None
) -> None:
    """Raise SettingError if a setting of characters is given where bytes are read; None is not given."""
    characters = {"encoding": encoding, "normalize": normalize, "min_count": min_count}
    for name, value in characters.items():
        if unit == "byte" and value not in (None, getattr(ReadConfig, name)):
            raise SettingError(name, "is for characters, and bytes are read as they are", "leave it out")


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How a text is read: what bytes become characters, what counts as one, and what is a document.

    Raises:
        SettingError: a wrong value, or two that exclude each other.
    """

    # a character is a Unicode code point; a byte stands for itself
    unit: Unit = setting("char", OneOf(Unit), Option("What is predicted."))
    # None is UTF-8, or UTF-16 or 32 where a byte order mark says so
    encoding: str | None = setting(
        None, check_encoding, Option("Of the text, such as cp1251.", "NAME", default_text="utf-8")
    )
    # bytes are kept in any case
    newlines: Newlines = setting("unix", OneOf(Newlines), Option("CR and CRLF become LF, or stay."))
    normalize: Normalize = setting("none", OneOf(Normalize), Option("Unicode's forms."))
    # the unknown character is never written
    min_count: int = setting(1, Integer(1), Option("Rarer characters become one unknown one.", "N"))
    # each starts with a zero state and has an end
    documents: Documents = setting("none", OneOf(Documents))
    separator: str = setting("")  # between separated documents

    def __post_init__(self) -> None:
        check(self)
        check_documents(self.documents, self.separator)
        check_bytes(self.unit, self.encoding, self.normalize, self.min_count)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a network.

    Raises:
        SettingError: a value out of range.
    """

    cell: Cell = setting("lstm", OneOf(Cell), Option("Type of recurrent cell."))
    # L; layer l reads the hidden state of layer l-1
    layers: int = setting(2, Integer(1), Option("Layers of cells, stacked.", "N"))
    hidden: int = setting(256, Integer(1), Option("Units of a layer.", "N", default_text="planned"))  # H
    embedding: int = setting(
        0, Integer(0), Option("Size of a character's vector; 0 is one-hot.", "N", default_text="planned")
    )
    # between layers and before the output
    dropout: float = setting(
        0.0,
        Range(0, 0.95, "a share from 0 to 0.95"),
        Option("Share of activations silenced in training.", "P", default_text="planned"),
    )

    def __post_init__(self) -> None:
        check(self)

    def tensor_shapes(self, vocab_size: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of this network, for a vocabulary of V characters.

        ``embedding`` is (V, E); each layer has ``weight_ih`` (G*H, inputs), ``weight_hh`` (G*H, H) and two biases
        (G*H,), with G gates; ``output.weight`` is (V, H).
        """
        shapes: dict[str, tuple[int, ...]] = {}
        if self.embedding:
            shapes["embedding.weight"] = (vocab_size, self.embedding)
        inputs, rows = self.embedding or vocab_size, GATES[self.cell] * self.hidden
        for layer in range(self.layers):
            shapes[f"layers.{layer}.weight_ih"] = (rows, inputs)
            shapes[f"layers.{layer}.weight_hh"] = (rows, self.hidden)
            shapes[f"layers.{layer}.bias_ih"] = (rows,)
            shapes[f"layers.{layer}.bias_hh"] = (rows,)
            inputs = self.hidden
        shapes["output.weight"] = (vocab_size, self.hidden)
        shapes["output.bias"] = (vocab_size,)
        return shapes

    def num_parameters(self, vocab_size: int) -> int:
        """How many numbers the network learns."""
        return sum(math.prod(shape) for shape in self.tensor_shapes(vocab_size).values())


def check_budget(epochs: float | None, steps: int | None) -> None:
    """Raise SettingError if both are given."""
    if epochs is not None and steps is not None:
        raise SettingError("steps", "given together with epochs", "give one of them")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained. Training ends when the first of its budgets is spent.

    Raises:
        SettingError: a value out of range, or both epochs and steps.
    """

    # evaluations included
    minutes: float | None = setting(
        None,
        Range(0, 1e7, "a number above 0", exclude_low=True),
        Option("Train this long at most.", "X", default_text="about 5"),
    )
    epochs: float | None = setting(
        None, Range(0, 1e9, "a number above 0", exclude_low=True), Option("Or: read the text this many times.", "X")
    )
    steps: int | None = setting(None, Integer(1), Option("Or: take this many steps.", "N"))
    batch_size: int = setting(32, Integer(1), Option("Streams read side by side.", "B", default_text="planned"))
    seq_length: int = setting(
        64, Integer(1), Option("Characters a gradient reaches back.", "T", default_text="planned")
    )
    learning_rate: float = setting(
        6e-3,
        Range(0, 10, "a number above 0, at most 10", exclude_low=True),
        Option("Peak learning rate.", "X", flags=("--lr",), default_text="planned"),
    )
    # share of the budget in which the learning rate rises to its peak
    warmup: float = setting(0.02, Range(0, 1, "a share from 0 to 1"))
    # of AdamW, decoupled from the gradient
    weight_decay: float = setting(0.01, Range(0, 1, "a number from 0 to 1"))
    grad_clip: float = setting(
        1.0, Range(0, math.inf, "a finite number, 0 or more"), Option("Largest norm of the gradient; 0: any.", "X")
    )
    # never trained on
    validation: float = setting(
        0.1,
        Range(0, 0.9, "a share from 0 to 0.9"),
        Option(
            "Share to measure on: the end of the text, or documents.", "P", default_text="{default}, at most 500,000"
        ),
    )
    evaluations: int = setting(20, Integer(1))  # of the validation text, spread evenly
    patience: int = setting(5, Integer(0), Option("Evaluations without a better one that end it; 0: never.", "N"))
    seed: int = setting(0, Integer(0), Option("Of the first weights and of dropout.", "N"))
    # weights and sums stay fp32
    precision: Precision = setting(
        "auto", OneOf(Precision), Option("Of the matrix products.", default_text="the faster")
    )
    # native: our compiled kernels; torch: torch's layers
    engine: Engine = setting("auto", OneOf(Engine), Option("Our kernels, or torch's.", default_text="the faster"))
    device: Device = setting("auto", OneOf(Device), Option("What computes."))
    # 0 is as many as are fastest
    threads: int = setting(0, Integer(0, MAX_THREADS), Option("CPU threads.", "N", default_text="the fastest"))

    def __post_init__(self) -> None:
        check(self)
        check_budget(self.epochs, self.steps)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How the next character is chosen, and when to stop.

    Raises:
        SettingError: a value out of range.
    """

    # divides the logits; of two, the first new character gets the first, the last one the second
    temperature: Temperature = setting(
        1.0,
        check_temperature,
        Option(
            "Below 1 plays safe, above 1 takes risks, 0 is greedy; 0.6:1.1 goes from one to the other.",
            "X",
            flags=("-t", "--temp"),
            type=str,
            parse=parse_temperature,
        ),
    )
    # the prompt is not counted
    length: int = setting(
        1000, Integer(0), Option("New characters; 0 never stop_strings.", "N", flags=("-n", "--length"))
    )
    lines: int = setting(0, Integer(0), Option("End a sample after so many lines.", "N", default_text=""))
    stop: str | tuple[str, ...] | None = setting(
        None,
        check_stop,
        Option("End before this would be written; may be repeated.", "STRING", type=list[str], parse=tuple),
    )
    keep_stop: bool = setting(False, option=Option("End after it instead."))
    top_k: int = setting(0, Integer(0), Option("Choose among the K likeliest characters.", "K", default_text=""))
    top_p: float = setting(
        1.0,
        Range(0, 1, "a probability above 0, at most 1", exclude_low=True),
        Option("Choose among the likeliest that reach this probability together.", "P", default_text=""),
    )
    min_p: float = setting(
        0.0,
        Range(0, 1, "a probability from 0 to 1"),
        Option("Leave out what is less likely than P times the likeliest.", "P", default_text=""),
    )
    repeat_penalty: float = setting(
        1.0,
        Range(0, 100, "a number above 0, at most 100", exclude_low=True),
        Option("Raise the probability of recent characters to this power.", "X", default_text=""),
    )
    # characters of the prompt are recent, too
    repeat_window: int = setting(64, Integer(1, MAX_REPEAT_WINDOW), Option("How many are recent.", "N"))
    # written as inside the compile_charset of a regular expression; "" allows all
    allow: str = setting("", compile_charset, Option(r"Write only these, such as 'a-z \n'.", "CHARS"))
    forbid: str = setting("", compile_charset, Option("Never write these.", "CHARS"))
    logprobs: int | None = setting(
        None, Integer(0), Option("With --json: each character's, and of the K likeliest.", "K")
    )
    seed: int | None = setting(
        None, Integer(0), Option("The same seed, the same text.", "N", default_text="a fresh one")
    )
    unknown: Unknown = setting("error", OneOf(Unknown), Option("Characters the model never saw."))
    # of the matrix products; sums and states stay fp32
    precision: SamplePrecision = setting("int8", OneOf(SamplePrecision), Option("Of the weights."))
    utf8: bool = setting(False, option=Option("Of a model of bytes: whole characters only."))

    def __post_init__(self) -> None:
        check(self)
        if self.temperatures[0] != self.temperatures[1] and not self.length:
            raise SettingError("temperature", "cannot be a range of an endless sample", "give a length")

    @property
    def temperatures(self) -> tuple[float, float]:
        """Of the first new character and of the last."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature, self.temperature)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings that end a sample."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When a run is saved, besides at each evaluation; changes nothing of what is learned.

    Raises:
        SettingError: a value out of range.
    """

    save_every: float = setting(
        60.0,
        Range(0, math.inf, "seconds, more than 0", exclude_low=True),
        Option("Save at least this often.", "SECONDS"),
    )

    def __post_init__(self) -> None:
        check(self)
