"""The container format: named arrays and a JSON header in a safetensors file, with a digest of the whole file.

The header is sorted JSON in a single metadata key, because safetensors writes several keys in random order. So equal
contents give equal bytes. Reading a file executes no code from it and does not need torch.

``checkpoint.py`` defines the header of models, ``training/run_state.py`` that of training states, and
``generation/prompt_state.py`` that of prompt states.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from charrnn.errors import DamagedFileError, ModelFileError, describe_value
from charrnn.io.memory import available_memory
from charrnn.io.regular_file import open_regular
from charrnn.io.strict_json import parse_json
from charrnn.units import format_bytes

BLANK_DIGEST = "0" * 64

MAX_HEADER_BYTES = 100_000_000  # limit of the safetensors format
_SIZE_BYTES = 8  # the file begins with the size of the header
_PARSED_HEADER_SIZE = 30  # bytes of memory for each byte of JSON, measured with ``[{},{}]``
_COPIES = 2  # the bytes of the file, and the arrays made of them

Arrays = Mapping[str, NDArray[np.float32]]


class Contents(NamedTuple):
    """The contents of a container file. Only the digest and the format of the header have been checked."""

    header: dict[str, Any]  # without format and digest
    arrays: dict[str, NDArray[Any]]
    digest: str


@dataclass(frozen=True)
class FileKind:
    """A kind of container file."""

    key: str  # metadata key of the header
    noun: str  # name of the kind in error messages
    advice: str  # advice in errors about files of another kind
    format: int = 1  # version of the file format


MODEL = FileKind("charrnn", "a charrnn model", "give a model that charrnn wrote", format=4)
PROMPT_STATE = FileKind("charrnn-state", "a saved state", "give a file that charrnn sample --save-state wrote")
RUN_STATE = FileKind(
    "charrnn-training", "the state of a training run", "give the state that charrnn train wrote", format=5
)

_RESTORE = "restore it from a copy or train again"


def to_bytes(kind: FileKind, header: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Return the bytes of a container file.

    The digest is SHA-256 of the file, computed with 64 zeros in place of the digest.

    Args:
        kind: Kind of the file.
        header: Contents of the header, without format and digest.
        arrays: Arrays by name.
    """
    contents = {**header, "format": kind.format, "digest": BLANK_DIGEST}
    metadata = {kind.key: json.dumps(contents, sort_keys=True)}
    blank = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)
    digest = hashlib.sha256(blank).hexdigest().encode()
    offset = blank.index(_entry(BLANK_DIGEST)) + len(_entry(""))
    view = memoryview(blank)
    return b"".join([view[:offset], digest, view[offset + len(digest) :]])


def digest(data: bytes) -> str:
    """Return the digest of a valid container file."""
    offset = data.index(_entry("")) + len(_entry(""))
    return data[offset : offset + len(BLANK_DIGEST)].decode()


def from_bytes(kind: FileKind, data: bytes, path: Path) -> Contents:
    """Check the digest of a container file and return its contents.

    Args:
        kind: Expected kind of the file.
        data: Bytes of the file, which need not be valid.
        path: Path of the file in error messages.

    Raises:
        DamagedFileError: If the file is empty, truncated, changed since it was written, or of another kind.
        ModelFileError: If the file has another version of the format.
    """
    header = _header(kind, data, path)
    digest = str(header.pop("digest")).encode()
    offset, view = data.index(_entry(digest.decode())) + len(_entry("")), memoryview(data)
    hasher = hashlib.sha256(view[:offset])
    hasher.update(BLANK_DIGEST.encode())
    hasher.update(view[offset + len(digest) :])
    if hasher.hexdigest().encode() != digest:
        _refuse(path, "is damaged: its contents do not match its digest", _RESTORE)
    version = header.pop("format", None)
    if not isinstance(version, int) or version != kind.format:  # not damaged: the digest is the same in all formats
        reason = f"has file format {describe_value(version)}, but this charrnn reads format {kind.format}"
        raise ModelFileError(str(path), reason, "install the version of charrnn that wrote it")
    try:
        return Contents(header, safetensors.numpy.load(data), digest.decode())
    except (KeyError, TypeError, ValueError, OverflowError, SafetensorError) as error:
        _refuse(path, f"does not contain the arrays of {kind.noun} ({describe_value(error)})", _RESTORE)


def read(kind: FileKind, path: Path) -> Contents:
    """Read a container file, check its digest, and return its contents.

    Raises:
        DamagedFileError: If the file is empty, truncated, changed since it was written, or of another kind.
        ModelFileError: If the file cannot be read, does not fit into memory, or has another version of the format.
    """
    try:
        with path.open("rb") as file:
            data = _read_bounded(file, path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = f"cannot be read ({(getattr(error, 'strerror', None) or str(error)).lower()})"
        raise ModelFileError(str(path), reason, "check the path") from None
    return from_bytes(kind, data, path)


def looks_like(kind: FileKind, path: Path) -> bool:
    """Return whether a file begins like one of this kind. The rest of it may be damaged.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a regular file.
    """
    beginning = f'{{"__metadata__":{{"{kind.key}":'.encode()
    with open_regular(path) as file:
        return file.read(_SIZE_BYTES + len(beginning))[_SIZE_BYTES:] == beginning


def _read_bounded(file: IO[bytes], path: Path) -> bytes:
    """Return as many bytes of a file as its header states, and one more if there is one.

    The file may be a pipe, or a device without an end. The result need not be valid: it may be shorter than the
    header states, or not be a container. `from_bytes` checks it.

    Raises:
        DamagedFileError: If the header is larger than the format allows.
        ModelFileError: If the contents do not fit into memory.
    """
    head = file.read(_SIZE_BYTES + 1)
    size = int.from_bytes(head[:_SIZE_BYTES], "little")
    if head[_SIZE_BYTES:] != b"{":
        return head
    if size > MAX_HEADER_BYTES:
        reason = f"is damaged: its header has {size:,} bytes, more than the {MAX_HEADER_BYTES:,} of the format"
        _refuse(path, reason, _RESTORE)
    _check_memory(path, _PARSED_HEADER_SIZE * size)
    head += file.read(size - 1)
    if len(head) < _SIZE_BYTES + size:
        return head
    end = _data_size(head[_SIZE_BYTES:])
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode):  # a file may be shorter than its header states
        end = min(end, max(0, status.st_size - len(head)))
    _check_memory(path, _COPIES * (len(head) + end))
    return b"".join([head, file.read(end), file.read(1)])


def _data_size(header: bytes) -> int:
    """Return the number of bytes that follow a header, or 0 if the header is invalid."""
    try:
        tensors = [entry for name, entry in parse_json(header).items() if name != "__metadata__"]
        ends = [entry["data_offsets"][1] for entry in tensors]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return 0
    return max([0, *(end for end in ends if type(end) is int)])


def _check_memory(path: Path, needed: int) -> None:
    """Raise ModelFileError if there is not enough memory to read a file."""
    if needed > (available := available_memory()):
        sizes = f"{format_bytes(needed)} of memory, but only {format_bytes(available)} is available"
        raise ModelFileError(str(path), f"needs {sizes}", "read it on a machine with more memory")


def _refuse(path: Path, reason: str, advice: str) -> NoReturn:
    raise DamagedFileError(str(path), reason, advice)


def _entry(digest: str) -> bytes:
    """Return the bytes of the digest entry in a file.

    No string in the header can contain these bytes, because its quotes would be escaped twice.
    """
    return f'\\"digest\\": \\"{digest}'.encode()


def _header(kind: FileKind, data: bytes, path: Path) -> dict[str, Any]:
    """Return the header of a file that need not be valid. Does not check the digest."""
    if not data:
        _refuse(path, "is empty", _RESTORE)
    size = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{":
        pickled = data.startswith((b"\x80", b"PK"))
        reason = "is a pickle, which may run code when opened" if pickled else "is not a safetensors file"
        _refuse(path, reason, kind.advice)
    try:
        safetensors_header = parse_json(data[8 : 8 + size])
        tensors = [entry for name, entry in safetensors_header.items() if name != "__metadata__"]
        end = 8 + size + max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
        truncated = 8 + size > len(data)
        reason = "is truncated in its header" if truncated else "is damaged: its header is invalid"
        _refuse(path, reason, _RESTORE)
    if len(data) < end:
        _refuse(path, f"is truncated: {len(data)} of {end} bytes", _RESTORE)
    metadata = safetensors_header.get("__metadata__")
    if not isinstance(metadata, dict) or kind.key not in metadata:
        kinds = (MODEL, RUN_STATE, PROMPT_STATE)
        actual = next((other for other in kinds if isinstance(metadata, dict) and other.key in metadata), None)
        noun = actual.noun if actual else "a safetensors file"
        _refuse(path, f"is {noun}, but not {kind.noun}", kind.advice)
    try:
        header = parse_json(metadata[kind.key])
    except (ValueError, TypeError):
        header = None
    digest = str(header.get("digest")) if isinstance(header, dict) else ""
    if not re.fullmatch("[0-9a-f]{64}", digest) or _entry(digest) not in data:
        _refuse(path, "is damaged: its header is invalid", _RESTORE)
    return dict(header)
