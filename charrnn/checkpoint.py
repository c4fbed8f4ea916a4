"""The model file: one ``NAME.safetensors`` that holds all a sampler needs and how it was made.

Tensors under the plain names of `ModelConfig.tensor_shapes`, and one metadata key, ``charrnn``, with sorted JSON:

    format       1
    model        the fields of ModelConfig
    vocabulary   the characters in the order of their ids, as one string
    training     the record: corpus, settings, how far it came, how good it was
    digest       SHA-256 of this whole file, these 64 digits themselves taken as zeros

One key, because safetensors writes several in random order; so the same model always gives the same bytes. Reading
executes nothing and needs no torch. Nothing else in the package opens a model file.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from charrnn import files
from charrnn.config import ModelConfig
from charrnn.errors import CharrnnError, FileError, ModelFileError
from charrnn.text.vocabulary import Vocabulary

FORMAT = 1
KEY = "charrnn"
SUFFIX = ".safetensors"
FOLDER = Path("checkpoints")  # where a bare name is looked up, and where models land
NO_DIGEST = "0" * 64

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Checkpoint:
    """What a model file holds."""

    model: ModelConfig
    vocabulary: Vocabulary
    tensors: Tensors  # fp32, named and shaped as ModelConfig.tensor_shapes says
    training: Mapping[str, Any]  # the record, JSON types only


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The model file as bytes, the same ones for the same model."""
    header = {
        "format": FORMAT,
        "model": asdict(checkpoint.model),
        "vocabulary": checkpoint.vocabulary.characters,
        "training": dict(checkpoint.training),
        "digest": NO_DIGEST,
    }
    metadata = {KEY: json.dumps(header, sort_keys=True)}
    tensors = {name: np.ascontiguousarray(array) for name, array in checkpoint.tensors.items()}
    blank = safetensors.numpy.save(tensors, metadata)
    return blank.replace(NO_DIGEST.encode(), hashlib.sha256(blank).hexdigest().encode(), 1)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a model file whole: it is there complete or not at all, and what it replaces stays until then.

    Raises:
        FileError: the file cannot be written.
    """
    files.write_whole(path, to_bytes(checkpoint))


def load(path: Path) -> Checkpoint:
    """Reads a model file and verifies every byte of it.

    Raises:
        ModelFileError: missing, unreadable, empty, truncated, changed since it was written, or not a model.
    """
    data = _read(path)
    header = _header(data, path)
    if header.get("format") != FORMAT:
        _refuse(
            path,
            f"has file format {header.get('format')}, this charrnn reads {FORMAT}",
            "install the charrnn that wrote it",
        )
    digest = str(header.get("digest")).encode()
    if hashlib.sha256(data.replace(digest, NO_DIGEST.encode(), 1)).hexdigest().encode() != digest:
        _refuse(path, "is damaged: its contents do not match its own digest", "restore it from a copy or train again")
    try:
        model = ModelConfig(**header["model"])
        vocabulary = Vocabulary(str(header["vocabulary"]))
        training = dict(header["training"])
        tensors = safetensors.numpy.load(data)
        expected = model.tensor_shapes(len(vocabulary)) if model.layers <= len(tensors) else {}
    except (KeyError, TypeError, ValueError, OverflowError, CharrnnError, SafetensorError) as error:
        _refuse(path, f"does not describe a model ({error})", "train again")
    shapes = {name: array.shape for name, array in tensors.items() if array.dtype == np.float32}
    if shapes != expected:
        _refuse(path, "holds tensors that are not those of its model", "train again")
    if not all(np.isfinite(array).all() for array in tensors.values()):
        _refuse(path, "holds weights that are no finite numbers", "train again")
    return Checkpoint(model, vocabulary, tensors, training)


def find(name: str | None) -> Path:
    """The model file that a user means: a path, a bare name in ``./checkpoints``, or None for the newest there.

    Raises:
        ModelFileError: there is none.
    """
    if name is None:
        models = [file for file in FOLDER.glob("*" + SUFFIX) if file.is_file()]
        if not models:
            _refuse(FOLDER, "no model in it", "name one, or train one: charrnn train TEXT")
        return max(models, key=lambda file: (file.stat().st_mtime_ns, file.name))
    bare = Path(name).name == name and not name.endswith(SUFFIX)
    for path in (FOLDER / (name + SUFFIX), Path(name)) if bare else (Path(name),):
        if path.exists() and not path.is_dir():  # a pipe will do, as in `charrnn sample <(curl ...)`
            return path
    if Path(name).is_dir():
        _refuse(Path(name), "is a directory, not a model", "name a .safetensors file")
    looked = f"no such file, nor {FOLDER / (name + SUFFIX)}" if bare else "no such file"
    _refuse(Path(name), looked, "check the name, or train one: charrnn train TEXT")


def place(name: str) -> Path:
    """Where a model called ``name`` is written: a bare name goes to ``./checkpoints``, a path stays one.

    Raises:
        FileError: it names a folder, or nothing at all.
    """
    if os.path.basename(name) in ("", ".", "..", "-"):
        raise FileError(name or "''", "is no name for a file", "give the model one with -o")
    if Path(name).name == name and not name.endswith(SUFFIX):
        return FOLDER / (name + SUFFIX)
    if Path(name).exists() and not Path(name).is_file():  # a device or a folder is not what a suffix would make of it
        raise FileError(name, "is not a regular file", "give the model another place with -o")
    return Path(name) if name.endswith(SUFFIX) else Path(name + SUFFIX)


def check_free(path: Path, *, replace: bool) -> None:
    """Makes sure, before hours are spent, that a model can be saved at ``path``; leaves nothing behind.

    Raises:
        ModelFileError: it exists and ``replace`` is False.
        FileError: no regular file can be written there.
    """
    if path.exists() and not replace:
        _refuse(path, "exists already", "add --force to replace it, or -o NAME to keep both")
    files.check_writable(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _refuse(path, f"cannot be read ({(error.strerror or str(error)).lower()})", "check the path")


def _header(data: bytes, path: Path) -> dict[str, Any]:
    """The JSON under our key, from bytes that may be anything."""
    if not data:
        _refuse(path, "is empty", "restore it from a copy or train again")
    size = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{":
        pickled = data.startswith((b"\x80", b"PK"))
        what = "is a pickle, which may run code when opened" if pickled else "is not a safetensors file"
        _refuse(path, what, "give a model that charrnn wrote")
    try:
        header = json.loads(data[8 : 8 + size])
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = 8 + size + max((entry["data_offsets"][1] for entry in tensors), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        cut = 8 + size > len(data)
        reason = "is truncated in its header" if cut else "is damaged: its header makes no sense"
        _refuse(path, reason, "restore it from a copy or train again")
    if len(data) < end:
        _refuse(path, f"is truncated: {len(data)} of {end} bytes", "restore it from a copy or train again")
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or KEY not in metadata:
        _refuse(path, "is a safetensors file, but not a charrnn model", "give a model that charrnn wrote")
    try:
        ours = json.loads(metadata[KEY])
    except (ValueError, TypeError, RecursionError):
        ours = None
    if not isinstance(ours, dict) or not re.fullmatch("[0-9a-f]{64}", str(ours.get("digest"))):
        _refuse(path, "is damaged: its header makes no sense", "restore it from a copy or train again")
    return ours


def _refuse(path: Path, reason: str, advice: str) -> NoReturn:
    raise ModelFileError(str(path), reason, advice)
