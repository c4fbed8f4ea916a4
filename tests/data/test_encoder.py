"""The encoder: from blocks of text to ids, before all symbols are known."""

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


def blocks_of(text: str, sizes: list[int]) -> list[str]:
    blocks = []
    for size in sizes:
        blocks.append(text[:size])
        text = text[size:]
    return [*blocks, text]


@given(st.text(st.sampled_from("ab-"), max_size=30), SIZES, st.sampled_from(["-", "--", "ab", "aab", "aba"]))
def test_separators_are_found_across_blocks(text: str, sizes: list[int], separator: str) -> None:
    marker = BoundaryMarker(ReadConfig(documents="separated", separator=separator))
    *first, last = blocks_of(text, sizes)
    marked = "".join([*(marker.feed(block, last=False) for block in first), marker.feed(last, last=True)])
    assert marked == text.replace(separator, marker.boundary) + marker.boundary


@given(st.text(ALPHABET, max_size=40), SIZES)
def test_ids_encode_the_symbols_and_symbols_are_counted(text: str, sizes: list[int]) -> None:
    text_encoder = Encoder("char")
    ids = np.concatenate([text_encoder.encode(block) for block in blocks_of(text, sizes)])
    assert "".join(text_encoder.symbols[index] for index in ids) == text
    assert text_encoder.counts == dict(Counter(text))


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT + 1])
@pytest.mark.parametrize("alphabet", ["abc", "ab中", "".join(map(chr, range(300, 700)))])
def test_long_blocks_are_encoded_and_counted_correctly(length: int, alphabet: str) -> None:
    text = "".join(alphabet[index] for index in np.random.default_rng(length).integers(len(alphabet), size=length))
    text_encoder = Encoder("char")
    ids = text_encoder.encode(text)
    assert "".join(text_encoder.symbols[index] for index in ids) == text
    assert text_encoder.counts == dict(Counter(text))


@pytest.mark.parametrize("unit", ["char", "byte"])
def test_consecutive_boundaries_are_merged(unit: Any) -> None:
    text_encoder = Encoder(unit, "\n")
    ids = np.concatenate([text_encoder.encode(block) for block in ("\n", "\na\n", "\n\nb", "c\n", "\n")])
    assert "".join(text_encoder.symbols[index] for index in ids) == f"{BOUNDARY}a{BOUNDARY}bc{BOUNDARY}"
    assert text_encoder.counts[BOUNDARY] == 3
