"""Caches the ids of large texts on disk, one file per text.

The format of a file is

    ids | document starts, 8 bytes each | JSON | SHA-256 of the JSON | size of the JSON, 8 bytes | `_MAGIC`

The JSON is that of `_Header`. It comes last because it is not known earlier. It contains a signature that identifies
the text: a digest of the names, sizes and times of the files, and of the settings for reading. It also contains a
digest of the ids and the document starts, which is verified when the file is opened. A warning reports a damaged
file, and the text is encoded again.
"""

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ReadConfig
from charrnn.config.checks import Integer, OneOf, check_digest
from charrnn.config.schema import from_json, to_json
from charrnn.config.settings import checked
from charrnn.data.sources import File
from charrnn.data.token_store import MAX_MEMORY_BYTES, FileTokens, TokenStore, TokenWriter
from charrnn.errors import BusyError, CacheWarning, CharrnnError, describe_value
from charrnn.io.atomic_io import AtomicWriter, remove_leftovers
from charrnn.io.lock import Lock
from charrnn.io.regular_file import open_regular
from charrnn.io.strict_json import parse_json

FORMAT = 3
_MAGIC = b"charrnn\n"
_TRAILER_BYTES = 32 + 8 + len(_MAGIC)
_MAX_HEADER_BYTES = 1 << 27  # maximum size of the JSON, which has an entry for each symbol
_BLOCK_BYTES = 1 << 22  # bytes that a thread hashes at once
_MAX_THREADS = 4  # threads that hash
_IGNORED_SETTINGS = ("min_count",)  # settings that do not change the stored ids


@dataclass(frozen=True, kw_only=True)
class TextMetadata:
    """Properties of a text, besides its ids."""

    sha256: str = checked(check_digest)  # of the text in UTF-8, or of the bytes
    counts: Mapping[str, int]  # occurrences of each symbol, in the order of the stored ids
    num_documents: int = checked(Integer(0))
    longest_document: int = checked(Integer(0))  # length in symbols
    encodings: Mapping[str, int]  # number of files in each encoding
    line_ends: Mapping[str, int]  # number of LF, CRLF and CR

    def __post_init__(self) -> None:
        if not self.counts or any(len(symbol) != 1 for symbol in self.counts) or min(self.counts.values()) < 1:
            raise ValueError("counts: does not contain positive counts of symbols")
        if self.line_ends.keys() != {"LF", "CRLF", "CR"}:
            raise ValueError("line_ends: does not contain the counts of LF, CRLF and CR")


@dataclass(frozen=True, kw_only=True)
class _Header:
    format: int
    signature: str = checked(check_digest)
    digest: str = checked(check_digest)  # of ids and document starts, see `_digest_blocks`
    dtype: str = checked(OneOf(Literal["uint8", "uint16", "uint32"]))  # of an id
    num_ids: int = checked(Integer(1))
    num_starts: int = checked(Integer(0))
    text: TextMetadata

    def __post_init__(self) -> None:
        if sum(self.text.counts.values()) != self.num_ids:
            raise ValueError("num_ids: is not the sum of the counts")

    @property
    def ids_bytes(self) -> int:
        return self.num_ids * np.dtype(self.dtype).itemsize


class CachedTokens(NamedTuple):
    """The contents of a cache file."""

    metadata: TextMetadata
    ids: TokenStore
    starts: NDArray[np.int64]  # document starts


class CacheWriter(TokenWriter):
    """Writer of ids to a file in the cache, if they exceed the memory limit.

    Args:
        path: Path of the file; None uses a temporary file.
        directory: Directory of the file.
        expected: Expected size of the text in bytes, or 0.
        in_memory: Maximum size of ids in memory, in bytes.
    """

    def __init__(self, path: Path | None, directory: Path, expected: int, in_memory: int) -> None:
        super().__init__(directory, expected, in_memory)
        self._path = path
        self._lock: Lock | None = None
        self._writer: AtomicWriter | None = None

    def commit(self, metadata: TextMetadata, starts: NDArray[np.int64], signature: str) -> TokenStore:
        """Complete the cache file, if there is one, and return all ids."""
        if self._writer is None:
            return self.finish()
        try:
            self._writer.write(starts.astype("<i8").tobytes())
            file, ids_bytes = self._writer.file, self.length * self.dtype.itemsize
            header = _Header(
                format=FORMAT, signature=signature,
                digest=_digest_blocks(file, file.tell(), ids_bytes, self.dtype, self._largest),
                dtype=self.dtype.name, num_ids=self.length, num_starts=len(starts), text=metadata,
            )  # fmt: skip
            data = json.dumps(to_json(header)).encode("ascii")
            file.seek(0, os.SEEK_END)
            self._writer.write(data + hashlib.sha256(data).digest() + len(data).to_bytes(8, "little") + _MAGIC)
            self._writer.commit()
            self._file = open_regular(self._writer.path)
        except OSError as error:
            raise self._no_room(error) from None
        self._name, self._writer = str(self._writer.path), None
        self._release()
        return self.finish()

    def discard(self) -> None:
        """Delete the unfinished file."""
        super().discard()
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
        self._release()

    def _open(self) -> IO[bytes]:
        if self._path is None:
            return super()._open()
        try:
            self._lock = Lock(self._path)
        except BusyError:  # another process is writing this file, so use a temporary one
            return super()._open()
        except CharrnnError as error:
            self._report(error.reason)
            return super()._open()
        remove_leftovers(self._path)
        self._writer = AtomicWriter(self._path)
        return self._writer.file

    def _report(self, problem: str) -> None:
        """Warn that the ids are not cached."""
        warnings.warn(f"{self._directory}: {problem}, so the encoded text is not cached", CacheWarning, stacklevel=2)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class TokenCache:
    """A directory with the ids of texts.

    Args:
        directory: The directory. It is created when the first file is written.
        always: Whether to cache small texts too.
    """

    def __init__(self, directory: Path, *, always: bool = False) -> None:
        self._directory, self._in_memory = directory, 0 if always else MAX_MEMORY_BYTES
        self._writer: CacheWriter | None = None

    def find(self, path: Path, signature: str) -> CachedTokens | None:
        """Return the contents of a cache file, or None if it is missing, damaged, or belongs to another text.

        Warns:
            CacheWarning: If the file is damaged or cannot be read.
        """
        try:
            return _load(path, signature)
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = f"cannot be read ({(error.strerror or str(error)).lower()})"
        except ValueError as error:
            problem = f"is damaged ({describe_value(error)})"
        warnings.warn(f"{path}: {problem}, so the text is encoded again", CacheWarning, stacklevel=2)
        return None

    def path(self, name: str, files: Iterable[File], config: ReadConfig) -> Path:
        """Return the path of the cache file of a text. A changed text in the same files has the same path."""
        names = (os.path.abspath(file.name) for file in files)
        return self._directory / f"{name}-{_digest(_settings(config), names)[:12]}.ids"

    def open_writer(self, path: Path | None, expected: int) -> CacheWriter:
        """Return a writer for a cache file, or for a temporary file if there is no path."""
        self._writer = CacheWriter(path, self._directory, expected, self._in_memory)
        return self._writer

    def discard(self) -> None:
        """Delete the unfinished file, if there is one."""
        if self._writer is not None:
            self._writer.discard()


def signature(files: Sequence[File], config: ReadConfig) -> str:
    """Return a digest that identifies a text, or "" if one of the files is not a regular file."""
    try:
        return _digest(_settings(config), (_identity(file) for file in files))
    except _NoIdentityError:
        return ""


class _NoIdentityError(Exception):
    """A file without an identity."""


def _identity(file: File) -> tuple[str, int, int, int]:
    """Return path, size, and times of modification and change. Programs cannot set the time of the last change."""
    try:
        changed = os.stat(file.name).st_ctime_ns
    except OSError:
        raise _NoIdentityError from None
    if (identity := file.identity) is None:
        raise _NoIdentityError
    return *identity, changed


def _settings(config: ReadConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in _IGNORED_SETTINGS}


def _digest(settings: Mapping[str, Any], items: Iterable[Any]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("ascii"))
    for item in items:
        digest.update(json.dumps(item).encode("ascii"))
    return digest.hexdigest()


def _load(path: Path, signature: str) -> CachedTokens | None:
    """Return the verified contents of a cache file, or None if it has another format or belongs to another text.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is damaged, or not a regular file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < _TRAILER_BYTES:
            raise ValueError("it is truncated")
        file.seek(size - _TRAILER_BYTES)
        trailer = file.read(_TRAILER_BYTES)
        header_size = int.from_bytes(trailer[32:40], "little")
        data_size = size - _TRAILER_BYTES - header_size
        if trailer[40:] != _MAGIC or data_size < 0 or header_size > _MAX_HEADER_BYTES:
            raise ValueError("it is truncated, or not a cache file")
        file.seek(data_size)
        data = file.read(header_size)
        if hashlib.sha256(data).digest() != trailer[:32]:
            raise ValueError("its header does not match its digest")
        fields = parse_json(data)
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            return None
        header = from_json(_Header, fields)
        if header.signature != signature:
            return None
        dtype = np.dtype(header.dtype)
        if header.ids_bytes + 8 * header.num_starts != data_size:
            raise ValueError("its size does not match its header")
        file.seek(header.ids_bytes)
        starts = np.frombuffer(_read(file, 8 * header.num_starts), "<i8").astype(np.int64)
        if len(starts) and (starts[0] < 0 or starts[-1] >= header.num_ids or (np.diff(starts) <= 0).any()):
            raise ValueError("its document starts are not positions in ascending order")
        largest = len(header.text.counts) - 1
        if _digest_blocks(file, data_size, header.ids_bytes, dtype, largest) != header.digest:
            raise ValueError("its ids do not match their digest")
        file.seek(0)
        if header.ids_bytes <= MAX_MEMORY_BYTES:
            return CachedTokens(header.text, np.frombuffer(_read(file, header.ids_bytes), dtype), starts)
        duplicate = os.fdopen(os.dup(file.fileno()), "rb", 0)
        return CachedTokens(header.text, FileTokens(duplicate, dtype, header.num_ids, str(path), largest), starts)


def _read(file: IO[bytes], size: int) -> NDArray[np.uint8]:
    """Return the next bytes of a file.

    Raises:
        ValueError: If the file ends before.
    """
    data = np.empty(size, dtype=np.uint8)
    view = data.data
    while view and (count := file.readinto(view)):  # type: ignore[attr-defined]
        view = view[count:]
    if view:
        raise ValueError("it was truncated while it was read")
    return data


def _digest_blocks(file: IO[bytes], size: int, ids_bytes: int, dtype: np.dtype[Any], largest: int) -> str:
    """Return the SHA-256 of the SHA-256 digests of the blocks of a file. Several threads compute them.

    Args:
        file: The file.
        size: Number of bytes to digest.
        ids_bytes: Number of bytes of ids at the beginning of the file.
        dtype: Type of an id.
        largest: Largest valid id.

    Raises:
        ValueError: If the file is shorter, or an id is invalid.
    """
    reading = threading.Lock()

    def digest_block(start: int) -> bytes:
        with reading:
            file.seek(start)
            block = _read(file, min(_BLOCK_BYTES, size - start))
        ids = block[: max(0, ids_bytes - start)].view(dtype)
        if len(ids) and ids.max() > largest:
            raise ValueError("it contains ids without a symbol")
        return hashlib.sha256(block.data).digest()

    digest = hashlib.sha256()
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for block_digest in pool.map(digest_block, range(0, size, _BLOCK_BYTES)):
            digest.update(block_digest)
    return digest.hexdigest()
