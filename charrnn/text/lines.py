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

from charrnn.config import ReadConfig
from charrnn.errors import CorpusError
from charrnn.text import sources
from charrnn.text.decoding import Decoder, Noticed

PIECE = 1 << 16  # bytes that are read at once
READ_AHEAD = 32  # such pieces
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # that of UTF-32-LE begins as the first


class Piece(NamedTuple):
    """A line, or as much of a very long one as is held at once."""

    data: bytes  # in UTF-8, or whatever it is; without its end
    last: bool = True  # with which the line ends
    closed: bool = True  # by a line feed, which the last line of a file need not have


class Lines:
    """The lines of a file.

    Args:
        path: of the file, or ``-``; compressed or not.
        longest: about how many bytes of a line come as one piece; None holds any line.
        encoding: of the text; None takes the bytes as they are, unless a mark says UTF-16 or 32.

    Attributes:
        name: what an error calls it.
        size: bytes of the file as it is on disk, if it is one.

    Raises:
        CorpusError: the file cannot be read.
    """

    def __init__(self, path: str, longest: int | None = None, encoding: str | None = None) -> None:
        self.name = "stdin" if path == sources.STDIN else path
        identity = sources.File(path).identity
        self.size = identity[1] if identity else None
        self._longest = longest
        self._blocks: queue.Queue[list[Piece] | Exception | None] = queue.Queue(READ_AHEAD)
        self._ready: deque[Piece] = deque()
        self._over = False
        self._config = ReadConfig(encoding=encoding, newlines="keep")
        blocks = self._read(path)
        if path != sources.STDIN:  # where a missing file is told at once; a pipe may be silent for long
            next(blocks)

        def read_ahead() -> None:
            try:
                for block in blocks:
                    self._blocks.put(block)
                self._blocks.put(None)
            except (CorpusError, MemoryError) as error:
                self._blocks.put(error)

        Thread(target=read_ahead, daemon=True).start()

    def take(self, *, wait: bool) -> Piece | None:
        """The next line; None if there is none, or, unless it is to wait, if there is none yet.

        Raises:
            CorpusError: the file cannot be read on, or is not in its encoding.
        """
        while not self._ready and not self._over:
            try:
                block = self._blocks.get(block=wait)
            except queue.Empty:
                return None
            self._over = block is None or isinstance(block, Exception)
            if isinstance(block, Exception):
                raise block
            self._ready.extend(block or ())
        return self._ready.popleft() if self._ready else None

    def batches(self, most: int) -> Iterator[list[Piece]]:
        """What is there, time and again: one piece or more, and about so many bytes at most."""
        while (piece := self.take(wait=True)) is not None:
            batch, size = [piece], len(piece.data)
            while size < most and (piece := self.take(wait=False)) is not None:
                batch.append(piece)
                size += len(piece.data) + 1
            yield batch

    def _read(self, path: str) -> Iterator[list[Piece]]:
        with sources.opened(sources.File(path)) as stream:
            yield []  # it can be read
            yield from self._split(self._decoded(stream))

    def _split(self, pieces: Iterator[bytes]) -> Iterator[list[Piece]]:
        held: list[bytes] = []  # of a line whose end has not come
        size, begun = 0, False  # of these, and whether others went before
        for data in pieces:
            *whole, rest = data.split(b"\n")
            block = [Piece(line) for line in whole]
            if block:
                block[0] = Piece(b"".join([*held, whole[0]]))
                held, size, begun = [], 0, False
            held.append(rest)
            size += len(rest)
            if self._longest is not None and size > self._longest:
                block.append(Piece(b"".join(held), last=False))
                held, size, begun = [], 0, True
            if block:
                yield block
        if size or begun:
            yield [Piece(b"".join(held), closed=False)]

    def _decoded(self, stream: sources.Readable) -> Iterator[bytes]:
        first = stream.read(PIECE)
        if self._config.encoding is None and not first.startswith(_WIDE):
            yield first.removeprefix(codecs.BOM_UTF8)
            while data := stream.read(PIECE):
                yield data
            return
        decoder, data = Decoder(self._config, self.name, Noticed()), first
        while data:
            following = stream.read(PIECE)
            yield decoder.feed(data, last=not following).encode("utf-8", "surrogatepass")
            data = following
