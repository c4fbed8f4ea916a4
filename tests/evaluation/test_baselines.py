"""Baselines: Markov models and compressors."""

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


def probability(training: list[int], context: tuple[int, ...], symbol: int) -> float:
    """Return the probability of a symbol by the recursive equation."""
    lower_order = probability(training, context[1:], symbol) if context else 1 / V
    size = len(context)
    followers = Counter(
        training[index] for index in range(size, len(training)) if tuple(training[index - size : index]) == context
    )
    if not followers:
        return lower_order
    total, distinct_followers = sum(followers.values()), len(followers)
    return (followers[symbol] + distinct_followers * lower_order) / (total + distinct_followers)


@given(IDS, IDS, st.integers(0, 4))
def test_a_markov_model_follows_the_equation(training: list[int], measured: list[int], order: int) -> None:
    expected = -sum(
        math.log(probability(training, tuple(measured[max(0, index - order) : index]), symbol))
        for index, symbol in enumerate(measured)
    ) / len(measured)
    assert mean_nats(training, measured, order) == pytest.approx(expected, rel=1e-9)


def test_a_markov_model_matches_a_calculation_by_hand() -> None:
    """In "abab", "a" is always followed by "b"; each of the two symbols occurs twice."""
    alone = (2 + 2 * 0.5) / (4 + 2)
    after_a = (2 + 1 * alone) / (2 + 1)
    expected = -(math.log(alone) + math.log(after_a)) / 2
    assert mean_nats([0, 1, 0, 1], [0, 1], 1, 2) == pytest.approx(expected)


@given(IDS, st.integers(1, 3), st.lists(st.integers(0, V - 1), max_size=3))
def test_the_probabilities_of_all_symbols_add_up_to_one(training: list[int], order: int, context: list[int]) -> None:
    total = 0.0
    for symbol in range(V):
        joint = mean_nats(training, [*context, symbol], order) * (len(context) + 1)
        context_nats = mean_nats(training, context, order) * len(context) if context else 0.0
        total += math.exp(context_nats - joint)
    assert total == pytest.approx(1)


def test_a_higher_order_helps_with_a_periodic_text() -> None:
    text = np.array([*itertools.islice(itertools.cycle([0, 0, 1, 0, 2]), 500)])
    nats = [float(each.mean()) for each in markov_nats(text[:400], text[400:], 3, V)]
    assert nats == sorted(nats, reverse=True)
    assert nats[3] < 0.1


def test_xz_bits_equal_the_compressed_size() -> None:
    data = b"to be or not to be " * 99
    assert xz_bits(data, 99) == 8 * len(lzma.compress(data)) / 99


def test_an_order_does_not_depend_on_the_maximum_order() -> None:
    training, measured = np.random.default_rng(0).integers(V, size=(2, 50))
    short, long = (markov_nats(training, measured, order, V) for order in (2, 5))
    assert len(short) == 3
    for one, other in zip(short, long, strict=False):
        np.testing.assert_array_equal(one, other)


def test_compressors_use_the_training_text() -> None:
    random = np.random.default_rng(0)
    training, new = random.bytes(3000), random.bytes(1000)
    for name, size in compressed_bits(training, new):
        assert size >= 8000, name
    for name, size in compressed_bits(training, training[1000:2000]):
        assert size < 800, name
    for name, size in compressed_bits(b"", b"to be or not to be " * 50):
        assert 80 < size < 1600, name


def test_a_training_text_that_is_too_short_for_a_dictionary_is_ignored() -> None:
    data = b"to be or not to be " * 50
    assert dict(compressed_bits(b"to be", data))["zstd --ultra"] == dict(compressed_bits(b"", data))["zstd --ultra"]
