"""The ids of a text, as many as there may be: in memory, or where that is too much in a file.

A file is read at the places that are asked for, and not mapped into memory: what a mapping has touched counts as the
process's own, and a mapped file that somebody cuts short ends the process. Knows nothing about what an id means.
"""

import errno
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import FileError

MAX_MEMORY_BYTES = 64 << 20  # bytes of ids; more go into a file
_COPY_BYTES = 1 << 22  # bytes of a file that are held at once where it is written anew
_MAX_MEMORY_SHARE = 0.5  # the share of the free memory that ids without a file may take
_UNLIMITED = 2**62  # bytes: no file at all


class TokenStore(Protocol):
    """Numbers that are looked up by their places."""

    def __len__(self) -> int:
        """How many there are."""

    def take(self, places: NDArray[np.integer], /) -> NDArray[np.integer]:
        """Those at these places, which must be there; of the same shape."""


class FileTokens:
    """TokenStore in a file.

    Args:
        file: open, without buffers.
        dtype: of an id.
        length: how many there are, from the beginning of the file.
        name: what an error calls it.
    """

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any], length: int, name: str) -> None:
        self._file, self.dtype, self._length, self.name = file, dtype, length, name
        self._status = _status(file)

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    def take(self, places: NDArray[np.integer], /) -> NDArray[np.integer]:
        """The ids at these places (T, B) or (N,); places that follow each other along the first axis cost one look.

        Raises:
            FileError: the file is not what it was.
        """
        flat = places.T.ravel()
        runs = np.flatnonzero(np.diff(flat) != 1) + 1
        taken = np.empty(flat.shape, dtype=self.dtype)
        size, whole = self.dtype.itemsize, _bytes(taken)
        begin = 0
        for end in [*runs.tolist(), len(flat)]:
            if end > begin:
                self._file.seek(int(flat[begin]) * size)
                if self._file.readinto(whole[begin * size : end * size]) != (end - begin) * size:  # type: ignore[attr-defined]
                    raise self._changed()
            begin = end
        return taken.reshape(places.T.shape).T  # (T, B)

    def check(self) -> None:
        """Makes sure that nobody wrote to the file.

        Raises:
            FileError: somebody did.
        """
        if _status(self._file) != self._status:
            raise self._changed()

    def _changed(self) -> FileError:
        reason = "was changed while it was in use"
        return FileError(self.name, reason, "delete it and go on with --resume: it is made again from the text")


class TokenWriter:
    """TokenStore on their way, in the order of the text, in the narrowest type that holds them.

    Args:
        folder: for a nameless file, where they are too many for memory; None takes the system's own.
        expected: how many bytes the text has, as far as is known.
        in_memory: bytes of ids up to which there is no file.

    Attributes:
        length: how many ids came so far.
        dtype: of each.
    """

    def __init__(self, folder: Path | None = None, expected: int = 0, in_memory: int = MAX_MEMORY_BYTES) -> None:
        self._folder, self._expected, self._in_memory = folder, expected, in_memory
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)
        self.length = 0
        self._parts: list[NDArray[Any]] = []  # those that are not in the file
        self._file: IO[bytes] | None = None

    def append(self, ids: NDArray[np.integer], vocab_size: int) -> None:
        """Takes more ids, all of them below ``vocab_size``.

        Raises:
            FileError: there is no room for them, neither on disk nor in memory.
        """
        dtype = np.min_scalar_type(max(0, vocab_size - 1))
        if dtype.itemsize > self.dtype.itemsize:
            self._widen(dtype)
        self._parts.append(ids.astype(self.dtype))
        self.length += len(ids)
        if self._in_memory == _UNLIMITED and len(ids) * self.dtype.itemsize > available_memory() // 2:
            raise self._no_room(MemoryError("memory is full"))
        if self._file is not None or self.length * self.dtype.itemsize > self._in_memory:
            self._spill()

    def finish(self) -> TokenStore:
        """All of them; those of a file that turned out small are in memory by now."""
        if self._file is None or self.length * self.dtype.itemsize <= MAX_MEMORY_BYTES:
            return self._collected()
        file, self._file = self._file, None
        return FileTokens(file, self.dtype, self.length, self._name)

    def discard(self) -> None:
        """Deletes what is unfinished."""
        if self._file is not None:
            self._file.close()
            self._file = None

    _name = "the temporary file"  # of the file, in an error

    def _open(self) -> IO[bytes]:
        """Creates the file."""
        return tempfile.TemporaryFile(buffering=0, dir=self._folder)

    def _collected(self) -> NDArray[Any]:
        if self._file is not None:
            self._file.seek(0)
            there = self.length - sum(map(len, self._parts))
            self._parts.insert(0, np.fromfile(self._file, self.dtype, there))
            self.discard()
        whole = self._parts[0] if len(self._parts) == 1 else np.concatenate([np.empty(0, self.dtype), *self._parts])
        self._parts = []
        return whole

    def _spill(self) -> None:
        """Moves what is in memory to the file, if there can be one."""
        if self._in_memory == _UNLIMITED:
            return
        try:
            if self._file is None:
                if self._folder is not None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                if shutil.disk_usage(self._where).free < self._expected * self.dtype.itemsize:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # better known before it is full
                self._file = self._open()
            for part in self._parts:
                self._write(_bytes(part))
            self._parts = []
        except OSError as error:
            needed = max(self._expected, self.length) * self.dtype.itemsize
            if needed > _MAX_MEMORY_SHARE * available_memory():
                raise self._no_room(error) from None
            self._parts = [self._collected()]
            self._in_memory = _UNLIMITED

    def _write(self, data: memoryview) -> None:
        file = self._file
        assert file is not None
        while data:
            data = data[file.write(data) :]

    @property
    def _where(self) -> Path:
        return self._folder or Path(tempfile.gettempdir())

    def _no_room(self, error: OSError | MemoryError) -> FileError:
        self.discard()
        needed = max(self._expected, self.length) * self.dtype.itemsize
        free = 0
        with suppress(OSError):
            free = shutil.disk_usage(self._where).free
        why = (getattr(error, "strerror", None) or str(error)).lower()
        sizes = f"{_gigabytes(free)} free here and {_gigabytes(available_memory())} of memory"
        reason = f"cannot keep the text's ids ({why}): they take about {_gigabytes(needed)}, and there are {sizes}"
        elsewhere = "TMPDIR" if self._folder is None else "--cache"
        return FileError(str(self._where), reason, f"make room, or name a folder that has it with {elsewhere}")

    def _widen(self, dtype: np.dtype[Any]) -> None:
        """Goes on with a wider type, in which all that is there is written anew."""
        narrow, self.dtype = self.dtype, dtype
        self._parts = [part.astype(dtype) for part in self._parts]
        file, there = self._file, self.length - sum(map(len, self._parts))
        if file is None:
            return
        step = _COPY_BYTES // dtype.itemsize
        try:
            for begin in reversed(range(0, there, step)):  # from its end, so that nothing is overwritten unread
                count = min(step, there - begin)
                file.seek(begin * narrow.itemsize)
                part = np.frombuffer(file.read(count * narrow.itemsize), dtype=narrow).astype(dtype)
                file.seek(begin * dtype.itemsize)
                self._write(_bytes(part))
            file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._no_room(error) from None


class CountingWriter(TokenWriter):
    """TokenStore that are only counted."""

    def append(self, ids: NDArray[np.integer], vocab_size: int) -> None:
        """Counts them."""
        self.length += len(ids)

    def finish(self) -> TokenStore:
        """None."""
        return np.empty(0, dtype=self.dtype)


def available_memory() -> int:
    """Bytes of memory that are free, or could be."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    if sys.platform != "win32":
        with suppress(OSError, ValueError):
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return 1 << 30


def _bytes(ids: NDArray[Any]) -> memoryview:
    return ids.data.cast("B")


def _status(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
