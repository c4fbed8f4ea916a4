"""Where a sample ends: after so many characters, at a string, at a line end.

Knows nothing about networks; it is fed with text as it is made and passes on what surely belongs to the sample.
"""

from typing import Literal

from charrnn.config import SampleConfig, Unit
from charrnn.data.vocabulary import BOUNDARY, to_symbols

StopReason = Literal["length", "stop", "lines", "end"]  # what ended a sample; an end is where the model ended it


class StopDetector:
    """The end of one sample.

    Args:
        config: length, stop strings and lines.
        keep_line_end: the last line keeps its line end.
        unit: what it is fed with the symbols of.

    Attributes:
        reason: what ended the sample; None while it goes on.
    """

    def __init__(self, config: SampleConfig, *, keep_line_end: bool, unit: Unit = "char") -> None:
        self._stops = [to_symbols(stop, unit) for stop in config.stop_strings]
        self._keep, self._keep_line_end = config.keep_stop, keep_line_end
        self._left = config.length or None  # characters that may still come
        self._lines_left = config.lines or None
        self._held = ""  # may yet turn out to be the beginning of a stop string
        self.reason: StopReason | None = None

    @property
    def left(self) -> int | None:
        """How many characters may still come; None if there is no limit."""
        return 0 if self.reason else self._left

    def feed(self, text: str) -> str:
        """Takes characters that follow those before, and gives back those that are now known to be written."""
        if self.reason:
            return ""
        end = text.find(BOUNDARY)
        if end >= 0:
            text = text[:end]
        if self._left is not None:
            text = text[: self._left]
            self._left -= len(text)
        passed = self._search(text) if self._stops or self._lines_left else text
        if self.reason is None and self._left == 0:
            self.reason = "length"
        elif self.reason is None and end >= 0:
            self.reason = "end"
        else:
            return passed
        passed, self._held = passed + self._held, ""
        return passed

    def _search(self, text: str) -> str:
        passed = ""
        for character in text:
            self._held += character
            if found := [stop for stop in self._stops if self._held.endswith(stop)]:
                self.reason = "stop"
                return passed + (self._held if self._keep else self._held.removesuffix(max(found, key=len)))
            if character == "\n" and self._lines_left:
                self._lines_left -= 1
                if not self._lines_left:
                    self.reason = "lines"
                    return passed + (self._held if self._keep_line_end else self._held[:-1])
            sure = len(self._held) - self._begun()
            passed, self._held = passed + self._held[:sure], self._held[sure:]
        return passed

    def _begun(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        most = max((len(stop) for stop in self._stops), default=1) - 1
        tails = range(min(len(self._held), most), 0, -1)
        return next((size for size in tails if any(s.startswith(self._held[-size:]) for s in self._stops)), 0)
