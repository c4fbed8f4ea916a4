"""What simpler rulers say of a text."""

import itertools
import lzma
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.evaluation.baselines import compressed_bits, markov_nats, xz_bits

V = 3
IDS = st.lists(st.integers(0, V - 1), min_size=1, max_size=30)


def mean_nats(training: list[int], measured: list[int], order: int, vocab_size: int = V) -> float:
    return float(markov_nats(np.array(training), np.array(measured), order, vocab_size)[order].mean())


def chance(training: list[int], context: tuple[int, ...], symbol: int) -> float:
    """The same as the equation says it, one symbol at a time."""
    below = chance(training, context[1:], symbol) if context else 1 / V
    size = len(context)
    followers = Counter(
        training[place] for place in range(size, len(training)) if tuple(training[place - size : place]) == context
    )
    if not followers:
        return below
    total, kinds = sum(followers.values()), len(followers)
    return (followers[symbol] + kinds * below) / (total + kinds)


@given(IDS, IDS, st.integers(0, 4))
def test_a_markov_model_is_what_its_equation_says(training: list[int], measured: list[int], order: int) -> None:
    expected = -sum(
        math.log(chance(training, tuple(measured[max(0, place - order) : place]), symbol))
        for place, symbol in enumerate(measured)
    ) / len(measured)
    assert mean_nats(training, measured, order) == pytest.approx(expected, rel=1e-9)


def test_a_text_computed_by_hand() -> None:
    """Of a b a b, order 1: after a comes b both times, 1 kind; alone a and b come twice of 4, 2 kinds of V = 2."""
    alone = (2 + 2 * 0.5) / (4 + 2)
    after_a = (2 + 1 * alone) / (2 + 1)
    expected = -(math.log(alone) + math.log(after_a)) / 2
    assert mean_nats([0, 1, 0, 1], [0, 1], 1, 2) == pytest.approx(expected)


@given(IDS, st.integers(1, 3), st.lists(st.integers(0, V - 1), max_size=3))
def test_the_chances_of_all_symbols_are_one(training: list[int], order: int, context: list[int]) -> None:
    total = 0.0
    for symbol in range(V):
        whole = mean_nats(training, [*context, symbol], order) * (len(context) + 1)
        before = mean_nats(training, context, order) * len(context) if context else 0.0
        total += math.exp(before - whole)
    assert total == pytest.approx(1)


def test_a_longer_memory_helps_where_there_is_something_to_remember() -> None:
    text = np.array([*itertools.islice(itertools.cycle([0, 0, 1, 0, 2]), 500)])
    nats = [float(each.mean()) for each in markov_nats(text[:400], text[400:], 3, V)]
    assert nats == sorted(nats, reverse=True)
    assert nats[3] < 0.1


def test_xz_is_what_xz_writes() -> None:
    data = b"to be or not to be " * 99
    assert xz_bits(data, 99) == 8 * len(lzma.compress(data)) / 99


def test_an_order_is_the_same_whatever_orders_are_asked_for_with_it() -> None:
    training, measured = np.random.default_rng(0).integers(V, size=(2, 50))
    few, many = (markov_nats(training, measured, order, V) for order in (2, 5))
    assert len(few) == 3
    for one, other in zip(few, many, strict=False):
        np.testing.assert_array_equal(one, other)


def test_compressors_know_the_training_text_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    known, new = random.bytes(3000), random.bytes(1000)
    for name, size in compressed_bits(known, new):
        assert size >= 8000, name
    for name, size in compressed_bits(known, known[1000:2000]):
        assert size < 800, name
    for name, size in compressed_bits(b"", b"to be or not to be " * 50):
        assert 80 < size < 1600, name


def test_a_training_text_that_is_too_short_for_a_dictionary_is_ignored() -> None:
    data = b"to be or not to be " * 50
    assert dict(compressed_bits(b"to be", data))["zstd --ultra"] == dict(compressed_bits(b"", data))["zstd --ultra"]
