"""Prompts from a file or from stdin, one in a line, taken as they come."""

import codecs
import os
import queue
import select
import sys
from collections.abc import Iterator
from threading import Thread

from charrnn.cli.console import Console
from charrnn.errors import CharrnnError, CorpusError
from charrnn.sampling.writer import Request
from charrnn.text import sources
from charrnn.text.vocabulary import Vocabulary, describe_all

READ_AHEAD = 1024  # lines
PIECE = 1 << 16  # bytes


class PromptLines:
    """Requests for each line of a file; see `charrnn.sampling.writer.Requests`.

    A thread of its own reads ahead a little, so that nothing waits for a slow writer while there is something to do.

    Args:
        path: of the file, or ``-``.
        vocabulary: what the model knows.
        skip: leave out characters that it doesn't know, instead of failing.
        count: how many samples of each prompt.
        console: who is told what was left out.

    Raises:
        CorpusError: the file cannot be read.
    """

    def __init__(self, path: str, vocabulary: Vocabulary, *, skip: bool, count: int, console: Console) -> None:
        self._name = "stdin" if path == sources.STDIN else path
        self._vocabulary, self._skip, self._count, self._console = vocabulary, skip, count, console
        self._line = self._number = 0  # of lines taken, and of samples asked for
        self._prompt: tuple[str, str, CharrnnError | None] = "", "", None
        self._over = False
        self._lines: queue.Queue[bytes | OSError | MemoryError | None] = queue.Queue(READ_AHEAD)
        Thread(target=self._read, args=(_open(path),), daemon=True).start()

    def take(self, *, wait: bool) -> Request | None:
        """The next one; None if there is none, or, unless it is to wait, if there is none yet."""
        if self._number % self._count == 0:
            if self._over:
                return None
            try:
                line = self._lines.get(block=wait)
            except queue.Empty:
                return None
            if isinstance(line, OSError):
                raise CorpusError(self._name, (line.strerror or str(line)).lower(), "check the path")
            if isinstance(line, MemoryError):  # a line without an end
                raise line
            if line is None:
                self._over = True
                return None
            self._line += 1
            self._prompt = self._parsed(line.removeprefix(codecs.BOM_UTF8) if self._line == 1 else line)
        prompt, name, error = self._prompt
        self._number += 1
        return Request(self._number - 1, prompt, name, error)

    def _parsed(self, line: bytes) -> tuple[str, str, CharrnnError | None]:
        name = f"{self._name}, line {self._line}"
        try:
            text = line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"is not UTF-8: byte 0x{line[error.start]:02x} at offset {error.start}"
            return "", name, CorpusError(name, reason, "it was left out")
        if self._skip:
            text, dropped = self._vocabulary.split_unknown(text)
            if dropped:
                told = describe_all(dropped)
                self._console.line(f"charrnn: {name}: left out what the model never saw: {told}")
        return text, name, None

    def _read(self, file: int) -> None:
        try:
            for line in _split(file):
                self._lines.put(line)
            self._lines.put(None)
        except (OSError, MemoryError) as error:
            self._lines.put(error)


def _split(file: int) -> Iterator[bytes]:
    """The lines of an open file as soon as they are there; past Python's buffers, whose locks outlive a thread."""
    pieces: list[bytes] = []
    while piece := _read(file):
        *whole, rest = piece.split(b"\n")
        if whole:
            yield b"".join([*pieces, whole[0]])
            yield from whole[1:]
            pieces = []
        pieces.append(rest)
    if any(pieces):
        yield b"".join(pieces)


def _read(file: int) -> bytes:
    while True:
        try:
            return os.read(file, PIECE)
        except BlockingIOError:  # a pipe that another program made non-blocking is empty
            select.select([file], [], [])


def _open(path: str) -> int:
    try:
        if path != sources.STDIN:
            return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        if sys.stdin is None:
            raise CorpusError(path, "stdin is closed", "pipe prompts in or name a file")
        return sys.stdin.fileno()
    except OSError as error:
        raise CorpusError(path or "''", (error.strerror or str(error)).lower(), "check the path") from None
