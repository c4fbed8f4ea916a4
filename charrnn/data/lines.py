"""Lines of a file or a pipe, as they come.

A thread of its own reads ahead a little, so that nothing waits for a slow reader while there is something to do, and
whoever asks gets at once what is there. Knows nothing about what a line means.
"""

import codecs
import queue
from collections import deque
from collections.abc import Iterator
from threading import Thread
from typing import NamedTuple

from charrnn.data import sources
from charrnn.errors import CorpusError

READ_SIZE = 1 << 16  # bytes that are read at once
READ_AHEAD = 32  # such pieces
_BOMS = (  # that of UTF-32-LE begins as the one of UTF-16-LE
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_ESCAPE = "charrnn.escape"


class LineFragment(NamedTuple):
    """A line, or as much of a very long one as is held at once."""

    data: bytes  # in UTF-8, or whatever it is; without its end
    last: bool = True  # with which the line ends
    closed: bool = True  # by a line feed, which the last line of a file need not have


class Lines:
    """The lines of a file.

    Args:
        path: of the file, or ``-``; compressed or not.
        max_fragment: about how many bytes of a line come as one piece; None holds any line.
        encoding: of the text, which comes in UTF-8, and bytes that are not in it as they are; None is UTF-8, unless a
            mark says UTF-16 or 32.
        raw: take no notice of marks: all bytes come as they are.

    Attributes:
        name: what an error calls it.
        size: bytes of the file as it is on disk, if it is one.

    Raises:
        CorpusError: the file cannot be read.
    """

    def __init__(
        self, path: str, max_fragment: int | None = None, encoding: str | None = None, *, raw: bool = False
    ) -> None:
        self.name = "stdin" if path == sources.STDIN else path
        identity = sources.File(path).identity
        self.size = identity[1] if identity else None
        self._longest = max_fragment
        self._blocks: queue.Queue[list[LineFragment] | BaseException | None] = queue.Queue(READ_AHEAD)
        self._ready: deque[LineFragment] = deque()
        self._over = False
        self._encoding, self._raw = codecs.lookup(encoding or "utf-8").name, raw
        self._error: BaseException | None = None  # behind what is ready
        blocks = self._read(path)
        if path != sources.STDIN:  # where a missing file is told at once; a pipe may be silent for long
            next(blocks)

        def read_ahead() -> None:
            try:
                for block in blocks:
                    self._blocks.put(block)
                self._blocks.put(None)
            except BaseException as error:  # for whoever asks for lines
                self._blocks.put(error)

        Thread(target=read_ahead, daemon=True).start()

    def get(self, *, block: bool) -> LineFragment | None:
        """The next line; None if there is none, or, unless it is to block, if there is none yet.

        Raises:
            CorpusError: the file cannot be read on, or is not in its encoding.
        """
        while not self._ready and not self._over:
            try:
                item = self._blocks.get(block=block)
            except queue.Empty:
                return None
            if isinstance(item, BaseException):
                self._error = item
            self._over = item is None or self._error is not None
            self._ready.extend(item if isinstance(item, list) else ())
        if not self._ready and self._error is not None and block:  # what came before it is dealt with first
            raise self._error
        return self._ready.popleft() if self._ready else None

    def batches(self, most: int) -> Iterator[list[LineFragment]]:
        """What is there, time and again: one piece or more, and about so many bytes at most."""
        while (piece := self.get(block=True)) is not None:
            batch, size = [piece], len(piece.data)
            while size < most and (piece := self.get(block=False)) is not None:
                batch.append(piece)
                size += len(piece.data) + 1
            yield batch

    def _read(self, path: str) -> Iterator[list[LineFragment]]:
        with sources.open_file(sources.File(path)) as stream:
            yield []  # it can be read
            yield from self._split(self._decoded(stream))

    def _split(self, pieces: Iterator[bytes]) -> Iterator[list[LineFragment]]:
        held: list[bytes] = []  # of a line whose end has not come
        size, begun = 0, False  # of these, and whether others went before
        for data in pieces:
            *whole, rest = data.split(b"\n")
            block = [LineFragment(line) for line in whole]
            if block:
                block[0] = LineFragment(b"".join([*held, whole[0]]))
                held, size, begun = [], 0, False
            held.append(rest)
            size += len(rest)
            if self._longest is not None and size > self._longest:
                block.append(LineFragment(b"".join(held), last=False))
                held, size, begun = [], 0, True
            if block:
                yield block
        if size or begun:
            yield [LineFragment(b"".join(held), closed=False)]

    def _decoded(self, stream: sources.Readable) -> Iterator[bytes]:
        read = getattr(stream, "read1", stream.read)  # what is there, of a packed file, too
        data, encoding = read(READ_SIZE), self._encoding
        if encoding == "utf-8" and not self._raw:
            encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "utf-8")
            data = data.removeprefix(codecs.BOM_UTF8)
        if encoding == "utf-8":
            while data:
                yield data
                data = read(READ_SIZE)
            return
        decoder = codecs.getincrementaldecoder(encoding)(_ESCAPE)
        try:
            while data:
                yield decoder.decode(data).encode("utf-8", "surrogateescape")
                data = read(READ_SIZE)
            yield decoder.decode(b"", True).encode("utf-8", "surrogateescape")
        except UnicodeError as error:
            raise CorpusError(self.name, f"is not {encoding} ({error})", "give its own --encoding") from None


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Bytes that an encoding does not have as Python escapes them, or where it cannot as U+FFFD."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) if byte >= 128 else "\ufffd" for byte in wrong), error.end


codecs.register_error(_ESCAPE, _escaped)
