"""Statistics of a text."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.data import text_stats
from charrnn.data.text_stats import TextStats

LINES = st.lists(st.text("ab", max_size=4), max_size=40)


def collect(text: str, sizes: list[int]) -> TextStats:
    stats = TextStats()
    for size in sizes:
        stats.update(text[:size])
        text = text[size:]
    stats.update(text)
    stats.finish()
    return stats


@given(LINES, st.booleans(), st.lists(st.integers(0, 9), max_size=9))
def test_counts_do_not_depend_on_the_blocks(lines: list[str], ended: bool, sizes: list[int]) -> None:
    text = "\n".join(lines) + "\n" * ended
    expected = text.split("\n")
    if not expected[-1]:
        expected.pop()
    stats = collect(text, sizes)
    assert stats.lines == len(expected)
    assert stats.longest_line == max(map(len, expected), default=0)
    counts = Counter(line for line in expected if line)
    assert stats.repeated_lines == sum(counts.values()) - len(counts)
    assert stats.is_exact


def test_repeated_lines_are_estimated_if_there_are_very_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stats, "MAX_TRACKED_LINES", 500)
    text = "".join(f"{number}\n" for number in range(20_000)) * 2
    stats = collect(text, [])
    assert not stats.is_exact
    assert len(stats._counts) <= 500
    assert 12_000 < stats.repeated_lines < 28_000


def test_lines_longer_than_the_buffer_are_measured_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stats, "_MAX_PARTIAL", 10)
    line = "abcdefghij" * 20
    stats = collect(f"{line}\n{line}\n{line[:-1]}x\n", [7] * 60)
    assert (stats.lines, stats.longest_line) == (3, 200)


def test_the_sample_is_the_start_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stats, "SAMPLE_SIZE", 5)
    assert collect("abcdefgh", [3, 3]).sample == "abcde"
