"""The two ways out of the program: data to stdout, everything for people to stderr.

The only module that knows about terminals, colour, quiet and progress bars. stdout gets bytes as they are made,
UTF-8 under any locale, and no escape sequence unless a person at a terminal asks for colours. What goes to stderr is
best effort and can fail without harm.
"""

import os
import select
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Never, TextIO

from charrnn.errors import FileError

if TYPE_CHECKING:
    from tqdm import tqdm


class StdoutClosed(Exception):
    """Whoever read our stdout has had enough, as ``head`` does; the program ends in silence and success."""


def write_stdout(text: str | bytes) -> None:
    """Writes data to stdout at once.

    Raises:
        StdoutClosed: nobody reads any more.
        FileError: its disk is full, or it cannot be written for another reason.
    """
    whole = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")  # a path may hold any bytes
    data = memoryview(whole)
    try:
        sys.stdout.flush()
        while data:  # past Python's buffers: nothing is left for exit to lose
            try:
                data = data[os.write(sys.stdout.fileno(), data) :]
            except BlockingIOError:  # a pipe that another program made non-blocking is full
                select.select([], [sys.stdout.fileno()], [])
    except BrokenPipeError:
        raise StdoutClosed from None
    except OSError as error:
        reason = f"cannot be written ({(error.strerror or str(error)).lower()})"
        raise FileError("stdout", reason, "make room or redirect it elsewhere") from None


def escape_control(text: str) -> str:
    """One line without control characters, whatever a path or a model put in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def print_error(message: str) -> None:
    """One line on stderr that even ``--quiet`` lets through: an error."""
    _write_stderr(f"charrnn: {escape_control(message)}")


def discard_unflushed() -> None:
    """Sends nowhere what a stream cannot get rid of, or Python would try again at exit and make the exit code 120."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def supports_color(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def colorize(parts: Iterable[tuple[str, str]], terminal: TextIO) -> str:
    """Texts with the codes by which a terminal shows each in its Rich style."""
    from rich.console import COLOR_SYSTEMS  # half of the start-up time of a silent command
    from rich.console import Console as RichConsole
    from rich.style import Style

    system = COLOR_SYSTEMS.get(RichConsole(file=terminal, force_terminal=True).color_system or "")
    # not by Rich's Text, which leaves out control characters and makes spaces of tabs
    return "".join(Style.parse(style).render(text, color_system=system) for text, style in parts)


class Console:
    """What a person sees.

    Args:
        quiet: show nothing but errors.

    Attributes:
        interactive: whether stderr is a terminal that can animate a bar.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.interactive = terminal and not quiet
        self._color = self.interactive and not os.environ.get("NO_COLOR")

    def line(self, text: str, style: str = "") -> None:
        """One line for people, clear of control characters, in a Rich style where colours are wanted."""
        self.parts([(escape_control(text), style)])

    def parts(self, parts: Sequence[tuple[str, str]]) -> None:
        """One line made of texts with a Rich style each."""
        if self.quiet:
            return
        colour = self._color and any(style for _, style in parts)
        _write_stderr(colorize(parts, sys.stderr) if colour else "".join(text for text, _ in parts))

    def quote(self, text: str) -> None:
        """A sample of text in a margin."""
        for line in text.split("\n"):
            self.line("  | " + line, style="dim")

    def end_line(self, data: str) -> None:
        """Brings a terminal that shows our stdout to a fresh line, by way of stderr: the data stays as it is."""
        if self.interactive and sys.stdout.isatty() and not data.endswith("\n"):
            _write_stderr("")

    @contextmanager
    def bar(
        self, *, total: float | None, unit: str = "", layout: str = "{l_bar}{bar}{r_bar}"
    ) -> "Iterator[tqdm[Never]]":
        """A progress bar that is gone when done, and that is only there on a interactive terminal.

        The cursor waits at its left: at the right edge, the ``^C`` that a terminal writes would break the line.
        """
        from tqdm import tqdm

        with tqdm(
            total=total, unit=unit, unit_scale=True, bar_format=layout + "\r", leave=False, dynamic_ncols=True,
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
    except OSError:  # nobody to tell
        pass


@contextmanager
def _bar_cleared() -> Iterator[None]:
    """Keeps a line and the bar, if there is one, from running into each other."""
    if "tqdm" not in sys.modules:
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        yield
