"""Reads the lines of a file or pipe as they arrive.

A thread reads ahead while lines are processed. The lines that have arrived are available without waiting for more.
"""

import codecs
import queue
from collections import deque
from collections.abc import Iterator
from threading import Thread
from typing import NamedTuple

from charrnn.data import sources
from charrnn.data.decoding import check_pending
from charrnn.errors import CorpusError

READ_SIZE = 1 << 16  # bytes per read
READ_AHEAD = 32  # reads that may wait in the queue
_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_ESCAPE = "charrnn.escape"


class LineFragment(NamedTuple):
    """A line, or a part of a very long line."""

    data: bytes  # the line in UTF-8 without the line feed; invalid bytes as in the file
    last: bool = True  # whether the line ends here
    closed: bool = True  # whether a line feed ends the line; the last line of a file may have none


class Lines:
    """The lines of a file.

    Args:
        path: Path of the file, which may be compressed; ``-`` is stdin.
        max_fragment: Approximate maximum size of a fragment in bytes; None does not split lines.
        encoding: Encoding of the file. None is UTF-8, or what the byte order mark says. Lines are converted to UTF-8.
            Bytes that are invalid in the encoding stay as they are.
        raw: Whether to return the bytes as they are. Otherwise byte order marks at the start of a line are removed.

    Attributes:
        name: Name of the file in error messages.
        size: Size of the file on disk in bytes; None for a pipe.

    Raises:
        CorpusError: If the file cannot be read.
    """

    def __init__(
        self, path: str, max_fragment: int | None = None, encoding: str | None = None, *, raw: bool = False
    ) -> None:
        self.name = "stdin" if path == sources.STDIN else path
        identity = sources.File(path).identity
        self.size = identity[1] if identity else None
        self._max_fragment = max_fragment
        self._queue: queue.Queue[list[LineFragment] | BaseException | None] = queue.Queue(READ_AHEAD)
        self._ready: deque[LineFragment] = deque()
        self._finished = False
        self._encoding, self._raw = codecs.lookup(encoding or "utf-8").name, raw
        self._error: BaseException | None = None  # raised after the lines that are ready
        blocks = self._read(path)
        if path != sources.STDIN:  # report a missing file now; a pipe may have no data for a long time
            next(blocks)

        def read_ahead() -> None:
            try:
                for block in blocks:
                    self._queue.put(block)
                self._queue.put(None)
            except BaseException as error:  # raised by `get` in the other thread
                self._queue.put(error)

        Thread(target=read_ahead, daemon=True).start()

    def get(self, *, block: bool) -> LineFragment | None:
        """Return the next fragment, or None at the end.

        Args:
            block: Whether to wait for data. Otherwise None is also returned if no fragment has arrived yet.

        Raises:
            CorpusError: If the file cannot be read or is not in its encoding.
        """
        while not self._ready and not self._finished:
            try:
                item = self._queue.get(block=block)
            except queue.Empty:
                return None
            if isinstance(item, BaseException):
                self._error = item
            self._finished = item is None or self._error is not None
            self._ready.extend(item if isinstance(item, list) else ())
        if not self._ready and self._error is not None and block:  # without `block`, the next call raises it
            raise self._error
        return self._ready.popleft() if self._ready else None

    def batches(self, max_size: int) -> Iterator[list[LineFragment]]:
        """Yield batches of the fragments that have arrived.

        Args:
            max_size: Approximate maximum size of a batch in bytes. A batch has at least one fragment.
        """
        while (fragment := self.get(block=True)) is not None:
            batch, size = [fragment], len(fragment.data)
            while size < max_size and (fragment := self.get(block=False)) is not None:
                batch.append(fragment)
                size += len(fragment.data) + 1
            yield batch

    def _read(self, path: str) -> Iterator[list[LineFragment]]:
        with sources.open_file(sources.File(path)) as stream:
            yield []  # the file is open
            yield from self._split(self._decode(stream))

    def _split(self, blocks: Iterator[bytes]) -> Iterator[list[LineFragment]]:
        pending: list[bytes] = []  # parts of an unfinished line
        size, split = 0, False  # size of `pending`, and whether earlier fragments of the line were returned
        for data in blocks:
            *complete, rest = data.split(b"\n")
            fragments = []
            if complete:
                first = b"".join([*pending, complete[0]])
                fragments = [LineFragment(first if split else self._start(first))]
                fragments += [LineFragment(self._start(line)) for line in complete[1:]]
                pending, size, split = [], 0, False
            pending.append(rest)
            size += len(rest)
            if self._max_fragment is not None and size > self._max_fragment:
                joined = b"".join(pending)
                fragments.append(LineFragment(joined if split else self._start(joined), last=False))
                pending, size, split = [], 0, True
            if fragments:
                yield fragments
        joined = b"".join(pending)
        if (last := joined if split else self._start(joined)) or split:
            yield [LineFragment(last, closed=False)]

    def _start(self, line: bytes) -> bytes:
        """Return the first fragment of a line without leading byte order marks, unless ``raw`` is set."""
        while not self._raw and line.startswith(codecs.BOM_UTF8):
            line = line.removeprefix(codecs.BOM_UTF8)
        return line

    def _decode(self, stream: sources.Readable) -> Iterator[bytes]:
        """Yield the bytes of the file in UTF-8."""
        read = getattr(stream, "read1", stream.read)  # read1 of a decompressor does not wait for a full block
        data, encoding = read(READ_SIZE), self._encoding
        if encoding == "utf-8" and not self._raw:
            encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "utf-8")
        if encoding == "utf-8":
            while data:
                yield data
                data = read(READ_SIZE)
            return
        decoder = codecs.getincrementaldecoder(encoding)(_ESCAPE)
        try:
            while data:
                yield decoder.decode(data).encode("utf-8", "surrogateescape")
                check_pending(decoder, self.name, encoding)
                data = read(READ_SIZE)
            yield decoder.decode(b"", True).encode("utf-8", "surrogateescape")
        except UnicodeError as error:
            raise CorpusError(self.name, f"is not {encoding} ({error})", "give the right --encoding") from None


def _escape_invalid(error: UnicodeError) -> tuple[str, int]:
    """Return invalid bytes escaped as by surrogateescape; ASCII bytes, which it cannot escape, become U+FFFD."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    invalid = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) if byte >= 128 else "\ufffd" for byte in invalid), error.end


codecs.register_error(_ESCAPE, _escape_invalid)
