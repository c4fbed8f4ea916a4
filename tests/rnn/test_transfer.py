"""Weights are transferred to another vocabulary by character, not by position."""

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
    """Return the logits of the characters of ``text``, in that order, after reading it."""
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
def test_shared_characters_keep_their_logits(cell: str, embedding: int, old: str, new: str) -> None:
    old_vocabulary, new_vocabulary = Vocabulary.from_text(old), Vocabulary.from_text(new + old)
    trained, initial = weights(old_vocabulary, 1, cell, embedding), weights(new_vocabulary, 2, cell, embedding)
    transferred = transfer(trained, old_vocabulary, initial, new_vocabulary)
    np.testing.assert_allclose(
        scores(transferred, new_vocabulary, old, cell, embedding),
        scores(trained, old_vocabulary, old, cell, embedding),
        atol=1e-5,
    )


@given(old=CHARACTERS, new=CHARACTERS)
def test_new_characters_keep_their_initial_weights(old: str, new: str) -> None:
    old_vocabulary = Vocabulary.from_text(old)
    new_vocabulary = old_vocabulary.extended(new)
    initial = weights(new_vocabulary, 2)
    transferred = transfer(weights(old_vocabulary, 1), old_vocabulary, initial, new_vocabulary)
    np.testing.assert_array_equal(
        transferred["output.weight"][len(old_vocabulary) :], initial["output.weight"][len(old_vocabulary) :]
    )
    assert {name: array.shape for name, array in transferred.items()} == {
        name: array.shape for name, array in initial.items()
    }


@given(old=CHARACTERS, new=CHARACTERS)
def test_an_extended_vocabulary_starts_with_the_old_one_and_covers_the_text(old: str, new: str) -> None:
    old_vocabulary = Vocabulary.from_text(old)
    new_vocabulary = old_vocabulary.extended(new)
    assert new_vocabulary.symbols.startswith(old_vocabulary.symbols)
    assert new_vocabulary.split_unknown(new)[1] == ""
    assert set(new_vocabulary.symbols) == set(old + new)
