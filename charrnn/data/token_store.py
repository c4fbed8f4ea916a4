"""Stores the ids of a text in memory, or in a file if they take too much memory.

The file is read, not mapped into memory. The pages of a mapping would count as memory of the process, and the process
would crash if another program truncated the file.
"""

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.errors import FileError
from charrnn.io.memory import available_memory
from charrnn.units import format_bytes

MAX_MEMORY_BYTES = 64 << 20  # ids that take more bytes are written to a file
_COPY_BYTES = 1 << 22  # bytes that are copied at once when the ids in a file are widened
_MAX_MEMORY_SHARE = 0.5  # largest share of the free memory for ids if the disk is full
_UNLIMITED = 2**62  # bytes; ids are never written to a file


class TokenStore(Protocol):
    """Ids that are looked up by index. A NumPy array is one."""

    def __len__(self) -> int:
        """Return the number of ids."""

    def take(self, indices: NDArray[np.integer], /) -> NDArray[np.integer]:
        """Return the ids at valid indices, in the same shape."""


class FileTokens:
    """Ids in a file.

    Args:
        file: An open, unbuffered file that begins with the ids.
        dtype: Type of an id.
        length: Number of ids.
        name: Name of the file in error messages.
        largest: Largest valid id.
    """

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any], length: int, name: str, largest: int) -> None:
        self._file, self.dtype, self._length, self.name = file, dtype, length, name
        self._largest = largest
        self._status = _status(file)

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    def take(self, indices: NDArray[np.integer], /) -> NDArray[np.integer]:
        """Return the ids at these indices, (T, B) or (N,). Consecutive indices along the first axis take one read.

        Raises:
            FileError: If the file was truncated, or contains invalid ids.
        """
        flat = indices.T.ravel()
        breaks = np.flatnonzero(np.diff(flat) != 1) + 1
        ids = np.empty(flat.shape, dtype=self.dtype)
        size, buffer = self.dtype.itemsize, _bytes(ids)
        start = 0
        for end in [*breaks.tolist(), len(flat)]:
            if end > start:
                self._file.seek(int(flat[start]) * size)
                if self._file.readinto(buffer[start * size : end * size]) != (end - start) * size:  # type: ignore[attr-defined]
                    raise self._changed()
            start = end
        if ids.max(initial=0) > self._largest:
            raise self._changed()
        return ids.reshape(indices.T.shape).T  # (T, B)

    def check(self) -> None:
        """Check that the file was not changed.

        Raises:
            FileError: If the size or the modification time differs.
        """
        if _status(self._file) != self._status:
            raise self._changed()

    def _changed(self) -> FileError:
        reason = "was changed while it was in use"
        return FileError(self.name, reason, "delete it and continue with --resume, which creates it again")


class TokenWriter:
    """Writer of the ids of a text, in the smallest integer type that fits.

    Args:
        directory: Directory of the temporary file for many ids; None is the system's temporary directory.
        expected: Expected size of the text in bytes, or 0.
        in_memory: Maximum size of ids in memory, in bytes.

    Attributes:
        length: Number of ids so far.
        dtype: Type of an id.
    """

    def __init__(self, directory: Path | None = None, expected: int = 0, in_memory: int = MAX_MEMORY_BYTES) -> None:
        self._directory, self._expected, self._in_memory = directory, expected, in_memory
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)
        self.length = 0
        self._largest = 0  # largest id that may occur
        self._parts: list[NDArray[Any]] = []  # the ids that are not in the file
        self._file: IO[bytes] | None = None

    def append(self, ids: NDArray[np.integer], vocab_size: int) -> None:
        """Add ids below ``vocab_size``.

        Raises:
            FileError: If neither the disk nor the memory has room for them.
        """
        dtype = np.min_scalar_type(max(0, vocab_size - 1))
        if dtype.itemsize > self.dtype.itemsize:
            self._widen(dtype)
        self._largest = max(self._largest, vocab_size - 1)
        self._parts.append(ids.astype(self.dtype))
        self.length += len(ids)
        if self._in_memory == _UNLIMITED and len(ids) * self.dtype.itemsize > available_memory() // 2:
            raise self._no_room(MemoryError("memory is full"))
        if self._file is not None or self.length * self.dtype.itemsize > self._in_memory:
            self._spill()

    def finish(self) -> TokenStore:
        """Return all ids, in memory if they fit into `MAX_MEMORY_BYTES`."""
        if self._file is None or self.length * self.dtype.itemsize <= MAX_MEMORY_BYTES:
            return self._collect()
        file, self._file = self._file, None
        return FileTokens(file, self.dtype, self.length, self._name, self._largest)

    def discard(self) -> None:
        """Delete the unfinished file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    _name = "the temporary file"  # name of the file in error messages

    def _open(self) -> IO[bytes]:
        return tempfile.TemporaryFile(buffering=0, dir=self._directory)

    def _report(self, problem: str) -> None:
        """Report that the ids stay in memory. A temporary file is not missed."""

    def _collect(self) -> NDArray[Any]:
        """Return all ids as one array."""
        if self._file is not None:
            self._file.seek(0)
            num_in_file = self.length - sum(map(len, self._parts))
            self._parts.insert(0, np.fromfile(self._file, self.dtype, num_in_file))
            self.discard()
        ids = self._parts[0] if len(self._parts) == 1 else np.concatenate([np.empty(0, self.dtype), *self._parts])
        self._parts = []
        return ids

    def _spill(self) -> None:
        """Move the ids from memory to the file. If the disk is full, keep them in memory if they fit."""
        if self._in_memory == _UNLIMITED:
            return
        try:
            if self._file is None:
                if self._directory is not None:
                    self._directory.mkdir(parents=True, exist_ok=True)
                if shutil.disk_usage(self._target_directory).free < self._expected * self.dtype.itemsize:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # before the disk is full
                self._file = self._open()
            for part in self._parts:
                self._write(_bytes(part))
            self._parts = []
        except OSError as error:
            needed = max(self._expected, self.length) * self.dtype.itemsize
            if needed > _MAX_MEMORY_SHARE * available_memory():
                raise self._no_room(error) from None
            self._parts = [self._collect()]
            self._in_memory = _UNLIMITED
            self._report(f"cannot be written ({(error.strerror or str(error)).lower()})")

    def _write(self, data: memoryview) -> None:
        file = self._file
        assert file is not None
        while data:
            data = data[file.write(data) :]

    @property
    def _target_directory(self) -> Path:
        return self._directory or Path(tempfile.gettempdir())

    def _no_room(self, error: OSError | MemoryError) -> FileError:
        """Discard the file, and return the error for ids that fit neither on the disk nor in memory."""
        self.discard()
        needed = max(self._expected, self.length) * self.dtype.itemsize
        free_disk = 0
        with suppress(OSError):
            free_disk = shutil.disk_usage(self._target_directory).free
        cause = (getattr(error, "strerror", None) or str(error)).lower()
        free = f"{format_bytes(free_disk)} on disk and {format_bytes(available_memory())} in memory are free"
        size = format_bytes(needed)
        reason = f"cannot store the ids of the text ({cause}): they take about {size}, and only {free}"
        option = "TMPDIR" if self._directory is None else "--cache"
        advice = f"free some disk space, or name another directory with {option}"
        return FileError(str(self._target_directory), reason, advice)

    def _widen(self, dtype: np.dtype[Any]) -> None:
        """Convert all ids to a wider type."""
        narrow, self.dtype = self.dtype, dtype
        self._parts = [part.astype(dtype) for part in self._parts]
        file, num_in_file = self._file, self.length - sum(map(len, self._parts))
        if file is None:
            return
        step = _COPY_BYTES // dtype.itemsize
        try:
            for start in reversed(range(0, num_in_file, step)):  # from the end, so no unread ids are overwritten
                count = min(step, num_in_file - start)
                file.seek(start * narrow.itemsize)
                part = np.frombuffer(file.read(count * narrow.itemsize), dtype=narrow).astype(dtype)
                file.seek(start * dtype.itemsize)
                self._write(_bytes(part))
            file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._no_room(error) from None


class CountingWriter(TokenWriter):
    """Writer that counts ids and does not store them."""

    def append(self, ids: NDArray[np.integer], vocab_size: int) -> None:
        """Count ids."""
        self.length += len(ids)

    def finish(self) -> TokenStore:
        """Return an empty array."""
        return np.empty(0, dtype=self.dtype)


def _bytes(ids: NDArray[Any]) -> memoryview:
    return ids.data.cast("B")


def _status(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
