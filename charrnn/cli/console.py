"""Output: data to stdout, messages to stderr.

Only this module deals with terminals, colours, ``--quiet`` and progress bars. Data is written to stdout at once, in
UTF-8 under any locale. It contains escape sequences only if the user asks for colours and stdout is a terminal.
Errors while writing to stderr are ignored.
"""

import os
import select
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Never, TextIO

from charrnn.errors import CacheWarning, FileError

if TYPE_CHECKING:
    from tqdm import tqdm


class StdoutClosed(Exception):
    """The reader of stdout has closed the pipe, as ``head`` does. The program exits silently with code 0."""


def write_stdout(text: str | bytes) -> None:
    """Write data to stdout, without buffering.

    Raises:
        StdoutClosed: If the reader has closed the pipe.
        FileError: If stdout cannot be written, for example because the disk is full.
    """
    encoded = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")  # paths may be any bytes
    data = memoryview(encoded)
    try:
        sys.stdout.flush()
        while data:  # past Python's buffers, so that no data is lost at exit
            try:
                data = data[os.write(sys.stdout.fileno(), data) :]
            except BlockingIOError:  # a full pipe that another program made non-blocking
                select.select([], [sys.stdout.fileno()], [])
    except BrokenPipeError:
        raise StdoutClosed from None
    except OSError as error:
        reason = f"cannot be written ({(error.strerror or str(error)).lower()})"
        raise FileError("stdout", reason, "free some space or redirect stdout elsewhere") from None


def is_stdout(path: Path) -> bool:
    """Return whether a path is that of the file to which stdout is redirected."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except OSError:
        return False


def escape_control(text: str) -> str:
    """Return a text with its control characters, including newlines, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def print_error(message: str) -> None:
    """Print an error as one line on stderr, even with ``--quiet``."""
    _write_stderr(f"charrnn: {escape_control(message)}")


def discard_unflushed() -> None:
    """Discard the output that a stream cannot write.

    Otherwise Python tries to write it again at exit, fails, and changes the exit code to 120.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), stream.fileno())


def supports_color(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that shows colours."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def colorize(parts: Iterable[tuple[str, str]], terminal: TextIO) -> str:
    """Return texts, each with the escape codes that show it in its Rich style."""
    from rich.console import COLOR_SYSTEMS  # imported here because it would double the start-up time of a command
    from rich.console import Console as RichConsole
    from rich.style import Style

    system = COLOR_SYSTEMS.get(RichConsole(file=terminal, force_terminal=True).color_system or "")
    # not Rich's Text, which drops control characters and replaces tabs with spaces
    return "".join(Style.parse(style).render(text, color_system=system) for text, style in parts)


class Console:
    """Messages and progress bars on stderr.

    Args:
        quiet: Whether only errors are printed.

    Attributes:
        interactive: Whether stderr is a terminal that can show a progress bar.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        if quiet:
            warnings.simplefilter("ignore", CacheWarning)  # until the command ends, see `app.main`
        terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.interactive = terminal and not quiet
        self._color = self.interactive and not os.environ.get("NO_COLOR")

    def line(self, text: str, style: str = "") -> None:
        """Print one line with control characters escaped, in a Rich style if the terminal shows colours."""
        self.parts([(escape_control(text), style)])

    def parts(self, parts: Sequence[tuple[str, str]]) -> None:
        """Print one line of texts, each with its Rich style."""
        if self.quiet:
            return
        styled = self._color and any(style for _, style in parts)
        _write_stderr(colorize(parts, sys.stderr) if styled else "".join(text for text, _ in parts))

    def quote(self, text: str) -> None:
        """Print a sample of text with a margin on the left."""
        for line in text.split("\n"):
            self.line("  | " + line, style="dim")

    def end_line(self, data: str) -> None:
        """Start a new line if a terminal shows stdout and the data does not end with a newline.

        The newline is written to stderr, so that the data on stdout does not change.
        """
        if self.interactive and sys.stdout.isatty() and not data.endswith("\n"):
            _write_stderr("")

    @contextmanager
    def bar(
        self, *, total: float | None, unit: str = "", bar_format: str = "{l_bar}{bar}{r_bar}"
    ) -> "Iterator[tqdm[Never]]":
        """Show a progress bar until the block ends, if the terminal is interactive.

        The cursor stays at the left. At the right edge, the ``^C`` that a terminal echoes would break the line.
        """
        from tqdm import tqdm

        with tqdm(
            total=total, unit=unit, unit_scale=True, bar_format=bar_format + "\r", leave=False, dynamic_ncols=True,
            file=sys.stderr, disable=not self.interactive,
        ) as bar:  # fmt: skip
            yield bar


def _write_stderr(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        with _bar_cleared():
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
    except OSError:  # there is no other place to report it
        pass


@contextmanager
def _bar_cleared() -> Iterator[None]:
    """Hide the progress bar, if there is one, while a line is printed."""
    if "tqdm" not in sys.modules:
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        yield
