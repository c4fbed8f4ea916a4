"""The end of a sample: length, lines, stop strings and document boundaries."""

import itertools
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from charrnn.config import SampleConfig
from charrnn.data.vocabulary import BOUNDARY
from charrnn.generation.stopping import StopDetector

texts = st.text("ab\n", max_size=30)
stop_strings = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3)


def feed_parts(
    text: str, cuts: list[int], *, keep_line_end: bool = True, **settings: Any
) -> tuple[str, str | None, list[str]]:
    """Return the output, the reason for the end, and the output so far after each part."""
    detector = StopDetector(SampleConfig(**settings), keep_line_end=keep_line_end)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    output = [""]
    for start, end in itertools.pairwise(edges):
        output.append(output[-1] + detector.feed(text[start:end]))
    return output[-1], detector.reason, output[1:]


def expected(text: str, stop_strings: list[str]) -> str:
    """Return the text before the stop string that is complete first (the longest, if several are)."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stop_strings if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(text=texts, stop_strings=stop_strings, cuts=st.lists(st.integers(0, 30)))
@example(text="bab", stop_strings=["ab", "bab"], cuts=[])  # both are complete at the same character
@example(text="bab", stop_strings=["bab", "ab"], cuts=[1])
def test_the_output_is_the_text_before_the_stop_string(text: str, stop_strings: list[str], cuts: list[int]) -> None:
    output, reason, _ = feed_parts(text, cuts, stop=tuple(stop_strings), length=max(1, len(text)))
    assert output == expected(text, stop_strings)
    assert reason == ("stop" if output != text else "length" if text else None)


@given(text=texts, stop_strings=stop_strings, cuts=st.lists(st.integers(0, 30)))
def test_output_is_final_and_held_back_only_if_necessary(text: str, stop_strings: list[str], cuts: list[int]) -> None:
    output, reason, outputs = feed_parts(text, cuts, stop=tuple(stop_strings), length=100)
    assert all(output.startswith(part) for part in outputs)
    if reason is None:
        assert any(stop.startswith(text[len(output) :]) for stop in stop_strings)


@given(text=texts, stop_strings=stop_strings)
def test_a_stop_string_can_be_kept(text: str, stop_strings: list[str]) -> None:
    output, reason, _ = feed_parts(text, [], stop=tuple(stop_strings), keep_stop=True, length=100)
    before = expected(text, stop_strings)
    assert (reason == "stop") == any(stop in text for stop in stop_strings)
    if reason == "stop":
        assert output in {before + stop for stop in stop_strings}
        assert text.startswith(output)


@given(text=texts, length=st.integers(1, 30), cuts=st.lists(st.integers(0, 30)))
def test_length_counts_characters(text: str, length: int, cuts: list[int]) -> None:
    output, reason, _ = feed_parts(text, cuts, length=length)
    assert output == text[:length]
    assert reason == ("length" if len(text) >= length else None)


@given(text=texts, lines=st.integers(1, 5), cuts=st.lists(st.integers(0, 30)), keep_line_end=st.booleans())
def test_lines_count_line_ends(text: str, lines: int, cuts: list[int], keep_line_end: bool) -> None:
    output, reason, _ = feed_parts(text, cuts, lines=lines, length=100, keep_line_end=keep_line_end)
    if text.count("\n") < lines:
        assert (output, reason) == (text, None)
    else:
        expected_lines = "\n".join(text.split("\n")[:lines])
        assert (output, reason) == (expected_lines + "\n" * keep_line_end, "lines")


def test_held_back_text_is_output_when_the_length_is_reached() -> None:
    assert feed_parts("abab", [3], stop="abb", length=4)[:2] == ("abab", "length")


def test_a_document_boundary_ends_a_sample_and_is_not_output() -> None:
    detector = StopDetector(SampleConfig(length=9, stop="xy"), keep_line_end=True)
    assert detector.feed("ab") == "ab"
    assert detector.feed(f"cx{BOUNDARY}de") == "cx"
    assert (detector.reason, detector.left) == ("end", 0)
    assert detector.feed("more") == ""


def test_the_first_condition_ends_a_sample() -> None:
    long = StopDetector(SampleConfig(length=2), keep_line_end=True)
    assert (long.feed(f"abc{BOUNDARY}"), long.reason) == ("ab", "length")
    stopped = StopDetector(SampleConfig(stop="b"), keep_line_end=True)
    assert (stopped.feed(f"abc{BOUNDARY}"), stopped.reason) == ("a", "stop")


def test_a_stop_string_works_with_bytes() -> None:
    detector = StopDetector(SampleConfig(stop="é", keep_stop=True), keep_line_end=True, unit="byte")
    assert detector.feed("a\udcc3") == "a"
    assert detector.feed("\udca9b") == "\udcc3\udca9"
    assert detector.reason == "stop"
