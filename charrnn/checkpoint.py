"""Saves, loads and finds model files: weights, vocabulary and training record in ``NAME.safetensors``.

The format is that of ``io/container.py``. The tensors have the names of `ModelConfig.tensor_shapes`. The header is

    format        4
    model_config  the fields of ModelConfig
    vocabulary    the symbols in the order of their ids, as one string
    read_config   the fields of ReadConfig: how the text was read
    training      the fields of TrainingRecord, or null
    digest        SHA-256 of the whole file
"""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig, ReadConfig, SampleConfig, TrainConfig
from charrnn.config.checks import FINITE, Integer, Nullable, check_digest, check_text
from charrnn.config.schema import SchemaError, from_json, to_json
from charrnn.config.settings import checked
from charrnn.data.vocabulary import Vocabulary
from charrnn.errors import FileError, ModelFileError
from charrnn.io import atomic_io, container
from charrnn.io.container import MODEL
from charrnn.suggestions import did_you_mean

SUFFIX = ".safetensors"
CHECKPOINT_DIR = Path("checkpoints")  # where models are saved, and where bare names are looked up
STATE_INFIX = ".training"  # part of the name of a training state, before the suffix

MAX_ANCESTORS = 20  # models in the chain of base models of a training record
MAX_WEIGHT = 1e15  # weights with a larger absolute value could overflow float32 in products

Tensors = Mapping[str, NDArray[np.float32]]
Outcome = Literal["done", "overfitting", "stuck", "stopped"]


@dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """A text, in a training record."""

    name: str = checked(check_text)
    sha256: str = checked(check_digest)
    characters: int = checked(Integer(0))  # without document boundaries
    validation_characters: int = checked(Integer(0))  # length of the validation text
    split: int = checked(Integer(0))  # length that the plan reserved for validation
    num_documents: int = checked(Integer(0))
    longest_document: int = checked(Integer(0))


@dataclass(frozen=True, kw_only=True)
class BaseRecord:
    """The model that gave a run its initial weights, in a training record."""

    model: str = checked(check_text)  # its name
    corpus: CorpusRecord | None  # None if it has no training record
    steps: int = checked(Integer(0))
    from_: "BaseRecord | None"


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How a model was trained."""

    corpus: CorpusRecord
    settings: TrainConfig
    from_: BaseRecord | None  # None if the initial weights were random
    changed: tuple[str, ...]  # changes of the settings on --resume
    steps: int = checked(Integer(0))  # optimizer steps taken
    outcome: Outcome | None  # why the run ended; None while it runs
    best_step: int = checked(Integer(0))  # step of the weights
    validation_nats: float | None = checked(Nullable(FINITE))  # of these weights; None without a validation text
    charrnn: str = checked(check_text)  # versions
    torch: str = checked(check_text)

    def __post_init__(self) -> None:
        if self.best_step > self.steps:
            raise ValueError("best_step is larger than steps")
        for change in self.changed:
            check_text("changed", change)


def base_record(name: str, training: TrainingRecord | None) -> BaseRecord:
    """Return the record of a base model, for the training record of a run that starts from its weights.

    The record lists at most `MAX_ANCESTORS` models: the base model, its own base model, and so on.

    Args:
        name: Name of the base model.
        training: Training record of the base model.
    """
    if training is None:
        return BaseRecord(model=name, corpus=None, steps=0, from_=None)
    ancestors, ancestor = list[BaseRecord](), training.from_
    while ancestor is not None and len(ancestors) < MAX_ANCESTORS - 1:
        ancestors.append(ancestor)
        ancestor = ancestor.from_
    from_ = None
    for ancestor in reversed(ancestors):
        from_ = replace(ancestor, from_=from_)
    return BaseRecord(model=name, corpus=training.corpus, steps=training.steps, from_=from_)


@dataclass(frozen=True, kw_only=True)
class _Header:
    model_config: ModelConfig
    vocabulary: str
    read_config: ReadConfig
    training: TrainingRecord | None


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a model file."""

    model_config: ModelConfig
    vocabulary: Vocabulary
    tensors: Tensors  # fp32, with the names and shapes of ModelConfig.tensor_shapes
    training: TrainingRecord | None = None  # None if it is not known how the network was trained
    read_config: ReadConfig = field(default_factory=ReadConfig)  # how the training text was read
    digest: str = field(default="", compare=False)  # of the file; "" if not loaded from one
    path: Path | None = field(default=None, compare=False)  # of the file; None if not loaded from one

    @property
    def default_length(self) -> int:
        """Default length of a sample in characters; with documents, at least twice the longest document."""
        if self.vocabulary.boundary_id is None:
            return SampleConfig.length
        return max(SampleConfig.length, 2 * self.training.corpus.longest_document if self.training else 0)


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of the model file. Equal models give equal bytes."""
    header = _Header(
        model_config=checkpoint.model_config, vocabulary=checkpoint.vocabulary.symbols,
        read_config=checkpoint.read_config, training=checkpoint.training,
    )  # fmt: skip
    return container.to_bytes(MODEL, to_json(header), checkpoint.tensors)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a model file atomically.

    Raises:
        FileError: If the file cannot be written.
    """
    atomic_io.write_atomic(path, to_bytes(checkpoint))


def load(path: Path) -> Checkpoint:
    """Read a model file and check its digest and its contents.

    Raises:
        ModelFileError: If the file is missing, unreadable, damaged, or not a model.
    """
    contents = container.read(MODEL, path)
    try:
        header = from_json(_Header, contents.header)
        vocabulary = read_vocabulary(header.vocabulary, header.read_config)
    except SchemaError as error:
        _refuse(path, f"does not describe a model: {error}", "train again")
    _check_tensors(path, header.model_config, vocabulary, contents.arrays)
    return Checkpoint(
        header.model_config,
        vocabulary,
        contents.arrays,
        header.training,
        header.read_config,
        contents.digest,
        path,
    )


def digest(checkpoint: Checkpoint) -> str:
    """Return the digest of the model file in 64 hexadecimal digits, even if the model is not saved."""
    return checkpoint.digest or container.digest(to_bytes(checkpoint))


def read_vocabulary(symbols: str, config: ReadConfig) -> Vocabulary:
    """Return the vocabulary that a file contains.

    Raises:
        SchemaError: If the symbols are not a vocabulary for texts that are read like this.
    """
    try:
        vocabulary = Vocabulary(symbols, config.unit)
    except ValueError as error:  # includes UnicodeEncodeError, whose message contains all symbols
        reason = "contains invalid symbols" if isinstance(error, UnicodeError) else str(error)
        raise SchemaError(f"vocabulary: {reason}") from None
    if (vocabulary.boundary_id is not None) != (config.documents != "none"):
        problem = "has no" if vocabulary.boundary_id is None else "has a"
        raise SchemaError(f"vocabulary: {problem} document boundary, but documents is {config.documents}")
    return vocabulary


def are_finite(tensors: Tensors) -> bool:
    """Return whether all values are finite, and small enough for products in float32."""
    return all(array.min() >= -MAX_WEIGHT and array.max() <= MAX_WEIGHT for array in tensors.values())


def _check_tensors(path: Path, config: ModelConfig, vocabulary: Vocabulary, tensors: Tensors) -> None:
    """Check the names, shapes, types and values of the weights.

    Raises:
        ModelFileError: If the weights do not fit the config and the vocabulary, or are not finite.
    """
    expected = config.tensor_shapes(len(vocabulary)) if config.layers <= len(tensors) else {}
    shapes = {name: array.shape for name, array in tensors.items() if array.dtype == np.float32}
    if shapes != expected:
        _refuse(path, "contains tensors that do not match its configuration", "train again")
    if not are_finite(tensors):
        _refuse(path, "contains weights that are not finite or far too large", "train again")


def find(name: str | None) -> Path:
    """Return the path of an existing model file.

    Args:
        name: A path, or a bare name that is looked up in ``./checkpoints``. None means the newest model there.

    Raises:
        ModelFileError: If no file is found.
    """
    if name is None:
        if not (models := _saved_models()):
            _refuse(CHECKPOINT_DIR, "contains no model", "name a model, or train one: charrnn train TEXT")
        return max(models)[-1]
    try:
        return _find(name)
    except (OSError, ValueError) as error:  # for example, a name that is too long, or one with a NUL
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ModelFileError(name, reason, "check the name") from None


def _find(name: str) -> Path:
    """Return the path of an existing model file; see `find`.

    Raises:
        ModelFileError: If there is no such file.
        OSError: If the system cannot look up the name.
        ValueError: If the name contains a NUL.
    """
    is_bare = Path(name).name == name and not name.endswith(SUFFIX)
    for path in (CHECKPOINT_DIR / (name + SUFFIX), Path(name)) if is_bare else (Path(name),):
        if path.exists() and not path.is_dir():  # may be a pipe, as in `charrnn sample <(curl ...)`
            return path
    if Path(name).is_dir():
        _refuse(Path(name), "is a directory, not a model", "name a .safetensors file")
    suggestion = did_you_mean(name, (path.name.removesuffix(SUFFIX) for _, path in _saved_models()))
    also_tried = f" (also tried {CHECKPOINT_DIR / (name + SUFFIX)})" if is_bare else ""
    reason = "no such file" + (suggestion or also_tried)
    _refuse(Path(name), reason, "check the name, or train a model: charrnn train TEXT")


def _saved_models() -> list[tuple[int, Path]]:
    """Return the modification time in nanoseconds and the path of each model in ``./checkpoints``."""
    models = []
    for path in CHECKPOINT_DIR.glob("*" + SUFFIX):
        with suppress(OSError):  # another process has deleted it
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and not is_training_state(path):
                models.append((status.st_mtime_ns, path))
    return models


def is_training_state(path: Path) -> bool:
    """Return whether a file is a training state, judging by its name."""
    return path.name.endswith(STATE_INFIX + SUFFIX)


def model_path(name: str) -> Path:
    """Return the path where a new model is written.

    Args:
        name: A path, or a bare name, which becomes a file in ``./checkpoints``.

    Raises:
        FileError: If the name is empty, or that of a directory, a training state or a special file.
    """
    if is_training_state(Path(name)) or name.endswith(STATE_INFIX):
        raise FileError(name, "is the name of a training state", "give the model another name with -o")
    if os.path.basename(name) in ("", ".", "..", "-"):
        raise FileError(name or "''", "is not a file name", "give the model a name with -o")
    if Path(name).name == name and not name.endswith(SUFFIX):
        return CHECKPOINT_DIR / (name + SUFFIX)
    if Path(name).exists() and not Path(name).is_file():  # a device or directory: the suffix would hide the mistake
        raise FileError(name, "is not a regular file", "give the model another path with -o")
    return Path(name) if name.endswith(SUFFIX) else Path(name + SUFFIX)


def check_can_save(path: Path, *, replace: bool) -> None:
    """Check that a model can be saved at ``path``, before a long run starts.

    Args:
        path: Path of the model file.
        replace: Whether an existing file may be replaced.

    Raises:
        ModelFileError: If the file exists and ``replace`` is False.
        FileError: If no regular file can be written there.
    """
    if atomic_io.resolve_target(path).exists() and not replace:
        _refuse(path, "exists already", "add --force to replace it, or -o NAME to keep both")
    atomic_io.check_writable(path)


def _refuse(path: Path, reason: str, advice: str) -> NoReturn:
    raise ModelFileError(str(path), reason, advice)
