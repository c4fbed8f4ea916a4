"""Dynamic evaluation: each chunk is predicted first and learned afterwards."""

import numpy as np
import pytest

from charrnn import checkpoint
from charrnn.data.corpus_reader import corpus_from_text
from charrnn.evaluation import dynamic
from charrnn.evaluation.dynamic import CHUNK, dynamic_surprisals
from charrnn.evaluation.metrics import mean_nats
from charrnn.rnn.torch_scorer import torch_scorer
from tests.conftest import make_checkpoint

TEXT = "the lazy dog jumps over the quick brown fox\n" * 60


def surprisals(text: str = TEXT) -> np.ndarray:
    model = make_checkpoint(layers=2)
    return np.concatenate(list(dynamic_surprisals(model, model.vocabulary.encode(text))))


def test_repeated_text_becomes_less_surprising() -> None:
    nats = surprisals()
    assert len(nats) == len(TEXT) - 1
    assert nats[-200:].mean() < nats[:200].mean() - 0.2


def test_a_chunk_is_predicted_before_it_is_learned() -> None:
    other = TEXT[: CHUNK + 1] + TEXT[CHUNK + 1 :][::-1]
    np.testing.assert_allclose(surprisals()[:CHUNK], surprisals(other)[:CHUNK], rtol=1e-5)
    assert abs(surprisals()[CHUNK : 2 * CHUNK] - surprisals(other)[CHUNK : 2 * CHUNK]).max() > 0.1


def test_a_learning_rate_of_zero_equals_static_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "RATE", 0)
    model = make_checkpoint(layers=2)
    static = mean_nats(torch_scorer(model), corpus_from_text(TEXT).with_vocabulary(model.vocabulary).tokens())
    assert surprisals().mean() == pytest.approx(static, abs=1e-6)


def test_the_model_is_not_changed() -> None:
    model = make_checkpoint()
    before = checkpoint.to_bytes(model)
    list(dynamic_surprisals(model, model.vocabulary.encode(TEXT)))
    assert checkpoint.to_bytes(model) == before


def test_a_decay_of_one_undoes_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a decay of 1, the surprisals equal those of a network that does not learn."""
    monkeypatch.setattr(dynamic, "DECAY", 1.0)
    undone = surprisals()
    monkeypatch.setattr(dynamic, "RATE", 0)
    np.testing.assert_allclose(undone, surprisals(), rtol=1e-4, atol=1e-5)
