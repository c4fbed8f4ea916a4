"""The ids of large texts on disk, so that they are read again without the text: a file for each text.

    ids | starts of documents, 8 bytes each | facts as JSON | 8 bytes: how long the JSON is | 8 bytes: `_MAGIC`

It is written from its beginning on, while nobody knows yet what will be in it, which is why the facts come last. What
is in it is told by a signature: the names, sizes and times of change of the files that were read, and how. Whether it
still is that is told by its own time of change, which the facts say, too.
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
_IGNORED_SETTINGS = ("min_count",)  # settings that matter only later

CachedTokens = tuple[Mapping[str, Any], TokenStore, NDArray[np.int64]]  # facts, ids, starts


class CacheWriter(TokenWriter):
    """TokenStore on their way into the cache, where they get a file once they are too many for memory.

    Args:
        path: of the file; None where what is in it could not be found again.
        folder: for the file, with a name or without.
        expected: how many bytes the text has, as far as is known.
        in_memory: bytes of ids up to which there is no file.
    """

    def __init__(self, path: Path | None, folder: Path, expected: int, in_memory: int) -> None:
        super().__init__(folder, expected, in_memory)
        self._path = path
        self._lock: Lock | None = None
        self._writer: AtomicWriter | None = None

    def commit(self, facts: Mapping[str, Any], starts: NDArray[np.int64]) -> TokenStore:
        """All of them, with a file kept where there is one, and what is known of them in it."""
        if self._writer is None:
            return self.finish()
        written = int(time.time() - 2) // 2 * 2  # before any later change, on any file system
        contents = {
            **facts, "format": FORMAT, "dtype": self.dtype.name, "num_ids": self.length, "num_starts": len(starts),
            "mtime": written,
        }  # fmt: skip
        data = json.dumps(contents).encode("ascii")
        try:
            self._writer.write(starts.astype("<i8").tobytes() + data + len(data).to_bytes(8, "little") + _MAGIC)
            self._file = self._writer.commit()
            os.utime(self._writer.path, (written, written))
        except OSError as error:
            raise self._no_room(error) from None
        self._name, self._writer = str(self._writer.path), None
        self._release()
        return self.finish()

    def discard(self) -> None:
        """Deletes what is unfinished."""
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
        except CharrnnError:  # somebody else is writing it, so this one is for ourselves
            return super()._open()
        remove_leftovers(self._path)
        self._writer = AtomicWriter(self._path)
        return self._writer.file

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class TokenCache:
    """Where the ids of texts are kept.

    Args:
        folder: made when there is something to keep.
        always: whether somebody always for it, so that small texts are kept, too.
    """

    def __init__(self, folder: Path, *, always: bool = False) -> None:
        self._folder, self._in_memory = folder, 0 if always else MAX_MEMORY_BYTES
        self._writing: CacheWriter | None = None

    def find(self, path: Path, signature: str) -> CachedTokens | None:
        """What is kept in a file, if it is sound and what the signature says."""
        try:
            with open(path, "rb", buffering=0) as file:
                size, written = os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_mtime
                file.seek(-16, os.SEEK_END)
                tail = file.read(16)
                length = int.from_bytes(tail[:8], "little")
                if tail[8:] != _MAGIC or length > size:
                    return None
                begin = file.seek(-16 - length, os.SEEK_END)
                facts = json.loads(file.read(length))
                dtype, count, starts = np.dtype(facts["dtype"]), int(facts["num_ids"]), int(facts["num_starts"])
                sound = (facts["format"], facts["signature"], facts["mtime"]) == (FORMAT, signature, written)
                if not sound or count * dtype.itemsize + 8 * starts != begin:
                    return None
                file.seek(count * dtype.itemsize)
                places = np.fromfile(file, "<i8", starts).astype(np.int64)
                file.seek(0)
                if begin <= MAX_MEMORY_BYTES:
                    return facts, np.fromfile(file, dtype, count), places
                return facts, FileTokens(os.fdopen(os.dup(file.fileno()), "rb", 0), dtype, count, str(path)), places
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def path(self, name: str, files: Iterable[File], config: ReadConfig) -> Path:
        """Where the ids of a text are kept: a newer text in the same files takes the place of the older."""
        names = (os.path.abspath(file.name) for file in files)
        return self._folder / f"{name}-{_digest(_settings(config), names)[:12]}.ids"

    def open_writer(self, path: Path | None, expected: int) -> CacheWriter:
        """TokenStore to be kept in a file; in one without a name, if it has no path."""
        self._writing = CacheWriter(path, self._folder, expected, self._in_memory)
        return self._writing

    def discard(self) -> None:
        """Deletes what is unfinished."""
        if self._writing is not None:
            self._writing.discard()


def signature(files: Sequence[File], config: ReadConfig) -> str:
    """What tells a text in these files from every other; nothing where a file is none, such as a pipe."""
    try:
        return _digest(_settings(config), (_known(file.identity) for file in files))
    except _Unknown:
        return ""


class _Unknown(Exception):
    """A file without an identity."""


def _known(identity: tuple[str, int, int] | None) -> tuple[str, int, int]:
    if identity is None:
        raise _Unknown
    return identity


def _settings(config: ReadConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in _IGNORED_SETTINGS}


def _digest(settings: Mapping[str, Any], contents: Iterable[Any]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("ascii"))
    for one in contents:
        digest.update(json.dumps(one).encode("ascii"))
    return digest.hexdigest()
