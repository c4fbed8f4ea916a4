"""Every setting: type, default, check, option and help text.

The settings are frozen dataclasses, whose fields are stored in the model file. Creating one checks its values, so a
wrong value is reported before any file is touched or torch is imported. An error names the field; ``cli/options.py``
finds the option of a field.
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
    check_bool,
    check_encoding,
    check_stop,
    check_temperature,
    check_text,
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

GLOB = "**/*.txt"  # default pattern of the files to read in a directory
MAX_THREADS = 1024  # libraries crash with more
MAX_REPEAT_WINDOW = 10_000  # characters; every sample keeps this many ids in memory

GATES: dict[Cell, int] = {"lstm": 4, "gru": 3, "rnn": 1}  # blocks of H rows in each weight matrix of a cell


def check_documents(documents: Documents | None, separator: str | None) -> None:
    """Raise SettingError if separated documents have no separator, or others have one."""
    if documents == "separated" and not separator:
        raise SettingError("documents", "the separator is empty", "give a string such as '###'")
    if documents != "separated" and separator:
        raise SettingError("separator", "applies to separated documents only", 'add documents="separated"')


def check_bytes(
    unit: Unit | None, encoding: str | None, normalize: Normalize | None = None, min_count: int | None = None
) -> None:
    """Raise SettingError if bytes are read and a setting for characters is given. None means not given."""
    characters = {"encoding": encoding, "normalize": normalize, "min_count": min_count}
    for name, value in characters.items():
        if unit == "byte" and value not in (None, getattr(ReadConfig, name)):
            raise SettingError(name, "applies to characters only, not to bytes", "leave it out")


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How a text is read: its encoding, its units and its documents.

    Raises:
        SettingError: If a value is wrong, or two values exclude each other.
    """

    # a character is a Unicode code point
    unit: Unit = setting("char", OneOf(Unit), Option("Predict characters or bytes.", group="Text"))
    # None is UTF-8, or UTF-16 or UTF-32 after a byte order mark
    encoding: str | None = setting(
        None,
        check_encoding,
        Option("Encoding of the text, such as cp1251.", "NAME", default_text="utf-8", group="Text"),
    )
    # bytes are never converted
    newlines: Newlines = setting(
        "unix", OneOf(Newlines), Option("Convert CR and CRLF to LF, or keep them.", group="Text")
    )
    normalize: Normalize = setting("none", OneOf(Normalize), Option("Unicode normalization form.", group="Text"))
    # the unknown character is read, but never generated
    min_count: int = setting(
        1,
        Integer(1),
        Option("Replace characters that occur less often by one unknown character.", "N", group="Text"),
    )
    # every document starts from a zero state, and its end is predicted
    documents: Documents = setting("none", OneOf(Documents))
    separator: str = setting("", check_text)  # between separated documents

    def __post_init__(self) -> None:
        check(self)
        check_documents(self.documents, self.separator)
        check_bytes(self.unit, self.encoding, self.normalize, self.min_count)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture of a network.

    Raises:
        SettingError: If a value is out of range.
    """

    cell: Cell = setting("lstm", OneOf(Cell), Option("Type of recurrent cell.", group="Network"))
    # L; layer l reads the hidden state of layer l-1
    layers: int = setting(2, Integer(1), Option("Number of stacked layers.", "N", group="Network"))
    # H
    hidden: int = setting(
        256, Integer(1), Option("Hidden units per layer.", "N", default_text="planned", group="Network")
    )
    # E
    embedding: int = setting(
        0,
        Integer(0),
        Option(
            "Size of the character embedding; 0 means one-hot input.", "N", default_text="planned", group="Network"
        ),
    )
    # between layers and before the output layer
    dropout: float = setting(
        0.0,
        Range(0, 0.95, "a number from 0 to 0.95"),
        Option("Dropout probability.", "P", default_text="planned", group="Network"),
    )

    def __post_init__(self) -> None:
        check(self)

    def tensor_shapes(self, vocab_size: int) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every tensor of this network, for a vocabulary of size V.

        ``embedding.weight`` is (V, E). Each layer has ``weight_ih`` (G*H, inputs), ``weight_hh`` (G*H, H) and two
        biases (G*H,), with G gates. ``output.weight`` is (V, H) and ``output.bias`` (V,).
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
        """Return the number of trainable parameters. Computed without `tensor_shapes`, which lists every layer."""
        rows, inputs = GATES[self.cell] * self.hidden, self.embedding or vocab_size
        above = (self.layers - 1) * rows * self.hidden  # weight_ih of all layers but the first
        recurrent = self.layers * rows * (self.hidden + 2)  # weight_hh and both biases
        output = vocab_size * (self.hidden + 1)
        return vocab_size * self.embedding + rows * inputs + above + recurrent + output


def check_budget(epochs: float | None, steps: int | None) -> None:
    """Raise SettingError if both budgets are given."""
    if epochs is not None and steps is not None:
        raise SettingError("steps", "cannot be combined with --epochs", "give one of them")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained. Training ends when the first of its budgets is spent.

    Raises:
        SettingError: If a value is out of range, or both ``epochs`` and ``steps`` are given.
    """

    # evaluations included
    minutes: float | None = setting(
        None,
        Range(0, 1e7, "a number above 0", exclude_low=True),
        Option("Train for at most this many minutes.", "X", default_text="about 5"),
    )
    epochs: float | None = setting(
        None,
        Range(0, 1e9, "a number above 0", exclude_low=True),
        Option("Train for this many passes over the text.", "X"),
    )
    steps: int | None = setting(None, Integer(1), Option("Train for this many optimizer steps.", "N"))
    # B
    batch_size: int = setting(
        32, Integer(1), Option("Streams read in parallel.", "B", default_text="planned", group="Training")
    )
    # T
    seq_length: int = setting(
        64,
        Integer(1),
        Option("Time steps of backpropagation.", "T", default_text="planned", group="Training"),
    )
    learning_rate: float = setting(
        6e-3,
        Range(0, 10, "a number above 0, at most 10", exclude_low=True),
        Option("Peak learning rate.", "X", flags=("--lr",), default_text="planned", group="Training"),
    )
    # share of the budget in which the learning rate rises to its peak
    warmup: float = setting(0.02, Range(0, 1, "a number from 0 to 1"))
    # of AdamW, decoupled from the gradient
    weight_decay: float = setting(0.01, Range(0, 1, "a number from 0 to 1"))
    grad_clip: float = setting(
        1.0,
        Range(0, math.inf, "a finite number, 0 or more"),
        Option("Largest norm of the gradient; 0 means no limit.", "X", group="Training"),
    )
    # never used for training
    validation: float = setting(
        0.1,
        Range(0, 0.9, "a number from 0 to 0.9"),
        Option(
            "Share of the text to hold out for validation.",
            "P",
            default_text="{default}, at most 500,000 characters",
            group="Text",
        ),
    )
    evaluations: int = setting(20, Integer(1))  # on the validation text, spread evenly over the budget
    patience: int = setting(
        5,
        Integer(0),
        Option("Stop after N evaluations without improvement; 0 means never.", "N", group="Training"),
    )
    seed: int = setting(
        0, Integer(0), Option("Seed of initial weights, dropout and document order.", "N", group="Training")
    )
    # weights, losses and sums stay in float32
    precision: Precision = setting(
        "auto",
        OneOf(Precision),
        Option("Precision of matrix products.", default_text="the faster", group="Machine"),
    )
    # native: charrnn's compiled kernels; torch: torch's layers
    engine: Engine = setting(
        "auto",
        OneOf(Engine),
        Option("Compute layers with charrnn's kernels or torch's.", default_text="the faster", group="Machine"),
    )
    device: Device = setting("auto", OneOf(Device), Option("Device to compute on.", group="Machine"))
    # 0 means the fastest number
    threads: int = setting(
        0, Integer(0, MAX_THREADS), Option("CPU threads.", "N", default_text="the fastest", group="Machine")
    )

    def __post_init__(self) -> None:
        check(self)
        check_budget(self.epochs, self.steps)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How the next character is chosen, and where a sample ends.

    Raises:
        SettingError: If a value is out of range, or a range of temperatures is combined with an unlimited length.
    """

    # divides the logits; a pair is interpolated linearly from the first new character to the last
    temperature: Temperature = setting(
        1.0,
        check_temperature,
        Option(
            "Below 1 is safer, above 1 is more varied, 0 is greedy; 0.6:1.1 rises from 0.6 to 1.1.",
            "X",
            flags=("-t", "--temp"),
            type=str,
            parse=parse_temperature,
        ),
    )
    # without the prompt
    length: int = setting(
        1000,
        Integer(0),
        Option("Number of new characters; 0 means no limit.", "N", flags=("-n", "--length")),
    )
    lines: int = setting(
        0, Integer(0), Option("End the sample after N lines.", "N", default_text="", group="End of a sample")
    )
    stop: str | tuple[str, ...] | None = setting(
        None,
        check_stop,
        Option(
            "End the sample before this string; may be repeated.",
            "STRING",
            type=list[str],
            parse=tuple,
            group="End of a sample",
        ),
    )
    keep_stop: bool = setting(
        False, check_bool, Option("Keep the string of --stop in the sample.", group="End of a sample")
    )
    top_k: int = setting(
        0,
        Integer(0),
        Option("Choose from the K most likely characters.", "K", default_text="", group="Choice of characters"),
    )
    top_p: float = setting(
        1.0,
        Range(0, 1, "a probability above 0, at most 1", exclude_low=True),
        Option(
            "Choose from the most likely characters with total probability P.",
            "P",
            default_text="",
            group="Choice of characters",
        ),
    )
    min_p: float = setting(
        0.0,
        Range(0, 1, "a probability from 0 to 1"),
        Option(
            "Exclude characters less likely than P times the most likely one.",
            "P",
            default_text="",
            group="Choice of characters",
        ),
    )
    repeat_penalty: float = setting(
        1.0,
        Range(0, 100, "a number above 0, at most 100", exclude_low=True),
        Option(
            "Raise the probability of recent characters to the power X.",
            "X",
            default_text="",
            group="Choice of characters",
        ),
    )
    # includes the characters of the prompt
    repeat_window: int = setting(
        64,
        Integer(1, MAX_REPEAT_WINDOW),
        Option("Number of recent characters for --repeat-penalty.", "N", group="Choice of characters"),
    )
    # a character class of a regular expression, without brackets; "" allows all
    allow: str = setting(
        "",
        compile_charset,
        Option(r"Write only these characters, such as 'a-z \n'.", "CHARS", group="Choice of characters"),
    )
    forbid: str = setting(
        "", compile_charset, Option("Never write these characters.", "CHARS", group="Choice of characters")
    )
    logprobs: int | None = setting(
        None,
        Integer(0),
        Option("Add log-probabilities, and those of the K most likely characters; with --json.", "K", group="Output"),
    )
    seed: int | None = setting(
        None,
        Integer(0),
        Option("Seed; the same seed gives the same text.", "N", default_text="random"),
    )
    unknown: Unknown = setting(
        "error", OneOf(Unknown), Option("What to do with characters that the model never saw.", group="Prompt")
    )
    # of the matrix products; sums and states stay in float32
    precision: SamplePrecision = setting(
        "int8", OneOf(SamplePrecision), Option("Precision of the weights.", group="Machine")
    )
    utf8: bool = setting(
        False,
        check_bool,
        Option("With a model that predicts bytes: write only valid UTF-8.", group="Choice of characters"),
    )

    def __post_init__(self) -> None:
        check(self)
        if self.temperatures[0] != self.temperatures[1] and not self.length:
            raise SettingError(
                "temperature",
                "a range cannot be combined with --length 0",
                "give one temperature or limit the length",
            )

    @property
    def temperatures(self) -> tuple[float, float]:
        """Temperatures of the first and of the last new character."""
        return self.temperature if isinstance(self.temperature, tuple) else (self.temperature, self.temperature)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end a sample."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When a run is saved, in addition to every evaluation. It does not affect the result.

    Raises:
        SettingError: If a value is out of range.
    """

    save_every: float = setting(
        60.0,
        Range(0, math.inf, "a number of seconds above 0", exclude_low=True),
        Option("Save at least this often.", "SECONDS", group="Training"),
    )

    def __post_init__(self) -> None:
        check(self)
