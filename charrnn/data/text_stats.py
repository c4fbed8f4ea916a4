"""What a text is made of, line by line, seen as it passes. Knows nothing about files and keeps little of the text."""

SAMPLE_SIZE = 4_000_000  # symbols at the beginning that are kept
MAX_TRACKED_LINES = 1 << 20  # different lines that are remembered; of more, a part that is as good as drawn at random
_MAX_PARTIAL = 1 << 20  # characters of an unfinished line


class TextStats:
    """Lines and a sample of a text.

    Attributes:
        lines: how many there are.
        longest: characters of the longest one.
        sample: the beginning of the text.
    """

    def __init__(self) -> None:
        self.lines, self.longest_line = 0, 0
        self.sample = ""
        self._held, self._held_length, self._held_hash = "", 0, 0  # of a line whose end has not come
        self._seen: dict[int, int] = {}  # how often a line of this hash came
        self._every = 1  # the share of hashes that count, inverted

    def update(self, symbols: str) -> None:
        """Takes more of the text."""
        if len(self.sample) < SAMPLE_SIZE:
            self.sample += symbols[: SAMPLE_SIZE - len(self.sample)]
        *whole, rest = symbols.split("\n")
        if whole:
            self._line(whole[0])
            for line in whole[1:]:
                self._line(line)
        self._held += rest
        if len(self._held) > _MAX_PARTIAL:
            self._held_hash, self._held_length = hash((self._held_hash, self._held)), self._length(self._held)
            self._held = ""

    def finish(self) -> None:
        """Says that the text is over."""
        if self._held or self._held_length:
            self._line("")

    @property
    def repeated_lines(self) -> int:
        """How many lines with something in them are the same as an earlier one; about, if there are very many."""
        return (sum(self._seen.values()) - len(self._seen)) * self._every

    @property
    def is_exact(self) -> bool:
        """Whether all lines were remembered."""
        return self._every == 1

    def _length(self, more: str) -> int:
        return self._held_length + len(more)

    def _line(self, end: str) -> None:
        line = self._held + end if self._held else end
        self.lines += 1
        self.longest_line = max(self.longest_line, self._length(line))
        code = hash((self._held_hash, line)) if self._held_length else hash(line)
        if (line or self._held_length) and code % self._every == 0:
            self._seen[code] = self._seen.get(code, 0) + 1
            if len(self._seen) > MAX_TRACKED_LINES:
                self._every *= 2
                self._seen = {code: count for code, count in self._seen.items() if code % self._every == 0}
        self._held, self._held_length, self._held_hash = "", 0, 0
