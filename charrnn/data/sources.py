"""Where bytes come from: files, folders and stdin, compressed or not.

Knows nothing about what they mean; ``decoding.py`` makes text of them.
"""

import bz2
import gzip
import importlib
import lzma
import os
import re
import select
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Protocol

from charrnn.config import GLOB as GLOB
from charrnn.errors import CorpusError, SettingError

STDIN = "-"
READ_SIZE = 1 << 20  # bytes that are read at once
_MAGIC = (  # how a file of a kind begins, and by what it is known for sure
    (b"\x1f\x8b\x08", rb"\x1f\x8b\x08", "gzip"), (b"\xfd7zXZ\x00", rb"\xfd7zXZ\x00", "xz"),
    (b"BZh", rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "bzip2"), (b"\x28\xb5\x2f\xfd", rb"\x28\xb5\x2f\xfd", "zstd"),
)  # fmt: skip
_LONGEST_MARK = 10  # bytes
_MIN_READ = 1 << 12  # bytes asked for at once; some files of the system do not tell their size


@dataclass(frozen=True, slots=True)
class File:
    """A file to read."""

    name: str  # its path, or ``-``
    in_directory: bool = False  # in a folder, and not named by the user

    @property
    def identity(self) -> tuple[str, int, int] | None:
        """Path, size and time of the last change; None for what is not kept as a file, such as a pipe."""
        try:
            status = os.stat(self.name)
        except OSError:
            return None
        if self.name == STDIN or not stat.S_ISREG(status.st_mode):
            return None
        return os.path.abspath(self.name), status.st_size, status.st_mtime_ns


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most so many; none at the end."""


def find_files(paths: Sequence[str], glob: str = GLOB) -> Iterator[File]:
    """The files behind paths, in the order given; those of a folder sorted. Links to folders are not followed.

    Args:
        paths: files, folders, and ``-`` for stdin.
        glob: which files of a folder.

    Raises:
        CorpusError: a folder without such a file.
        SettingError: there is no such pattern.
    """
    for path in paths:
        if path == STDIN or not os.path.isdir(path):  # Path("") would be the current directory
            yield File(path)
            continue
        try:
            found = sorted(str(file) for file in Path(path).glob(glob) if file.is_file())
        except (ValueError, NotImplementedError) as error:
            raise SettingError("glob", f"cannot be {glob} ({error})", "give a pattern such as '**/*.py'") from None
        if not found:
            what = ".txt file" if glob == GLOB else f"file like {glob}"
            raise CorpusError(path, f"is a directory with no {what} in it", "name the files to read, or give --glob")
        yield from (File(name, in_directory=True) for name in found)


def default_name(paths: Sequence[str]) -> str:
    """What a model trained on these is called, unless told otherwise."""
    path = Path(paths[0]).resolve()
    if paths[0] == STDIN:
        return "stdin"
    if path.is_dir():
        return path.name
    return Path(path.stem).stem if path.suffix in (".gz", ".xz", ".bz2", ".zst") else path.stem


def read_blocks(file: File, advance: Callable[[int], object] = lambda size: None) -> Iterator[bytes]:
    """The bytes of a file, unpacked if they are compressed, whatever its name says.

    All pieces but the last are of `READ_SIZE` bytes; the last one is shorter, and may be empty.

    Args:
        file: which.
        advance: is told how many bytes were read of what is on disk.

    Raises:
        CorpusError: missing, unreadable, or damaged where it is compressed.
    """
    with open_file(file, advance) as stream:
        yield from _in_pieces(stream)


@contextmanager
def open_file(file: File, advance: Callable[[int], object] = lambda size: None) -> Iterator[Readable]:
    """A file to read bytes from as they come, unpacked if they are compressed, whatever its name says.

    Args:
        file: which.
        advance: is told how many bytes were read of what is on disk.

    Raises:
        CorpusError: missing, unreadable, or damaged where it is compressed; while it is read, too.
    """
    try:
        with _raw(file.name) as raw:
            packed = _PeekedFile(raw, advance)
            kind = next((kind for _, mark, kind in _MAGIC if re.match(mark, packed.head)), "")
            try:
                yield _unpacked(kind, packed)
            except _unpacking_errors(kind) as error:
                raise _damaged(file, kind, error) from None
            except OSError as error:
                if error.errno is None:  # as bz2 says it
                    raise _damaged(file, kind, error) from None
                raise
    except OSError as error:
        raise CorpusError(file.name or "''", (error.strerror or str(error)).lower(), "check the path") from None


def read_bytes(path: str) -> bytes:
    """All bytes of a file, or of stdin (``-``), unpacked if they are compressed.

    Raises:
        CorpusError: as `read_blocks`.
    """
    return b"".join(read_blocks(File(path)))


class _PeekedFile:
    """A file whose first bytes were looked at."""

    def __init__(self, raw: BinaryIO, advance: Callable[[int], object]) -> None:
        self._raw, self._advance = raw, advance
        with suppress(OSError, AttributeError):  # room for a whole piece is dear where files are small and many
            status = os.fstat(raw.fileno())
            self._most = max(_MIN_READ, status.st_size + 1) if stat.S_ISREG(status.st_mode) else READ_SIZE
        self.head = b""
        while len(self.head) < _LONGEST_MARK and _may_be_packed(self.head):  # a short line should not wait for a long
            if not (more := self._next(_LONGEST_MARK - len(self.head))):
                break
            self.head += more
        self._left = self.head

    def read(self, size: int, /) -> bytes:
        if self._left:
            begun, self._left = self._left[:size], self._left[size:]
            return begun
        return self._next(size)

    _most = READ_SIZE

    def _next(self, size: int) -> bytes:
        size = min(size, self._most)
        while (data := self._raw.read(size)) is None:  # a pipe that another program made non-blocking is empty
            select.select([self._raw], [], [])
        self._advance(len(data))
        return data


def _in_pieces(stream: Readable) -> Iterator[bytes]:
    """What is read, in whole pieces and the rest."""
    piece = b""
    while more := stream.read(READ_SIZE - len(piece)):
        piece = piece + more if piece else more
        if len(piece) == READ_SIZE:
            yield piece
            piece = b""
    yield piece


def _may_be_packed(head: bytes) -> bool:
    return any(head.startswith(begin) or begin.startswith(head) for begin, _, _ in _MAGIC)


def _raw(path: str) -> AbstractContextManager[BinaryIO]:
    if path != STDIN:
        return open(path, "rb", buffering=0)
    if sys.stdin is None:
        raise CorpusError(STDIN, "stdin is closed", "pipe a text in or name a file")
    return nullcontext(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer))


def _unpacked(kind: str, packed: Any) -> Readable:
    unpackers: dict[str, Callable[[], Readable]] = {
        "gzip": lambda: gzip.GzipFile(fileobj=packed, mode="rb"),
        "xz": lambda: lzma.LZMAFile(packed),  # noqa: SIM115  # as far as its file is
        "bzip2": lambda: bz2.BZ2File(packed),
        "zstd": lambda: zstd().ZstdFile(packed),
    }
    reader: Readable = unpackers[kind]() if kind else packed
    return reader


def _unpacking_errors(kind: str) -> tuple[type[Exception], ...]:
    """Return the exceptions that damaged data raises."""
    zstd_errors = (zstd().ZstdError,) if kind == "zstd" else ()
    return EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, *zstd_errors


def zstd() -> ModuleType:
    """Return Python's zstd module, or its backport before Python 3.14."""
    return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def _damaged(file: File, kind: str, error: Exception) -> CorpusError:
    reason = f"is damaged {kind} ({str(error).rstrip('.').lower()})"
    return CorpusError(file.name, reason, "get it again, or unpack what can be had")
