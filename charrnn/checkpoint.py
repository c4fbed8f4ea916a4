"""The model file: one ``NAME.safetensors`` that holds all a sampler needs and how it was made.

A sealed file (``container.py``) with tensors under the plain names of `ModelConfig.tensor_shapes`, and a header of

    format        3
    model_config  the fields of ModelConfig
    vocabulary   the symbols in the order of their ids, as one string
    read_config   the fields of ReadConfig: how a text is read for it
    training     the record: corpus, settings, how far it came, how good it was
    digest       of the whole file

Nothing else in the package opens a model file.
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

SUFFIX = ".safetensors"
CHECKPOINT_DIR = Path("checkpoints")  # where a bare name is looked up, and where models land
STATE_INFIX = ".training"  # what the state of a run has in its name before the suffix

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Checkpoint:
    """What a model file holds."""

    model_config: ModelConfig
    vocabulary: Vocabulary
    tensors: Tensors  # fp32, named and shaped as ModelConfig.tensor_shapes says
    training: Mapping[str, Any]  # the record, JSON types only
    read_config: ReadConfig = field(default_factory=ReadConfig)  # how its text was read
    digest: str = field(default="", compare=False)  # of the file that it was read from, if it was

    @property
    def default_length(self) -> int:
        """Characters of a sample unless told otherwise; of a document, which ends by itself, twice the longest."""
        if self.vocabulary.boundary_id is None:
            return SampleConfig.length
        longest = self.training.get("corpus", {}).get("longest_document")
        return max(SampleConfig.length, 2 * longest if isinstance(longest, int) else 0)


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The model file as bytes, the same ones for the same model."""
    header = {
        "model_config": asdict(checkpoint.model_config),
        "vocabulary": checkpoint.vocabulary.symbols,
        "read_config": asdict(checkpoint.read_config),
        "training": dict(checkpoint.training),
    }
    return container.to_bytes(MODEL, header, checkpoint.tensors)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a model file whole: it is there complete or not at all, and what it replaces stays until then.

    Raises:
        FileError: the file cannot be written.
    """
    atomic_io.write_atomic(path, to_bytes(checkpoint))


def load(path: Path) -> Checkpoint:
    """Reads a model file and verifies every byte of it.

    Raises:
        ModelFileError: missing, unreadable, empty, truncated, changed since it was written, or not a model.
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
    return Checkpoint(config, vocabulary, tensors, training, read_config, str(header["digest"]))


def digest(checkpoint: Checkpoint) -> str:
    """The digest of the model file that holds this, saved or not: 64 hexadecimal digits."""
    return checkpoint.digest or container.digest(to_bytes(checkpoint))


def check_tensors(path: Path, config: ModelConfig, vocabulary: Vocabulary, tensors: Tensors) -> None:
    """Makes sure that these are the weights of this network, and numbers.

    Raises:
        ModelFileError: they are not.
    """
    expected = config.tensor_shapes(len(vocabulary)) if config.layers <= len(tensors) else {}
    shapes = {name: array.shape for name, array in tensors.items() if array.dtype == np.float32}
    if shapes != expected:
        _refuse(path, "holds tensors that are not those of its model", "train again")
    if not all(np.isfinite(array).all() for array in tensors.values()):
        _refuse(path, "holds weights that are no finite numbers", "train again")


def find(name: str | None) -> Path:
    """The model file that a user means: a path, a bare name in ``./checkpoints``, or None for the newest there.

    Raises:
        ModelFileError: there is none.
    """
    if name is None:
        models = [
            file for file in CHECKPOINT_DIR.glob("*" + SUFFIX) if file.is_file() and not is_training_state(file)
        ]
        if not models:
            _refuse(CHECKPOINT_DIR, "no model in it", "name one, or train one: charrnn train TEXT")
        return max(models, key=lambda file: (file.stat().st_mtime_ns, file.name))
    bare = Path(name).name == name and not name.endswith(SUFFIX)
    for path in (CHECKPOINT_DIR / (name + SUFFIX), Path(name)) if bare else (Path(name),):
        if path.exists() and not path.is_dir():  # a pipe will do, as in `charrnn sample <(curl ...)`
            return path
    if Path(name).is_dir():
        _refuse(Path(name), "is a directory, not a model", "name a .safetensors file")
    looked = f"no such file, nor {CHECKPOINT_DIR / (name + SUFFIX)}" if bare else "no such file"
    _refuse(Path(name), looked, "check the name, or train one: charrnn train TEXT")


def is_training_state(path: Path) -> bool:
    """Whether a file is, by its name, the state of a run and no model."""
    return path.name.endswith(STATE_INFIX + SUFFIX)


def model_path(name: str) -> Path:
    """Where a model called ``name`` is written: a bare name goes to ``./checkpoints``, a path stays one.

    Raises:
        FileError: it names a folder, a training state, or nothing at all.
    """
    if is_training_state(Path(name)) or name.endswith(STATE_INFIX):
        raise FileError(name, "is the name of a training state", "give the model another one with -o")
    if os.path.basename(name) in ("", ".", "..", "-"):
        raise FileError(name or "''", "is no name for a file", "give the model one with -o")
    if Path(name).name == name and not name.endswith(SUFFIX):
        return CHECKPOINT_DIR / (name + SUFFIX)
    if Path(name).exists() and not Path(name).is_file():  # a device or a folder is not what a suffix would make of it
        raise FileError(name, "is not a regular file", "give the model another place with -o")
    return Path(name) if name.endswith(SUFFIX) else Path(name + SUFFIX)


def check_can_save(path: Path, *, replace: bool) -> None:
    """Makes sure, before hours are spent, that a model can be saved at ``path``; leaves nothing behind.

    Raises:
        ModelFileError: it exists and ``replace`` is False.
        FileError: no regular file can be written there.
    """
    if path.exists() and not replace:
        _refuse(path, "exists already", "add --force to replace it, or -o NAME to keep both")
    atomic_io.check_writable(path)


def _refuse(path: Path, reason: str, advice: str) -> NoReturn:
    raise ModelFileError(str(path), reason, advice)
