"""What a text is made of."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.data import text_stats
from charrnn.data.text_stats import TextStats

LINES = st.lists(st.text("ab", max_size=4), max_size=40)


def seen(text: str, sizes: list[int]) -> TextStats:
    made = TextStats()
    for size in sizes:
        made.update(text[:size])
        text = text[size:]
    made.update(text)
    made.finish()
    return made


@given(LINES, st.booleans(), st.lists(st.integers(0, 9), max_size=9))
def test_lines_are_counted_whatever_the_pieces(lines: list[str], ended: bool, sizes: list[int]) -> None:
    text = "\n".join(lines) + "\n" * ended
    expected = text.split("\n")
    if not expected[-1]:
        expected.pop()
    made = seen(text, sizes)
    assert made.lines == len(expected)
    assert made.longest_line == max(map(len, expected), default=0)
    counts = Counter(line for line in expected if line)
    assert made.repeated_lines == sum(counts.values()) - len(counts)
    assert made.is_exact


def test_of_very_many_lines_the_repeated_ones_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stats, "MAX_TRACKED_LINES", 500)
    text = "".join(f"{number}\n" for number in range(20_000)) * 2
    made = seen(text, [])
    assert not made.is_exact
    assert len(made._counts) <= 500
    assert 12_000 < made.repeated_lines < 28_000


def test_a_line_longer_than_what_is_held_has_its_length_and_its_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stats, "_MAX_PARTIAL", 10)
    line = "abcdefghij" * 20
    made = seen(f"{line}\n{line}\n{line[:-1]}x\n", [7] * 60)
    assert (made.lines, made.longest_line) == (3, 200)


def test_only_the_beginning_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stats, "SAMPLE_SIZE", 5)
    assert seen("abcdefgh", [3, 3]).sample == "abcde"
