"""Call a function before every call with which Python code opens, changes or locks a file.

A test kills the process there (`forge.py`), or lets the call fail (`faults.py`). The functions are replaced for good,
so this is for a forked process. Libraries in C that make system calls themselves are not seen. Needs /proc.
"""

import builtins
import fcntl
import io
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Before = Callable[[str, str], object]  # called with the name of the call and the path
BY_PATH = ("open", "mkdir", "rmdir", "unlink", "remove", "replace", "rename", "link", "symlink", "mknod", "truncate",
           "chmod", "utime")  # fmt: skip
BY_DESCRIPTOR = ("fsync", "fdatasync", "ftruncate", "fchmod", "posix_fallocate")
LOCKS = ("flock", "lockf")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def intercept(root: Path, before: Before) -> None:
    """Call ``before`` whenever this process is about to open, change or lock a file below a directory.

    The name of a call is that of the function in `os`, or ``open-read`` for a file that is opened for reading. The
    path of a rename is the new one. In a write, half of the data is written first. A file is closed first, because
    the system closes it even if it reports an error.
    """
    prefix = os.path.realpath(root) + os.sep

    def watched(file: Any) -> str:
        """Return the path of a file, given by path or descriptor, or "" if it is not below the directory."""
        try:
            is_open = isinstance(file, int)
            path = os.readlink(f"/proc/self/fd/{file}") if is_open else os.path.abspath(os.fsdecode(file))
        except (OSError, TypeError):
            return ""
        return path if path.startswith(prefix) else ""

    def replaced(function: Any, name: str, position: int = 0) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("dir_fd") is None and (path := watched(args[min(position, len(args) - 1)])):
                before("open-read" if name == "open" and not args[1] & WRITE_FLAGS else name, path)
            return function(*args, **kwargs)

        return call

    for name in BY_PATH:
        position = 1 if name in ("replace", "rename", "link", "symlink") else 0
        setattr(os, name, replaced(getattr(os, name), name, position))
    for name in BY_DESCRIPTOR:
        setattr(os, name, replaced(getattr(os, name), name))
    for name in LOCKS:
        setattr(fcntl, name, replaced(getattr(fcntl, name), name))
    mmap.mmap = replaced(mmap.mmap, "mmap")  # type: ignore[misc]

    write, close, open_file = os.write, os.close, builtins.open

    def write_descriptor(descriptor: int, data: Any) -> int:
        if not (path := watched(descriptor)):
            return write(descriptor, data)
        view = memoryview(data).cast("B")
        half = write(descriptor, view[: len(view) // 2])
        before("write", path)
        return half + write(descriptor, view[half:])

    def close_descriptor(descriptor: int) -> None:
        path = watched(descriptor)
        close(descriptor)
        if path:
            before("close", path)

    class InterceptedFile(io.FileIO):
        """A file that is open for writing."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._path = watched(self.fileno())

        def write(self, data: Any, /) -> int:
            view = memoryview(data).cast("B")
            half = super().write(view[: len(view) // 2])
            before("write", self._path)
            return half + super().write(view[half:])

        def truncate(self, size: int | None = None, /) -> int:
            before("truncate", self._path)
            return super().truncate(size)

        def close(self) -> None:
            was_open = not self.closed
            super().close()
            if was_open:
                before("close", self._path)

    def open_intercepted(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        path = watched(file)
        if not path:
            return open_file(file, mode, buffering, encoding, errors, newline, closefd, opener)
        writes = bool(set(mode) & set("wax+"))
        if not isinstance(file, int) and opener is None:  # otherwise `os.open` opens it
            before("open" if writes else "open-read", path)
        if not writes:
            return open_file(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = InterceptedFile(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    os.write, os.close = write_descriptor, close_descriptor  # type: ignore[assignment]
    builtins.open = io.open = open_intercepted
