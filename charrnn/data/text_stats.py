"""Counts the lines of a text that arrives in pieces, and keeps a sample."""

SAMPLE_SIZE = 4_000_000  # symbols of the sample
MAX_TRACKED_LINES = 1 << 20  # distinct lines that are counted; if there are more, a pseudorandom subset
_MAX_PARTIAL = 1 << 20  # maximum number of characters of an unfinished line that are kept


class TextStats:
    """Statistics of the lines of a text.

    Attributes:
        lines: Number of lines.
        longest_line: Length of the longest line in characters.
        sample: The beginning of the text.
    """

    def __init__(self) -> None:
        self.lines, self.longest_line = 0, 0
        self.sample = ""
        self._partial = ""  # the end of an unfinished line
        self._partial_length, self._partial_hash = 0, 0  # of the parts of this line that were not kept
        self._counts: dict[int, int] = {}  # occurrences of lines by their hash
        self._stride = 1  # only hashes that are multiples of it are counted

    def update(self, symbols: str) -> None:
        """Add the next piece of the text."""
        if len(self.sample) < SAMPLE_SIZE:
            self.sample += symbols[: SAMPLE_SIZE - len(self.sample)]
        *complete, rest = symbols.split("\n")
        if complete:
            self._add_line(complete[0])
            for line in complete[1:]:
                self._add_line(line)
        self._partial += rest
        if len(self._partial) > _MAX_PARTIAL:
            self._partial_hash = hash((self._partial_hash, self._partial))
            self._partial_length = self._length(self._partial)
            self._partial = ""

    def finish(self) -> None:
        """Count the last line, which may have no line ending."""
        if self._partial or self._partial_length:
            self._add_line("")

    @property
    def repeated_lines(self) -> int:
        """Number of non-empty lines that occurred before; an estimate if `is_exact` is False."""
        return (sum(self._counts.values()) - len(self._counts)) * self._stride

    @property
    def is_exact(self) -> bool:
        """Whether all lines were counted."""
        return self._stride == 1

    def _length(self, rest: str) -> int:
        return self._partial_length + len(rest)

    def _add_line(self, end: str) -> None:
        line = self._partial + end if self._partial else end
        self.lines += 1
        self.longest_line = max(self.longest_line, self._length(line))
        line_hash = hash((self._partial_hash, line)) if self._partial_length else hash(line)
        if (line or self._partial_length) and line_hash % self._stride == 0:
            self._counts[line_hash] = self._counts.get(line_hash, 0) + 1
            if len(self._counts) > MAX_TRACKED_LINES:
                self._stride *= 2
                self._counts = {key: count for key, count in self._counts.items() if key % self._stride == 0}
        self._partial, self._partial_length, self._partial_hash = "", 0, 0
