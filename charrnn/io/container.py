"""A sealed file: named arrays and a JSON header in the safetensors format, with a digest over all of it.

One metadata key holds the sorted JSON, because safetensors writes several in random order; so the same contents
always give the same bytes. Reading executes nothing and needs no torch. The meaning of the header is
defined elsewhere: for models in ``checkpoint.py``, for runs in ``training/run_state.py``, for states in
``generation/prompt_state.py``.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from charrnn.errors import DamagedFileError, ModelFileError

BLANK_DIGEST = "0" * 64

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class FileKind:
    """What a sealed file is."""

    key: str  # its metadata key
    noun: str
    advice: str  # what to do about a file of another kind
    format: int = 1


MODEL = FileKind("charrnn", "a charrnn model", "give a model that charrnn wrote", format=3)
PROMPT_STATE = FileKind("charrnn-state", "a saved state", "give a file that charrnn sample --save-state wrote")
RUN_STATE = FileKind(
    "charrnn-training", "the state of a training run", "give the state that charrnn train wrote", format=4
)

_RESTORE = "restore it from a copy or train again"


def to_bytes(kind: FileKind, header: Mapping[str, Any], arrays: Arrays) -> bytes:
    """The file as bytes. The digest is SHA-256 of all of them, its own 64 digits taken as zeros."""
    contents = {**header, "format": kind.format, "digest": BLANK_DIGEST}
    metadata = {kind.key: json.dumps(contents, sort_keys=True)}
    blank = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)
    digest = hashlib.sha256(blank).hexdigest().encode()
    place = blank.index(_entry(BLANK_DIGEST)) + len(_entry(""))
    whole = memoryview(blank)
    return b"".join([whole[:place], digest, whole[place + len(digest) :]])


def digest(data: bytes) -> str:
    """The digest of a file that `to_bytes` made."""
    place = data.index(_entry("")) + len(_entry(""))
    return data[place : place + len(BLANK_DIGEST)].decode()


def from_bytes(kind: FileKind, data: bytes, path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a file, every byte of it verified.

    Args:
        kind: what it must be.
        data: the file; may be anything.
        path: what an error calls it.

    Raises:
        DamagedFileError: empty, truncated, changed since it was written, or of another kind.
        ModelFileError: of another format.
    """
    header = _header(kind, data, path)
    digest = str(header["digest"]).encode()
    place, whole = data.index(_entry(header["digest"])) + len(_entry("")), memoryview(data)
    hashed = hashlib.sha256(whole[:place])
    hashed.update(BLANK_DIGEST.encode())
    hashed.update(whole[place + len(digest) :])
    if hashed.hexdigest().encode() != digest:
        _refuse(path, "is damaged: its contents do not match its own digest", _RESTORE)
    if header.get("format") != kind.format:  # sound, since all formats have the same digest
        reason = f"has file format {header.get('format')}, this charrnn reads {kind.format}"
        raise ModelFileError(str(path), reason, "install the charrnn that wrote it")
    try:
        return header, safetensors.numpy.load(data)
    except (KeyError, TypeError, ValueError, OverflowError, SafetensorError) as error:
        _refuse(path, f"does not describe {kind.noun} ({error})", "train again")


def read(kind: FileKind, path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """`from_bytes` of a file.

    Raises:
        ModelFileError: it cannot be read, or as `from_bytes` says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read ({(error.strerror or str(error)).lower()})"
        raise ModelFileError(str(path), reason, "check the path") from None
    return from_bytes(kind, data, path)


def _refuse(path: Path, reason: str, advice: str) -> NoReturn:
    raise DamagedFileError(str(path), reason, advice)


def _entry(digest: str) -> bytes:
    """How the header begins to say its digest: as no text in it could, whose quotes would be escaped twice."""
    return f'\\"digest\\": \\"{digest}'.encode()


def _header(kind: FileKind, data: bytes, path: Path) -> dict[str, Any]:
    """The JSON under our key, from bytes that may be anything."""
    if not data:
        _refuse(path, "is empty", _RESTORE)
    size = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{":
        pickled = data.startswith((b"\x80", b"PK"))
        what = "is a pickle, which may run code when opened" if pickled else "is not a safetensors file"
        _refuse(path, what, kind.advice)
    try:
        header = json.loads(data[8 : 8 + size])
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = 8 + size + max((entry["data_offsets"][1] for entry in tensors), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        cut = 8 + size > len(data)
        reason = "is truncated in its header" if cut else "is damaged: its header makes no sense"
        _refuse(path, reason, _RESTORE)
    if len(data) < end:
        _refuse(path, f"is truncated: {len(data)} of {end} bytes", _RESTORE)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or kind.key not in metadata:
        other = next(
            (one for one in (MODEL, RUN_STATE, PROMPT_STATE) if isinstance(metadata, dict) and one.key in metadata),
            None,
        )
        what = f"is {other.noun}" if other else "is a safetensors file"
        _refuse(path, f"{what}, but not {kind.noun}", kind.advice)
    try:
        ours = json.loads(metadata[kind.key])
    except (ValueError, TypeError, RecursionError):
        ours = None
    digest = str(ours.get("digest")) if isinstance(ours, dict) else ""
    if not re.fullmatch("[0-9a-f]{64}", digest) or _entry(digest) not in data:
        _refuse(path, "is damaged: its header makes no sense", _RESTORE)
    return dict(ours)
