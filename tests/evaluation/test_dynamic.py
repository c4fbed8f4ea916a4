"""Dynamic evaluation: predicts first and learns afterwards."""

import numpy as np
import pytest

from charrnn import checkpoint
from charrnn.data.corpus_reader import corpus_from_text
from charrnn.evaluation import dynamic
from charrnn.evaluation.dynamic import CHUNK, learning_surprisals
from charrnn.evaluation.metrics import mean_nats
from charrnn.rnn.torch_scorer import torch_scorer
from tests.conftest import make_checkpoint

TEXT = "the lazy dog jumps over the quick brown fox\n" * 60


def surprise(text: str = TEXT) -> np.ndarray:
    model = make_checkpoint(layers=2)
    return np.concatenate(list(learning_surprisals(model, model.vocabulary.encode(text))))


def test_it_learns_what_comes_again() -> None:
    nats = surprise()
    assert len(nats) == len(TEXT) - 1
    assert nats[-200:].mean() < nats[:200].mean() - 0.2


def test_what_comes_is_predicted_before_it_is_learned() -> None:
    other = TEXT[: CHUNK + 1] + TEXT[CHUNK + 1 :][::-1]
    np.testing.assert_allclose(surprise()[:CHUNK], surprise(other)[:CHUNK], rtol=1e-5)
    assert abs(surprise()[CHUNK : 2 * CHUNK] - surprise(other)[CHUNK : 2 * CHUNK]).max() > 0.1


def test_without_learning_it_is_the_static_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "RATE", 0)
    model = make_checkpoint(layers=2)
    static = mean_nats(torch_scorer(model), corpus_from_text(TEXT).with_vocabulary(model.vocabulary).tokens())
    assert surprise().mean() == pytest.approx(static, abs=1e-6)


def test_the_model_stays_what_it_was() -> None:
    model = make_checkpoint()
    before = checkpoint.to_bytes(model)
    list(learning_surprisals(model, model.vocabulary.encode(TEXT)))
    assert checkpoint.to_bytes(model) == before


def test_weights_return_where_there_is_nothing_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of the way back at each step nothing lasts: the figures are those of a network that never learned."""
    monkeypatch.setattr(dynamic, "DECAY", 1.0)
    lasting = surprise()
    monkeypatch.setattr(dynamic, "RATE", 0)
    np.testing.assert_allclose(lasting, surprise(), rtol=1e-4, atol=1e-5)
