"""Weights that move to another vocabulary: by character, never by position."""

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.config import Cell, ModelConfig
from charrnn.data.vocabulary import Vocabulary
from charrnn.rnn.numpy_rnn import NumPyRNN
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.transfer import transfer

CHARACTERS = st.text(st.characters(min_codepoint=97, max_codepoint=117), min_size=1)


def weights(vocabulary: Vocabulary, seed: int, cell: str = "lstm", embedding: int = 0) -> dict[str, np.ndarray]:
    network = CharRNN(ModelConfig(cell=cast(Cell, cell), layers=2, hidden=8, embedding=embedding), len(vocabulary))
    network.initialize(seed)
    return network.tensors()


def scores(
    tensors: dict[str, np.ndarray], vocabulary: Vocabulary, text: str, cell: str, embedding: int
) -> np.ndarray:
    """Logits of the characters of ``text``, in that order, after reading it."""
    numpy_rnn = NumPyRNN(ModelConfig(cell=cast(Cell, cell), layers=2, hidden=8, embedding=embedding), tensors)
    state = numpy_rnn.zero_state(1)
    ids = vocabulary.encode(text)
    for index in ids:
        logits, state = numpy_rnn.step(np.array([index]), state)
    return np.asarray(logits)[0][ids]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("embedding", [0, 5])
@settings(max_examples=20)
@given(old=CHARACTERS, new=CHARACTERS)
def test_characters_that_both_know_mean_the_same_as_before(cell: str, embedding: int, old: str, new: str) -> None:
    known, wanted = Vocabulary.from_text(old), Vocabulary.from_text(new + old)
    trained, initial = weights(known, 1, cell, embedding), weights(wanted, 2, cell, embedding)
    moved = transfer(trained, known, initial, wanted)
    np.testing.assert_allclose(
        scores(moved, wanted, old, cell, embedding), scores(trained, known, old, cell, embedding), atol=1e-5
    )


@given(old=CHARACTERS, new=CHARACTERS)
def test_new_characters_keep_their_fresh_weights(old: str, new: str) -> None:
    known = Vocabulary.from_text(old)
    wanted = known.extended(new)
    initial = weights(wanted, 2)
    moved = transfer(weights(known, 1), known, initial, wanted)
    np.testing.assert_array_equal(moved["output.weight"][len(known) :], initial["output.weight"][len(known) :])
    assert {name: array.shape for name, array in moved.items()} == {
        name: array.shape for name, array in initial.items()
    }


@given(old=CHARACTERS, new=CHARACTERS)
def test_an_extended_vocabulary_begins_with_the_old_one_and_knows_the_text(old: str, new: str) -> None:
    known = Vocabulary.from_text(old)
    wanted = known.extended(new)
    assert wanted.symbols.startswith(known.symbols)
    assert wanted.split_unknown(new)[1] == ""
    assert set(wanted.symbols) == set(old + new)
