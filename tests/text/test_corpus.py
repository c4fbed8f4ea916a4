import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.errors import CorpusError
from charrnn.text.corpus import Corpus
from charrnn.text.sources import Source


def source(text: str) -> Source:
    return Source("poem", ("poem.txt", "more.txt"), text, "UTF-8", {"LF": 0, "CRLF": 0, "CR": 0})


@given(st.text(min_size=2))
def test_a_corpus_is_its_text_in_ids(text: str) -> None:
    corpus = Corpus.of(source(text))
    assert corpus.vocabulary.decode(corpus.ids) == text
    assert corpus.vocabulary.characters == "".join(sorted(set(text)))


def test_a_corpus_is_called_as_its_source_is() -> None:
    assert Corpus.of(source("abc")).name == "poem"


def test_a_corpus_is_identified_by_the_sha256_of_its_text_in_utf_8() -> None:
    assert Corpus.of(source("naïve")).sha256 == hashlib.sha256("naïve".encode()).hexdigest()


@given(st.text(min_size=2), st.data())
def test_training_and_validation_text_are_the_whole_text_and_validation_is_its_end(
    text: str, data: st.DataObject
) -> None:
    validation = data.draw(st.integers(0, len(text)))
    corpus = Corpus.of(source(text))
    training, held_out = corpus.split(validation)
    assert len(held_out) == validation
    assert np.array_equal(np.concatenate([training, held_out]), corpus.ids)


def test_a_single_character_is_no_corpus() -> None:
    with pytest.raises(CorpusError, match="nothing to predict") as caught:
        Corpus.of(source("a"))
    assert caught.value.subject == "poem.txt, more.txt"
