"""Reads bytes from files, directories and stdin, compressed or not."""

import bz2
import gzip
import importlib
import io
import lzma
import os
import re
import select
import shlex
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
from charrnn.io.atomic_io import resolve

STDIN = "-"
READ_SIZE = 1 << 20  # bytes per block
_SIGNATURES = (  # first bytes, pattern that confirms the format, format
    (b"\x1f\x8b\x08", rb"\x1f\x8b\x08", "gzip"), (b"\xfd7zXZ\x00", rb"\xfd7zXZ\x00", "xz"),
    (b"BZh", rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "bzip2"), (b"\x28\xb5\x2f\xfd", rb"\x28\xb5\x2f\xfd", "zstd"),
)  # fmt: skip
_MAX_SIGNATURE_BYTES = 10
_MAX_LOG = 28  # largest window of zstd data, as a power of two; zstd without --long needs at most 2**27
_MAX_DICTIONARY = 1 << _MAX_LOG  # bytes; xz -9 needs a quarter of it
_MIN_READ = 1 << 12  # smallest size of a read in bytes; some system files report no size


@dataclass(frozen=True, slots=True)
class File:
    """A file to read."""

    name: str  # its path, or ``-``
    in_directory: bool = False  # whether it was found in a directory; False if the user named it

    @property
    def identity(self) -> tuple[str, int, int] | None:
        """Path, size and modification time; None for anything but a regular file, such as a pipe."""
        try:
            status = os.stat(self.name)
        except OSError:
            return None
        if self.name == STDIN or not stat.S_ISREG(status.st_mode):
            return None
        return os.path.abspath(self.name), status.st_size, status.st_mtime_ns


class Readable(Protocol):
    """A source of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, and none at the end."""


def find_files(paths: Sequence[str], glob: str = GLOB) -> Iterator[File]:
    """Yield the files at these paths, in the order given.

    The files of a directory are sorted. Links to directories within it are not followed.

    Args:
        paths: Paths of files and directories; ``-`` is stdin.
        glob: Pattern of the files in a directory.

    Raises:
        CorpusError: If a directory contains no such file.
        SettingError: If the glob is not a valid pattern.
    """
    for path in paths:
        if path == STDIN or not os.path.isdir(path):  # Path("") would be the current directory
            yield File(path)
            continue
        try:
            names = sorted(str(file) for file in Path(path).glob(glob) if file.is_file())
        except (ValueError, NotImplementedError) as error:
            raise SettingError(
                "glob", f"invalid value {glob} ({error})", "give a pattern such as '**/*.py'"
            ) from None
        if not names:
            noun = ".txt file" if glob == GLOB else f"file that matches {glob}"
            raise CorpusError(path, f"is a directory with no {noun} in it", "name the files to read, or give --glob")
        yield from (File(name, in_directory=True) for name in names)


def default_name(paths: Sequence[str]) -> str:
    """Return the default name of a model that is trained on these files."""
    if paths[0] == STDIN:
        return "stdin"
    path = resolve(Path(paths[0]))
    if path.is_dir():
        return path.name
    return Path(path.stem).stem if path.suffix in (".gz", ".xz", ".bz2", ".zst") else path.stem


def read_blocks(file: File, on_bytes: Callable[[int], object] = lambda size: None) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks, decompressed if needed. The name of the file does not matter.

    All blocks but the last have `READ_SIZE` bytes. The last block is shorter and may be empty.

    Args:
        file: The file.
        on_bytes: Function to call with the number of bytes of each read from disk.

    Raises:
        CorpusError: If the file is missing, unreadable, or damaged compressed data.
    """
    with open_file(file, on_bytes) as stream:
        yield from _fixed_blocks(stream)


@contextmanager
def open_file(file: File, on_bytes: Callable[[int], object] = lambda size: None) -> Iterator[Readable]:
    """Open a file to read its bytes as they arrive, decompressed if needed. The name of the file does not matter.

    Args:
        file: The file.
        on_bytes: Function to call with the number of bytes of each read from disk.

    Raises:
        CorpusError: If the file is missing, unreadable, or damaged compressed data. Also raised within the context.
    """
    try:
        with _open_raw(file.name) as raw:
            source = _PeekedFile(raw, on_bytes)
            kind = next((kind for _, pattern, kind in _SIGNATURES if re.match(pattern, source.head)), "")
            try:
                yield _decompressed(kind, source)
            except _decompression_errors(kind) as error:
                raise (_too_large(file, kind) if _needs_too_much(error) else _damaged(file, kind, error)) from None
            except OSError as error:
                if error.errno is None:  # bz2 reports damaged data like this
                    raise _damaged(file, kind, error) from None
                raise
    except OSError as error:
        raise CorpusError(file.name or "''", (error.strerror or str(error)).lower(), "check the path") from None


def read_bytes(path: str, size: int) -> bytes:
    """Return the first bytes of a file, or of stdin (``-``), decompressed if needed.

    Args:
        path: Path of the file.
        size: Maximum number of bytes to return.

    Raises:
        CorpusError: If the file is missing, unreadable, or damaged compressed data.
    """
    blocks = []
    for block in read_blocks(File(path)):
        blocks.append(block[:size])
        size -= len(blocks[-1])
        if not size:
            break
    return b"".join(blocks)


class _PeekedFile:
    """A file with its first bytes as an attribute.

    Args:
        raw: The open file.
        on_bytes: Function to call with the number of bytes of each read.

    Attributes:
        head: The first bytes, enough to recognize a compressed file.
    """

    def __init__(self, raw: BinaryIO, on_bytes: Callable[[int], object]) -> None:
        self._raw, self._on_bytes, self._max_read = raw, on_bytes, READ_SIZE
        with suppress(OSError, AttributeError):  # a buffer of READ_SIZE is slow for many small files
            status = os.fstat(raw.fileno())
            self._max_read = max(_MIN_READ, status.st_size + 1) if stat.S_ISREG(status.st_mode) else READ_SIZE
        self.head = b""
        # Do not wait for more bytes of a pipe if those that arrived are no signature.
        while len(self.head) < _MAX_SIGNATURE_BYTES and _may_be_compressed(self.head):
            if not (data := self._read_raw(_MAX_SIGNATURE_BYTES - len(self.head))):
                break
            self.head += data
        self._unread = self.head

    def read(self, size: int, /) -> bytes:
        if self._unread:
            data, self._unread = self._unread[:size], self._unread[size:]
            return data
        return self._read_raw(size)

    def _read_raw(self, size: int) -> bytes:
        size = min(size, self._max_read)
        while (data := self._raw.read(size)) is None:  # no data yet in a pipe that another program made non-blocking
            select.select([self._raw], [], [])
        self._on_bytes(len(data))
        return data


def _fixed_blocks(stream: Readable) -> Iterator[bytes]:
    """Yield blocks of exactly `READ_SIZE` bytes, and a shorter one."""
    block = b""
    while data := stream.read(READ_SIZE - len(block)):
        block = block + data if block else data
        if len(block) == READ_SIZE:
            yield block
            block = b""
    yield block


def _may_be_compressed(head: bytes) -> bool:
    return any(head.startswith(start) or start.startswith(head) for start, _, _ in _SIGNATURES)


def _open_raw(path: str) -> AbstractContextManager[BinaryIO]:
    if path != STDIN:
        return open(path, "rb", buffering=0)
    if sys.stdin is None:
        raise CorpusError(STDIN, "stdin is closed", "pipe a text in or name a file")
    return nullcontext(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer))


def _decompressed(kind: str, source: Any) -> Readable:
    patterns = {kind: pattern for _, pattern, kind in _SIGNATURES}
    readers: dict[str, Callable[[], Readable]] = {
        "gzip": lambda: gzip.GzipFile(fileobj=source, mode="rb"),
        "xz": lambda: io.BufferedReader(_StreamReader(source, _new_xz_decompressor, patterns["xz"])),
        "bzip2": lambda: io.BufferedReader(_StreamReader(source, bz2.BZ2Decompressor, patterns["bzip2"])),
        "zstd": lambda: zstd().ZstdFile(source, options={zstd().DecompressionParameter.window_log_max: _MAX_LOG}),
    }
    reader: Readable = readers[kind]() if kind else source
    return reader


class _StreamReader(io.RawIOBase):
    """Decompresses a file of one or more streams, with or without zeros after each of them.

    Unlike `lzma.LZMAFile` and `bz2.BZ2File`, it does not ignore other bytes after a stream, which may be a damaged
    stream, and it can limit the memory.

    Args:
        source: The compressed bytes.
        new_decompressor: Returns a decompressor for the next stream.
        pattern: Pattern of the first bytes of a stream.
    """

    def __init__(self, source: Readable, new_decompressor: Callable[[], Any], pattern: bytes) -> None:
        self._source, self._new_decompressor, self._pattern = source, new_decompressor, pattern
        self._decompressor = new_decompressor()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read decompressed bytes into a buffer, and return their number, or 0 at the end.

        Raises:
            EOFError: If a stream is cut, or other bytes follow it.
        """
        while True:
            compressed = b""
            if self._decompressor.eof:
                if not (compressed := self._next_stream()):
                    return 0
                if not re.match(self._pattern, compressed):
                    raise EOFError("other bytes follow the end of a stream")
                self._decompressor = self._new_decompressor()
            elif self._decompressor.needs_input and not (compressed := self._source.read(READ_SIZE)):
                raise EOFError("compressed file ended before the end-of-stream marker was reached")
            if data := self._decompressor.decompress(compressed, len(buffer)):
                buffer[: len(data)] = data
                return len(data)

    def _next_stream(self) -> bytes:
        """Return the beginning of the next stream, after any zeros, or no bytes at the end."""
        start = self._decompressor.unused_data.lstrip(b"\0")
        while len(start) < _MAX_SIGNATURE_BYTES and (data := self._source.read(READ_SIZE)):
            start = (start + data).lstrip(b"\0")
        return bytes(start)


def _new_xz_decompressor() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_DICTIONARY + (1 << 20))  # the decoder itself needs some memory


def _needs_too_much(error: Exception) -> bool:
    """Return whether an error says that a dictionary or window is larger than allowed."""
    return any(words in str(error).lower() for words in ("memory usage limit", "too much memory"))


def _too_large(file: File, kind: str) -> CorpusError:
    reason = f"is {kind} data that needs a dictionary of more than {_MAX_DICTIONARY >> 20} MiB to decompress"
    command = {"xz": "xz -dc", "zstd": "zstd -dc --long=31"}[kind]
    name = "" if file.name == STDIN else f" {shlex.quote(file.name)}"
    return CorpusError(file.name, reason, f"decompress it first, and give - for stdin: {command}{name} | charrnn ...")


def _decompression_errors(kind: str) -> tuple[type[Exception], ...]:
    """Return the exceptions that damaged data raises."""
    zstd_errors = (zstd().ZstdError,) if kind == "zstd" else ()
    return EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, *zstd_errors


def zstd() -> ModuleType:
    """Return Python's zstd module, or its backport before Python 3.14."""
    return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def _damaged(file: File, kind: str, error: Exception) -> CorpusError:
    reason = f"is damaged {kind} data ({str(error).rstrip('.').lower()})"
    return CorpusError(file.name, reason, "get an intact copy of the file")
