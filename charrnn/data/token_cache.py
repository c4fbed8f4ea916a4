"""Caches the ids of large texts on disk, one file per text.

The format of a file is

    ids | document starts, 8 bytes each | metadata as JSON | size of the JSON, 8 bytes | `_MAGIC`

The metadata comes last because it is not known earlier. It contains a signature that identifies the text: a digest of
the names, sizes and modification times of the files, and of the settings for reading. It also contains the
modification time of the cache file, so a file that another program modified is not used.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ReadConfig
from charrnn.data.sources import File
from charrnn.data.token_store import MAX_MEMORY_BYTES, FileTokens, TokenStore, TokenWriter
from charrnn.errors import CharrnnError
from charrnn.io.atomic_io import AtomicWriter, remove_leftovers
from charrnn.io.lock import Lock

FORMAT = 2
_MAGIC = b"charrnn\n"
_IGNORED_SETTINGS = ("min_count",)  # settings that do not change the stored ids

CachedTokens = tuple[Mapping[str, Any], TokenStore, NDArray[np.int64]]  # metadata, ids, document starts


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

    def commit(self, metadata: Mapping[str, Any], starts: NDArray[np.int64]) -> TokenStore:
        """Complete the cache file, if there is one, and return all ids."""
        if self._writer is None:
            return self.finish()
        mtime = (
            int(time.time() - 2) // 2 * 2
        )  # in the past, and exact on any file system, so that a later write changes it
        contents = {
            **metadata, "format": FORMAT, "dtype": self.dtype.name, "num_ids": self.length, "num_starts": len(starts),
            "mtime": mtime,
        }  # fmt: skip
        data = json.dumps(contents).encode("ascii")
        try:
            self._writer.write(starts.astype("<i8").tobytes() + data + len(data).to_bytes(8, "little") + _MAGIC)
            self._file = self._writer.commit()
            os.utime(self._writer.path, (mtime, mtime))
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
        except CharrnnError:  # another process is writing this file, so use a temporary one
            return super()._open()
        remove_leftovers(self._path)
        self._writer = AtomicWriter(self._path)
        return self._writer.file

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
        """Return the contents of a cache file, or None if it is missing, damaged, or belongs to another text."""
        try:
            with open(path, "rb", buffering=0) as file:
                size, mtime = os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_mtime
                file.seek(-16, os.SEEK_END)
                tail = file.read(16)
                length = int.from_bytes(tail[:8], "little")
                if tail[8:] != _MAGIC or length > size:
                    return None
                json_offset = file.seek(-16 - length, os.SEEK_END)
                metadata = json.loads(file.read(length))
                dtype = np.dtype(metadata["dtype"])
                num_ids, num_starts = int(metadata["num_ids"]), int(metadata["num_starts"])
                valid = (metadata["format"], metadata["signature"], metadata["mtime"]) == (FORMAT, signature, mtime)
                if not valid or num_ids * dtype.itemsize + 8 * num_starts != json_offset:
                    return None
                file.seek(num_ids * dtype.itemsize)
                starts = np.fromfile(file, "<i8", num_starts).astype(np.int64)
                file.seek(0)
                if json_offset <= MAX_MEMORY_BYTES:
                    return metadata, np.fromfile(file, dtype, num_ids), starts
                duplicate = os.fdopen(os.dup(file.fileno()), "rb", 0)
                return metadata, FileTokens(duplicate, dtype, num_ids, str(path)), starts
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
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


def _identity(file: File) -> tuple[str, int, int]:
    if (identity := file.identity) is None:
        raise _NoIdentityError
    return identity


def _settings(config: ReadConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in _IGNORED_SETTINGS}


def _digest(settings: Mapping[str, Any], items: Iterable[Any]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("ascii"))
    for item in items:
        digest.update(json.dumps(item).encode("ascii"))
    return digest.hexdigest()
