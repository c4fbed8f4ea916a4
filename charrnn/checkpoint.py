"""Saves, loads and finds model files: weights, vocabulary and training record in ``NAME.safetensors``.

The format is that of ``io/container.py``. The tensors have the names of `ModelConfig.tensor_shapes`. The header is

    format        3
    model_config  the fields of ModelConfig
    vocabulary    the symbols in the order of their ids, as one string
    read_config   the fields of ReadConfig: how the text was read
    training      the training record: text, settings, progress, validation loss
    digest        SHA-256 of the whole file
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ModelConfig, ReadConfig, SampleConfig
from charrnn.data.vocabulary import Vocabulary
from charrnn.errors import CharrnnError, FileError, ModelFileError
from charrnn.io import atomic_io, container
from charrnn.io.container import MODEL
from charrnn.suggestions import did_you_mean

SUFFIX = ".safetensors"
CHECKPOINT_DIR = Path("checkpoints")  # where models are saved, and where bare names are looked up
STATE_INFIX = ".training"  # part of the name of a training state, before the suffix

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a model file."""

    model_config: ModelConfig
    vocabulary: Vocabulary
    tensors: Tensors  # fp32, with the names and shapes of ModelConfig.tensor_shapes
    training: Mapping[str, Any]  # training record, JSON types only
    read_config: ReadConfig = field(default_factory=ReadConfig)  # how the training text was read
    digest: str = field(default="", compare=False)  # of the file; "" if not loaded from one
    path: Path | None = field(default=None, compare=False)  # of the file; None if not loaded from one

    @property
    def default_length(self) -> int:
        """Default length of a sample in characters; with documents, at least twice the longest document."""
        if self.vocabulary.boundary_id is None:
            return SampleConfig.length
        longest = self.training.get("corpus", {}).get("longest_document")
        return max(SampleConfig.length, 2 * longest if isinstance(longest, int) else 0)


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of the model file. Equal models give equal bytes."""
    header = {
        "model_config": asdict(checkpoint.model_config),
        "vocabulary": checkpoint.vocabulary.symbols,
        "read_config": asdict(checkpoint.read_config),
        "training": dict(checkpoint.training),
    }
    return container.to_bytes(MODEL, header, checkpoint.tensors)


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
    header, tensors = container.read(MODEL, path)
    try:
        config = ModelConfig(**header["model_config"])
        read_config = ReadConfig(**header["read_config"])
        vocabulary = Vocabulary(str(header["vocabulary"]), read_config.unit)
        training = dict(header["training"])
    except (KeyError, TypeError, ValueError, OverflowError, CharrnnError) as error:
        _refuse(path, f"does not describe a model ({error})", "train again")
    check_tensors(path, config, vocabulary, tensors)
    return Checkpoint(config, vocabulary, tensors, training, read_config, str(header["digest"]), path)


def digest(checkpoint: Checkpoint) -> str:
    """Return the digest of the model file in 64 hexadecimal digits, even if the model is not saved."""
    return checkpoint.digest or container.digest(to_bytes(checkpoint))


def check_tensors(path: Path, config: ModelConfig, vocabulary: Vocabulary, tensors: Tensors) -> None:
    """Check the names, shapes, types and values of the weights.

    Raises:
        ModelFileError: If the weights do not fit the config and the vocabulary, or are not finite.
    """
    expected = config.tensor_shapes(len(vocabulary)) if config.layers <= len(tensors) else {}
    shapes = {name: array.shape for name, array in tensors.items() if array.dtype == np.float32}
    if shapes != expected:
        _refuse(path, "contains tensors that do not match its configuration", "train again")
    if not all(np.isfinite(array).all() for array in tensors.values()):
        _refuse(path, "contains weights that are not finite", "train again")


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
        return max(models, key=lambda file: (file.stat().st_mtime_ns, file.name))
    is_bare = Path(name).name == name and not name.endswith(SUFFIX)
    for path in (CHECKPOINT_DIR / (name + SUFFIX), Path(name)) if is_bare else (Path(name),):
        if path.exists() and not path.is_dir():  # may be a pipe, as in `charrnn sample <(curl ...)`
            return path
    if Path(name).is_dir():
        _refuse(Path(name), "is a directory, not a model", "name a .safetensors file")
    suggestion = did_you_mean(name, (file.name.removesuffix(SUFFIX) for file in _saved_models()))
    also_tried = f" (also tried {CHECKPOINT_DIR / (name + SUFFIX)})" if is_bare else ""
    reason = "no such file" + (suggestion or also_tried)
    _refuse(Path(name), reason, "check the name, or train a model: charrnn train TEXT")


def _saved_models() -> list[Path]:
    """Return the models in ``./checkpoints``."""
    return [file for file in CHECKPOINT_DIR.glob("*" + SUFFIX) if file.is_file() and not is_training_state(file)]


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
    if path.exists() and not replace:
        _refuse(path, "exists already", "add --force to replace it, or -o NAME to keep both")
    atomic_io.check_writable(path)


def _refuse(path: Path, reason: str, advice: str) -> NoReturn:
    raise ModelFileError(str(path), reason, advice)
