"""Bits per character: every method of computing gives the result of a single stream."""

import math

import numpy as np
import pytest
import torch

from charrnn.config import Cell, ModelConfig
from charrnn.evaluation import metrics, surprisal
from charrnn.evaluation.metrics import bootstrap, mean_nats, mean_nats_with_resets
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.torch_scorer import TorchScorer

V = 7


def build(cell: Cell = "lstm") -> CharRNN:
    network = CharRNN(ModelConfig(cell=cell, hidden=16), V)
    network.initialize(seed=0)
    return network


def random_ids(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(V, size=size).astype(np.uint8)


def one_stream(network: CharRNN, ids: np.ndarray, reset: int = 10**9) -> float:
    """Return the nats by the definition: one stream, with the state reset every ``reset`` characters."""
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(ids) - 1, reset):
            window = torch.from_numpy(ids[first : first + reset + 1].astype(np.int64))
            logits, _ = network(window[:-1, None], network.zero_state(1))
            total += torch.nn.functional.cross_entropy(logits[:, 0].double(), window[1:], reduction="sum").item()
    return total / (len(ids) - 1)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("size", [2, 3, 1000, 5000, 20_011])
def test_segments_give_the_result_of_a_single_stream(cell: Cell, size: int) -> None:
    network, ids = build(cell), random_ids(size)
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(one_stream(network, ids), abs=1e-6)


def test_a_network_with_long_memory_is_measured_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = build(), random_ids(6000)
    bias = network.tensors()
    bias["layers.0.bias_ih"][16:32] = 12  # forget gates at 0.999994; the burn-in alone is far off
    bias["layers.0.weight_hh"] *= 0
    bias["output.weight"] *= 8
    network.load_tensors(bias)
    reference = one_stream(network, ids)
    assert mean_nats(TorchScorer(network), ids, tolerance=math.inf) != pytest.approx(reference, abs=1e-4)
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(reference, abs=1e-5)


def test_an_unused_permanent_memory_costs_no_extra_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = build(), random_ids(70_000)
    tensors = network.tensors()
    tensors["layers.1.bias_ih"][16] = 40  # this unit never forgets, and no output depends on it
    tensors["layers.1.weight_hh"][:, 0] = tensors["output.weight"][:, 0] = 0
    network.load_tensors(tensors)
    read, streams = surprisal.SurprisalMeter._read_segments, []
    monkeypatch.setattr(
        surprisal.SurprisalMeter, "_read_segments", lambda *args: streams.append(len(args[2])) or read(*args)
    )
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(one_stream(network, ids), abs=1e-6)
    assert sum(streams) < 4 * surprisal.SEGMENTS


@pytest.mark.parametrize("chunk", [1, 7, 64, 100_000])
def test_the_result_does_not_depend_on_the_chunk_length(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = build(), random_ids(3000)
    expected = mean_nats(TorchScorer(network), ids)
    monkeypatch.setattr(surprisal, "CHUNK", chunk)
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(expected, abs=1e-6)


def test_a_large_vocabulary_is_evaluated_in_shorter_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = build(), random_ids(3000)
    expected, sizes = mean_nats(TorchScorer(network), ids), []
    forward = CharRNN.forward
    monkeypatch.setattr(CharRNN, "forward", lambda *x, **how: sizes.append(x[1].numel()) or forward(*x, **how))
    monkeypatch.setattr(surprisal, "MAX_LOGITS", 50 * V)
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(expected, abs=1e-6)
    assert max(sizes) <= 50


@pytest.mark.parametrize("reset", [1, 10, 256, 300, 5000, 10**30])
def test_the_state_is_reset_at_the_given_interval(reset: int) -> None:
    network, ids = build(), random_ids(2001)
    assert mean_nats_with_resets(TorchScorer(network), ids, reset) == pytest.approx(
        one_stream(network, ids, reset), abs=1e-6
    )


@pytest.mark.parametrize("size", [1, 7, 64, 599, 600, 601])
def test_the_result_does_not_depend_on_the_window_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, ids = TorchScorer(build()), random_ids(600)
    expected = mean_nats(scorer, ids), mean_nats_with_resets(scorer, ids, 100)
    monkeypatch.setattr(metrics, "WINDOW", size)
    assert (mean_nats(scorer, ids), mean_nats_with_resets(scorer, ids, 100)) == pytest.approx(expected, abs=1e-6)


def test_evaluation_does_not_change_the_network() -> None:
    network = build()
    before = network.tensors()
    mean_nats(TorchScorer(network), random_ids(100))
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, array in network.tensors().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("size", [20_000, 3_000_017])
def test_the_interval_of_independent_values_is_that_of_their_mean(size: int) -> None:
    nats = np.random.default_rng(1).exponential(size=size)
    result = bootstrap(iter([nats]), size)
    assert result.nats == pytest.approx(nats.mean())
    assert result.interval is not None
    low, high = result.interval
    assert low < result.nats < high
    assert (high - low) / 2 == pytest.approx(1.96 * nats.std() / size**0.5, rel=0.35)


def test_correlated_neighbours_widen_the_interval() -> None:
    nats = np.random.default_rng(1).exponential(size=200)
    independent, clustered = (
        bootstrap(iter([each]), 100_000).interval for each in (np.tile(nats, 500), np.repeat(nats, 500))
    )
    assert independent is not None
    assert clustered is not None
    assert clustered[1] - clustered[0] > 5 * (independent[1] - independent[0])


def test_the_interval_does_not_depend_on_the_parts() -> None:
    nats = np.random.default_rng(1).exponential(size=5000)
    expected = bootstrap(iter([nats]), 5000)
    assert bootstrap(iter(np.split(nats, [1, 7, 2500, 4999])), 5000) == expected


def test_a_short_text_has_no_interval() -> None:
    assert bootstrap(iter([np.ones(300)]), 300).interval is None
