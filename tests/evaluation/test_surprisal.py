"""The surprisal of each symbol equals that in a single stream, with all ways of reading a text."""

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


def make_scorer(engine: str, network: CharRNN) -> Scorer:
    symbols = "abcdef" if network.boundary_id is None else BOUNDARY + "abcde"
    checkpoint = Checkpoint(network.config, Vocabulary(symbols), network.tensors())
    network.native = engine == "native"
    if engine in ("torch", "native"):
        return TorchScorer(network)
    costs = replace(TYPICAL, load_torch=0.001) if engine == "both" else TYPICAL  # about ten steps
    return SwitchingScorer(checkpoint, lambda: torch_scorer(checkpoint), costs=costs)


def reference_nats(network: CharRNN, ids: list[int], resets: list[bool]) -> list[float]:
    """Return the nats by the definition: symbol by symbol, with resets where ``resets`` is true and at boundaries."""
    nats, state, logits = [], network.zero_state(1), None
    network.native = False
    with torch.no_grad():
        for symbol, reset in zip(ids, resets, strict=True):
            nats.append(0.0 if logits is None else -float(logits.log_softmax(-1)[0, 0, symbol]))
            if reset:
                state = network.zero_state(1)
            logits, state = network(torch.tensor([[symbol]]), state)
    return nats


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SEGMENTS", 5), ("MIN_SEGMENT_LENGTH", 12), ("BURN_IN", 6), ("CHUNK", 7), ("GROUPS", 2)):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize("engine", ["torch", "native", "numpy", "both"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@settings(max_examples=12)
@given(data=st.data())
def test_surprisals_do_not_depend_on_segments_and_parts(
    cell: Cell, engine: str, boundary: bool, data: st.DataObject
) -> None:
    network = build(cell, boundary=boundary)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    size, reset_rate = data.draw(st.sampled_from([1, 2, 30, 130])), data.draw(st.sampled_from([0, 0.02, 0.2, 1]))
    ids = random.integers(1 if reset_rate < 0.2 else 0, V, size=size).tolist()  # boundaries are resets too
    resets = (random.random(size) < reset_rate).tolist()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=4)))
    meter = SurprisalMeter(make_scorer(engine, network))
    parts = [
        meter.read(np.array(ids[start:end], dtype=np.uint8), np.array(resets[start:end], dtype=bool))
        for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)
    ]
    assert np.concatenate(parts) == pytest.approx(reference_nats(network, ids, resets), abs=2e-5)


def test_a_permanent_memory_reaches_later_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """SET turns one unit on permanently, ASK turns another on for one step, and a unit above needs both."""
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
    segmented, scorer = SurprisalMeter(TorchScorer(network)).read(ids), TorchScorer(network)
    monkeypatch.setattr(module, "SEGMENTS", 1)
    expected = SurprisalMeter(scorer).read(ids)
    np.testing.assert_allclose(segmented, expected, atol=1e-5)
    ids[2] = NOISE
    assert SurprisalMeter(scorer).read(ids)[301::10].min() > 10  # the prediction needs SET


def test_the_first_symbol_is_predicted_after_a_start_symbol() -> None:
    network = build("lstm", boundary=False)
    meter = SurprisalMeter(TorchScorer(network))
    meter.begin(3)
    assert meter.read(np.array([1, 2])) == pytest.approx(
        reference_nats(network, [3, 1, 2], [False] * 3)[1:], abs=1e-6
    )


def test_all_threads_compute_in_bf16() -> None:
    ids, network = np.random.default_rng(0).integers(V, size=400), build("lstm", boundary=False)
    network.native = True
    fp32 = SurprisalMeter(TorchScorer(network), np.inf).read(ids)
    bf16 = SurprisalMeter(TorchScorer(network, threads=2, precision="bf16"), np.inf).read(ids)
    difference = np.abs(bf16 - fp32).reshape(-1, 20).max(axis=1)
    assert (difference > 1e-5).all()
    assert difference.max() < 0.1


def test_torch_is_loaded_only_for_long_texts() -> None:
    network = build("lstm", boundary=False)
    checkpoint, loaded = Checkpoint(network.config, Vocabulary("abcdef"), network.tensors()), []

    def fast() -> Scorer:
        loaded.append(True)
        return torch_scorer(checkpoint)

    costs = replace(TYPICAL, load_torch=0.02)
    ids = np.zeros(100, dtype=np.int64)
    SurprisalMeter(SwitchingScorer(checkpoint, fast, expected=100, costs=costs)).read(ids)
    assert not loaded
    SurprisalMeter(SwitchingScorer(checkpoint, fast, expected=10**5, costs=costs)).read(ids)
    assert len(loaded) == 1
    meter = SurprisalMeter(SwitchingScorer(checkpoint, fast, costs=costs))
    for _ in range(20):
        meter.read(ids)
    assert len(loaded) == 2
