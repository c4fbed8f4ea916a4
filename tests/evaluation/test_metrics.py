"""Bits per character: the figure of one stream, however it is computed."""

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


def some_ids(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(V, size=size).astype(np.uint8)


def one_stream(network: CharRNN, ids: np.ndarray, reset: int = 10**9) -> float:
    """The definition: one stream, character by character in one pass, the state fresh every ``reset`` characters."""
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(ids) - 1, reset):
            window = torch.from_numpy(ids[first : first + reset + 1].astype(np.int64))
            logits, _ = network(window[:-1, None], network.zero_state(1))
            total += torch.nn.functional.cross_entropy(logits[:, 0].double(), window[1:], reduction="sum").item()
    return total / (len(ids) - 1)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("size", [2, 3, 1000, 5000, 20_011])
def test_carried_is_the_figure_of_the_single_stream(cell: Cell, size: int) -> None:
    network, ids = build(cell), some_ids(size)
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(one_stream(network, ids), abs=1e-6)


def test_a_network_that_never_forgets_is_measured_just_as_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = build(), some_ids(6000)
    bias = network.tensors()
    bias["layers.0.bias_ih"][16:32] = 12  # forget gates at 0.999994: the run-up alone would be far off
    bias["layers.0.weight_hh"] *= 0
    bias["output.weight"] *= 8
    network.load_tensors(bias)
    exact = one_stream(network, ids)
    assert mean_nats(TorchScorer(network), ids, tolerance=math.inf) != pytest.approx(exact, abs=1e-4)
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(exact, abs=1e-5)


def test_what_is_remembered_for_ever_but_never_needed_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = build(), some_ids(70_000)
    tensors = network.tensors()
    tensors["layers.1.bias_ih"][16] = 40  # one unit of the last layer never forgets, and no character depends on it
    tensors["layers.1.weight_hh"][:, 0] = tensors["output.weight"][:, 0] = 0
    network.load_tensors(tensors)
    read, streams = surprisal.SurprisalMeter._read_segments, []
    monkeypatch.setattr(
        surprisal.SurprisalMeter, "_read_segments", lambda *given: streams.append(len(given[2])) or read(*given)
    )
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(one_stream(network, ids), abs=1e-6)
    assert sum(streams) < 4 * surprisal.SEGMENTS


@pytest.mark.parametrize("chunk", [1, 7, 64, 100_000])
def test_the_length_of_a_chunk_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = build(), some_ids(3000)
    whole = mean_nats(TorchScorer(network), ids)
    monkeypatch.setattr(surprisal, "CHUNK", chunk)
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(whole, abs=1e-6)


def test_a_large_vocabulary_is_measured_in_shorter_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = build(), some_ids(3000)
    whole, seen = mean_nats(TorchScorer(network), ids), []
    forward = CharRNN.forward
    monkeypatch.setattr(CharRNN, "forward", lambda *x, **how: seen.append(x[1].numel()) or forward(*x, **how))
    monkeypatch.setattr(surprisal, "MAX_LOGITS", 50 * V)
    assert mean_nats(TorchScorer(network), ids) == pytest.approx(whole, abs=1e-6)
    assert max(seen) <= 50


@pytest.mark.parametrize("reset", [1, 10, 256, 300, 5000, 10**30])
def test_reset_starts_afresh_every_so_many_characters(reset: int) -> None:
    network, ids = build(), some_ids(2001)
    assert mean_nats_with_resets(TorchScorer(network), ids, reset) == pytest.approx(
        one_stream(network, ids, reset), abs=1e-6
    )


@pytest.mark.parametrize("size", [1, 7, 64, 599, 600, 601])
def test_a_text_that_is_held_in_parts_has_the_same_figure(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, ids = TorchScorer(build()), some_ids(600)
    whole = mean_nats(scorer, ids), mean_nats_with_resets(scorer, ids, 100)
    monkeypatch.setattr(metrics, "WINDOW", size)
    assert (mean_nats(scorer, ids), mean_nats_with_resets(scorer, ids, 100)) == pytest.approx(whole, abs=1e-6)


def test_measuring_leaves_no_gradient_and_no_trace() -> None:
    network = build()
    before = network.tensors()
    mean_nats(TorchScorer(network), some_ids(100))
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, array in network.tensors().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("size", [20_000, 3_000_017])
def test_the_interval_of_independent_figures_is_that_of_their_mean(size: int) -> None:
    nats = np.random.default_rng(1).exponential(size=size)
    found = bootstrap(iter([nats]), size)
    assert found.nats == pytest.approx(nats.mean())
    assert found.interval is not None
    low, high = found.interval
    assert low < found.nats < high
    assert (high - low) / 2 == pytest.approx(1.96 * nats.std() / size**0.5, rel=0.35)


def test_neighbours_that_go_together_make_it_less_sure() -> None:
    nats = np.random.default_rng(1).exponential(size=200)
    apart, together = (
        bootstrap(iter([each]), 100_000).interval for each in (np.tile(nats, 500), np.repeat(nats, 500))
    )
    assert apart is not None
    assert together is not None
    assert together[1] - together[0] > 5 * (apart[1] - apart[0])


def test_a_figure_is_the_same_however_its_parts_are_cut() -> None:
    nats = np.random.default_rng(1).exponential(size=5000)
    whole = bootstrap(iter([nats]), 5000)
    assert bootstrap(iter(np.split(nats, [1, 7, 2500, 4999])), 5000) == whole


def test_of_a_short_text_nothing_is_said_about_others() -> None:
    assert bootstrap(iter([np.ones(300)]), 300).interval is None
