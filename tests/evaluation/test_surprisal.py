"""The meter: however a text is cut and read, each symbol is as surprising as in a single stream."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.checkpoint import Checkpoint
from charrnn.config import Cell, ModelConfig
from charrnn.data.vocabulary import BOUNDARY, Vocabulary
from charrnn.evaluation import surprisal as module
from charrnn.evaluation.surprisal import SurprisalMeter
from charrnn.rnn.backend import Scorer, SwitchingScorer
from charrnn.rnn.costs import TYPICAL
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.torch_scorer import TorchScorer, torch_scorer

V = 6


def build(cell: Cell, *, boundary: bool) -> CharRNN:
    network = CharRNN(ModelConfig(cell=cell, hidden=16), V, 0 if boundary else None)
    network.initialize(seed=0)
    return network


def read_by(engine: str, network: CharRNN) -> Scorer:
    symbols = "abcdef" if network.boundary_id is None else BOUNDARY + "abcde"
    contents = Checkpoint(network.config, Vocabulary(symbols), network.tensors(), {})
    network.native = engine == "native"
    if engine in ("torch", "native"):
        return TorchScorer(network)
    costs = replace(TYPICAL, load_torch=0.001) if engine == "both" else TYPICAL  # some ten steps
    return SwitchingScorer(contents, lambda: torch_scorer(contents), costs=costs)


def one_by_one(network: CharRNN, ids: list[int], marks: list[bool]) -> list[float]:
    """The definition: one symbol after the other, the state zero before those with a mark and before boundaries."""
    nats, state, logits = [], network.zero_state(1), None
    network.native = False
    with torch.no_grad():
        for symbol, mark in zip(ids, marks, strict=True):
            nats.append(0.0 if logits is None else -float(logits.log_softmax(-1)[0, 0, symbol]))
            if mark:
                state = network.zero_state(1)
            logits, state = network(torch.tensor([[symbol]]), state)
    return nats


@pytest.fixture(autouse=True)
def _short_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SEGMENTS", 5), ("MIN_SEGMENT_LENGTH", 12), ("BURN_IN", 6), ("CHUNK", 7), ("GROUPS", 2)):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize("engine", ["torch", "native", "numpy", "both"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@settings(max_examples=12)
@given(data=st.data())
def test_the_pieces_of_a_text_are_as_surprising_as_the_whole(
    cell: Cell, engine: str, boundary: bool, data: st.DataObject
) -> None:
    network = build(cell, boundary=boundary)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    size, often = data.draw(st.sampled_from([1, 2, 30, 130])), data.draw(st.sampled_from([0, 0.02, 0.2, 1]))
    ids = random.integers(1 if often < 0.2 else 0, V, size=size).tolist()  # boundaries are marks, too
    marks = (random.random(size) < often).tolist()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=4)))
    meter = SurprisalMeter(read_by(engine, network))
    parts = [
        meter.read(np.array(ids[begin:end], dtype=np.uint8), np.array(marks[begin:end], dtype=bool))
        for begin, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)
    ]
    assert np.concatenate(parts) == pytest.approx(one_by_one(network, ids, marks), abs=2e-5)


def test_what_was_set_in_one_lane_and_is_needed_in_a_late_one_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that SET turns on for ever, a unit that says that ASK was read just now, and one above that is both."""
    SET, NOISE, ASK, YES, NO = range(5)
    network = CharRNN(ModelConfig(hidden=2), 5)
    tensors = {name: np.zeros_like(array) for name, array in network.tensors().items()}
    i, f, g, o = (slice(2 * gate, 2 * gate + 2) for gate in range(4))
    for layer in range(2):
        tensors[f"layers.{layer}.bias_ih"][o] = 30
    below, above, bias = tensors["layers.0.weight_ih"], tensors["layers.1.weight_ih"], tensors["layers.0.bias_ih"]
    bias[i], bias[f] = (-30, 30), (40, -40)
    below[i, SET], below[g, SET], below[g, ASK] = (60, 0), (30, 0), (0, 30)
    tensors["layers.1.bias_ih"][i], tensors["layers.1.bias_ih"][f] = 30, -30
    above[g][0], tensors["layers.1.bias_ih"][g] = (60, 60), (-70, 0)
    tensors["output.weight"][YES, 0], tensors["output.weight"][NO, 0] = 20, -20
    network.load_tensors(tensors)
    monkeypatch.setattr(module, "SEGMENTS", 16)
    ids = np.full(400, NOISE)
    ids[2] = SET
    ids[300::10], ids[301::10] = ASK, YES
    lanes, scorer = SurprisalMeter(TorchScorer(network)).read(ids), TorchScorer(network)
    monkeypatch.setattr(module, "SEGMENTS", 1)
    one = SurprisalMeter(scorer).read(ids)
    np.testing.assert_allclose(lanes, one, atol=1e-5)
    ids[2] = NOISE
    assert SurprisalMeter(scorer).read(ids)[301::10].min() > 10  # it is needed


def test_after_the_symbol_with_which_it_begins_the_first_one_is_predicted_too() -> None:
    network = build("lstm", boundary=False)
    meter = SurprisalMeter(TorchScorer(network))
    meter.begin(3)
    assert meter.read(np.array([1, 2])) == pytest.approx(one_by_one(network, [3, 1, 2], [False] * 3)[1:], abs=1e-6)


def test_in_bf16_all_threads_compute_in_bf16() -> None:
    ids, network = np.random.default_rng(0).integers(V, size=400), build("lstm", boundary=False)
    network.native = True
    exact = SurprisalMeter(TorchScorer(network), np.inf).read(ids)
    rough = SurprisalMeter(TorchScorer(network, threads=2, precision="bf16"), np.inf).read(ids)
    difference = np.abs(rough - exact).reshape(-1, 20).max(axis=1)
    assert (difference > 1e-5).all()
    assert difference.max() < 0.1


def test_torch_is_loaded_where_there_is_much_to_read_and_not_before() -> None:
    network = build("lstm", boundary=False)
    contents, loaded = Checkpoint(network.config, Vocabulary("abcdef"), network.tensors(), {}), []

    def fast() -> Scorer:
        loaded.append(True)
        return torch_scorer(contents)

    costs = replace(TYPICAL, load_torch=0.02)
    ids = np.zeros(100, dtype=np.int64)
    SurprisalMeter(SwitchingScorer(contents, fast, expected=100, costs=costs)).read(ids)
    assert not loaded
    SurprisalMeter(SwitchingScorer(contents, fast, expected=10**5, costs=costs)).read(ids)
    assert len(loaded) == 1
    meter = SurprisalMeter(SwitchingScorer(contents, fast, costs=costs))
    for _ in range(20):
        meter.read(ids)
    assert len(loaded) == 2
