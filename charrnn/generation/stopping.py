"""Stop conditions: number of characters, stop strings, number of lines, end of a document.

This module does not depend on the network.
"""

from typing import Literal

from charrnn.config import SampleConfig, Unit
from charrnn.data.vocabulary import BOUNDARY, to_symbols

StopReason = Literal["length", "stop", "lines", "end"]  # "end": the model generated a document boundary


class StopDetector:
    """Detects the end of one sample.

    Args:
        config: Length, stop strings and number of lines.
        keep_line_end: Whether the last of ``config.lines`` lines keeps its line feed.
        unit: Unit of the symbols that `feed` receives.

    Attributes:
        reason: Reason why the sample ended, or None before its end.
    """

    def __init__(self, config: SampleConfig, *, keep_line_end: bool, unit: Unit = "char") -> None:
        self._stops = [to_symbols(stop, unit) for stop in config.stop_strings]
        self._keep, self._keep_line_end = config.keep_stop, keep_line_end
        self._left = config.length or None  # characters that may follow; None is unlimited
        self._lines_left = config.lines or None
        self._held = ""  # text held back because it may be the beginning of a stop string
        self.reason: StopReason | None = None

    @property
    def left(self) -> int | None:
        """Number of characters that may follow, or None if there is no limit."""
        return 0 if self.reason else self._left

    def feed(self, text: str) -> str:
        """Add generated characters, and return those that now certainly belong to the sample."""
        if self.reason:
            return ""
        end = text.find(BOUNDARY)
        if end >= 0:
            text = text[:end]
        if self._left is not None:
            text = text[: self._left]
            self._left -= len(text)
        accepted = self._search(text) if self._stops or self._lines_left else text
        if self.reason is None and self._left == 0:
            self.reason = "length"
        elif self.reason is None and end >= 0:
            self.reason = "end"
        else:
            return accepted
        accepted, self._held = accepted + self._held, ""
        return accepted

    def _search(self, text: str) -> str:
        """Return the characters before a stop string or the last line ending. Hold back a partial stop string."""
        accepted = ""
        for character in text:
            self._held += character
            if matches := [stop for stop in self._stops if self._held.endswith(stop)]:
                self.reason = "stop"
                return accepted + (self._held if self._keep else self._held.removesuffix(max(matches, key=len)))
            if character == "\n" and self._lines_left:
                self._lines_left -= 1
                if not self._lines_left:
                    self.reason = "lines"
                    return accepted + (self._held if self._keep_line_end else self._held[:-1])
            split = len(self._held) - self._partial_match_size()
            accepted, self._held = accepted + self._held[:split], self._held[split:]
        return accepted

    def _partial_match_size(self) -> int:
        """Return the length of the longest suffix of the held text that is a proper prefix of a stop string."""
        max_size = max((len(stop) for stop in self._stops), default=1) - 1
        sizes = range(min(len(self._held), max_size), 0, -1)
        return next((size for size in sizes if any(s.startswith(self._held[-size:]) for s in self._stops)), 0)
