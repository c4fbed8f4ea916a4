"""From pieces of text to numbers, before all symbols are known."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import ReadConfig
from charrnn.data import encoder
from charrnn.data.encoder import BoundaryMarker, Encoder
from charrnn.data.vocabulary import BOUNDARY

SIZES = st.lists(st.integers(0, 3), max_size=20)
LIMIT = encoder._MIN_PAIR_COUNT
ALPHABET = st.sampled_from("aéÿ中𝄞\n")


def pieces(text: str, sizes: list[int]) -> list[str]:
    cut = []
    for size in sizes:
        cut.append(text[:size])
        text = text[size:]
    return [*cut, text]


@given(st.text(st.sampled_from("ab-"), max_size=30), SIZES, st.sampled_from(["-", "--", "ab", "aab", "aba"]))
def test_separators_are_found_across_pieces(text: str, sizes: list[int], separator: str) -> None:
    marker = BoundaryMarker(ReadConfig(documents="separated", separator=separator))
    *first, last = pieces(text, sizes)
    marked = "".join([*(marker.feed(piece, last=False) for piece in first), marker.feed(last, last=True)])
    assert marked == text.replace(separator, marker.boundary) + marker.boundary


@given(st.text(ALPHABET, max_size=40), SIZES)
def test_numbers_stand_for_the_symbols_that_came_and_count_them(text: str, sizes: list[int]) -> None:
    made = Encoder("char")
    ids = np.concatenate([made.encode(piece) for piece in pieces(text, sizes)])
    assert "".join(made.symbols[number] for number in ids) == text
    assert made.counts == dict(Counter(text))


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT + 1])
@pytest.mark.parametrize("alphabet", ["abc", "ab中", "".join(map(chr, range(300, 700)))])
def test_long_pieces_are_numbered_and_counted_all_the_same(length: int, alphabet: str) -> None:
    text = "".join(alphabet[index] for index in np.random.default_rng(length).integers(len(alphabet), size=length))
    made = Encoder("char")
    ids = made.encode(text)
    assert "".join(made.symbols[number] for number in ids) == text
    assert made.counts == dict(Counter(text))


@pytest.mark.parametrize("unit", ["char", "byte"])
def test_boundaries_that_follow_each_other_are_one(unit: Any) -> None:
    made = Encoder(unit, "\n")
    ids = np.concatenate([made.encode(piece) for piece in ("\n", "\na\n", "\n\nb", "c\n", "\n")])
    assert "".join(made.symbols[number] for number in ids) == f"{BOUNDARY}a{BOUNDARY}bc{BOUNDARY}"
    assert made.counts[BOUNDARY] == 3
