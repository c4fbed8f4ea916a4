"""Where a sample ends."""

import itertools
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from charrnn.config import SampleConfig
from charrnn.data.vocabulary import BOUNDARY
from charrnn.generation.stopping import StopDetector

texts = st.text("ab\n", max_size=30)
stop_strings = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3)


def fed(
    text: str, cuts: list[int], *, keep_line_end: bool = True, **settings: Any
) -> tuple[str, str | None, list[str]]:
    """What was passed on in all, why it ended, and what had been passed on after each piece."""
    ending = StopDetector(SampleConfig(**settings), keep_line_end=keep_line_end)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    passed = [""]
    for start, end in itertools.pairwise(edges):
        passed.append(passed[-1] + ending.feed(text[start:end]))
    return passed[-1], ending.reason, passed[1:]


def expected(text: str, stop_strings: list[str]) -> str:
    """Everything before the stop string that is complete first; of several the longest."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stop_strings if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(text=texts, stop_strings=stop_strings, cuts=st.lists(st.integers(0, 30)))
@example(text="bab", stop_strings=["ab", "bab"], cuts=[])  # both are complete at once
@example(text="bab", stop_strings=["bab", "ab"], cuts=[1])
def test_everything_before_a_stop_string_and_nothing_of_it_is_passed_on(
    text: str, stop_strings: list[str], cuts: list[int]
) -> None:
    passed, reason, _ = fed(text, cuts, stop=tuple(stop_strings), length=max(1, len(text)))
    assert passed == expected(text, stop_strings)
    assert reason == ("stop" if passed != text else "length" if text else None)


@given(text=texts, stop_strings=stop_strings, cuts=st.lists(st.integers(0, 30)))
def test_what_was_passed_on_is_never_taken_back_nor_held_for_nothing(
    text: str, stop_strings: list[str], cuts: list[int]
) -> None:
    passed, reason, along = fed(text, cuts, stop=tuple(stop_strings), length=100)
    assert all(passed.startswith(part) for part in along)
    if reason is None:
        assert any(stop.startswith(text[len(passed) :]) for stop in stop_strings)


@given(text=texts, stop_strings=stop_strings)
def test_a_stop_string_may_be_kept(text: str, stop_strings: list[str]) -> None:
    passed, reason, _ = fed(text, [], stop=tuple(stop_strings), keep_stop=True, length=100)
    before = expected(text, stop_strings)
    assert (reason == "stop") == any(stop in text for stop in stop_strings)
    if reason == "stop":
        assert passed in {before + stop for stop in stop_strings}
        assert text.startswith(passed)


@given(text=texts, length=st.integers(1, 30), cuts=st.lists(st.integers(0, 30)))
def test_length_counts_characters(text: str, length: int, cuts: list[int]) -> None:
    passed, reason, _ = fed(text, cuts, length=length)
    assert passed == text[:length]
    assert reason == ("length" if len(text) >= length else None)


@given(text=texts, lines=st.integers(1, 5), cuts=st.lists(st.integers(0, 30)), keep_line_end=st.booleans())
def test_lines_count_line_ends(text: str, lines: int, cuts: list[int], keep_line_end: bool) -> None:
    passed, reason, _ = fed(text, cuts, lines=lines, length=100, keep_line_end=keep_line_end)
    if text.count("\n") < lines:
        assert (passed, reason) == (text, None)
    else:
        kept = "\n".join(text.split("\n")[:lines])
        assert (passed, reason) == (kept + "\n" * keep_line_end, "lines")


def test_what_was_held_is_written_when_the_length_is_reached() -> None:
    assert fed("abab", [3], stop="abb", length=4)[:2] == ("abab", "length")


def test_the_end_of_a_document_ends_a_sample_and_is_not_written() -> None:
    ending = StopDetector(SampleConfig(length=9, stop="xy"), keep_line_end=True)
    assert ending.feed("ab") == "ab"
    assert ending.feed(f"cx{BOUNDARY}de") == "cx"
    assert (ending.reason, ending.left) == ("end", 0)
    assert ending.feed("more") == ""


def test_what_ends_a_sample_is_what_comes_first() -> None:
    long = StopDetector(SampleConfig(length=2), keep_line_end=True)
    assert (long.feed(f"abc{BOUNDARY}"), long.reason) == ("ab", "length")
    stopped = StopDetector(SampleConfig(stop="b"), keep_line_end=True)
    assert (stopped.feed(f"abc{BOUNDARY}"), stopped.reason) == ("a", "stop")


def test_a_stop_string_ends_bytes_too() -> None:
    ending = StopDetector(SampleConfig(stop="é", keep_stop=True), keep_line_end=True, unit="byte")
    assert ending.feed("a\udcc3") == "a"
    assert ending.feed("\udca9b") == "\udcc3\udca9"
    assert ending.reason == "stop"
