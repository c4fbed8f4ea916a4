"""Compiled code writes what NumPy does, and nearly what the network says."""

import itertools
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.checkpoint import Checkpoint
from charrnn.config import Cell, ModelConfig, SampleConfig
from charrnn.data import datasets
from charrnn.generation.generate import Request, RequestList, generate, generate_batch
from charrnn.generation.sampler import Sampler, log_softmax
from charrnn.rnn.backend import Decoder, DecoderSelector
from charrnn.rnn.compiled_rnn import CompiledRNN
from charrnn.rnn.decode_inputs import DecodeInputs
from charrnn.rnn.numpy_rnn import NumPyRNN
from charrnn.rnn.quantize import STEPS, quantize_rows, state_levels
from charrnn.rnn.state import State
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.worker_pool import WorkerPool
from charrnn.units import nats_to_bits
from tests.conftest import TEXT, make_checkpoint

V = 37


def network(cell: Cell, layers: int, hidden: int, embedding: int = 0) -> tuple[ModelConfig, dict[str, Any]]:
    config = ModelConfig(cell=cell, layers=layers, hidden=hidden, embedding=embedding)
    made = CharRNN(config, V)
    made.initialize(seed=layers)
    random = np.random.default_rng(5)
    tensors = {
        name: random.normal(size=array.shape).astype(np.float32) * 0.3 if "bias" in name else array
        for name, array in made.tensors().items()
    }
    return config, tensors


@pytest.mark.parametrize("batch", [1, 4, 7])
@pytest.mark.parametrize(("layers", "hidden", "embedding"), [(1, 8, 0), (2, 33, 5), (3, 64, 0)])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_it_steps_as_numpy_does_to_the_last_bit(
    cell: Cell, layers: int, hidden: int, embedding: int, batch: int
) -> None:
    made = network(cell, layers, hidden, embedding)
    ours, theirs = CompiledRNN(*made), NumPyRNN(*made)
    state, expected_state = ours.zero_state(batch), theirs.zero_state(batch)
    for ids in np.random.default_rng(0).integers(V, size=(40, batch)):
        logits, state = ours.step(ids, state)
        expected, expected_state = theirs.step(ids, expected_state)
        np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(state.flatten(), expected_state.flatten())


@pytest.mark.parametrize("cores", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 3, 7, 8, 17, 256])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_it_does_so_for_any_number_of_streams_and_cores(
    cell: Cell, batch: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = network(cell, 2, 40)
    ours, theirs = CompiledRNN(*made), NumPyRNN(*made)
    monkeypatch.setattr(ours, "_workers", WorkerPool(cores))
    state, expected_state = ours.zero_state(batch), theirs.zero_state(batch)
    for ids in np.random.default_rng(batch).integers(V, size=(5, batch)):
        logits, state = ours.step(ids, state)
        expected, expected_state = theirs.step(ids, expected_state)
        np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(state.flatten(), expected_state.flatten())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("hidden", [512, 517, 700])
def test_no_sum_of_the_largest_weights_and_states_is_too_large(hidden: int, sign: int) -> None:
    config, tensors = network("rnn", 2, hidden)
    largest = {name: np.full_like(array, 0.01) if "weight" in name else array for name, array in tensors.items()}
    ones = State(tuple((np.full((5, hidden), sign, dtype=np.float32),) for _ in range(2)))
    ids = np.arange(5)
    (logits, state), (expected, expected_state) = (
        kind(config, largest).step(ids, ones) for kind in (CompiledRNN, NumPyRNN)
    )
    np.testing.assert_array_equal(state.flatten(), expected_state.flatten())
    np.testing.assert_array_equal(logits, expected)
    assert (np.sign(state.flatten()) == sign).all()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_stream_is_the_same_to_the_last_bit_whatever_is_beside_it(cell: Cell) -> None:
    ours = CompiledRNN(*network(cell, 2, 40))
    ids = np.random.default_rng(1).integers(V, size=(30, 11))
    together, alone = ours.zero_state(11), [ours.zero_state(1) for _ in range(11)]
    for row in ids:
        logits, together = ours.step(row, together)
        for b in range(11):
            its, alone[b] = ours.step(row[[b]], alone[b])
            np.testing.assert_array_equal(logits[b], its[0])


def test_many_steps_at_once_on_many_cores_are_as_many_one_by_one_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = CompiledRNN(*network("lstm", 2, 40))
    random = np.random.default_rng(2)
    given = random.integers(-V, V, size=(20, 13))
    uniforms, temperatures = random.random((20, 13)), random.random((20, 13)) + 0.5
    never, first = np.zeros(V, dtype=bool), np.arange(13)
    monkeypatch.setattr(ours, "_workers", WorkerPool(3))
    decode_inputs = DecodeInputs(given, uniforms, temperatures, never)
    chosen, nats, after = ours.run(first, ours.zero_state(13), decode_inputs, measure=True)
    monkeypatch.setattr(ours, "_workers", WorkerPool(1))
    ids, state = first, ours.zero_state(13)
    for t in range(20):
        step = DecodeInputs(given[[t]], uniforms[[t]], temperatures[[t]], never)
        its, surprise, state = ours.run(ids, state, step, measure=True)
        np.testing.assert_array_equal(its[0], chosen[t])
        np.testing.assert_array_equal(surprise[0], nats[t])
        ids = its[0]
    np.testing.assert_array_equal(state.flatten(), after.flatten())
    np.testing.assert_array_equal(chosen[given >= 0], given[given >= 0])


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.4}, {"temperature": 0}, {"allow": "5-9"}, {"temperature": 30}]
)
def test_it_chooses_as_the_sampler_does(settings: dict[str, Any]) -> None:
    number, made = 5000, network("gru", 1, 24)
    ours, characters = CompiledRNN(*made), "".join(map(chr, range(33, 33 + V)))
    sampler = Sampler(SampleConfig(**settings), characters)
    uniforms = np.random.default_rng(3).random((1, number))
    uniforms[0, :2] = 0, np.nextafter(1, 0)
    temperatures = sampler.temperatures(np.zeros((1, number), dtype=np.intp))
    ids, state = np.arange(number) % V, ours.zero_state(number)
    decode_inputs = DecodeInputs(np.full((1, number), -1), uniforms, temperatures, sampler.forbidden_ids)
    chosen, nats, _ = ours.run(ids, state, decode_inputs, measure=True)
    logits, _ = ours.step(ids, state)
    expected = sampler.sample(logits, uniforms[0], temperatures[0], np.empty((number, 0), dtype=np.intp))
    np.testing.assert_array_equal(chosen[0], expected)
    surprise = -np.take_along_axis(log_softmax(logits), expected[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(nats[0], surprise, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_it_writes_what_numpy_writes(cell: Cell) -> None:
    made = make_checkpoint(cell=cell, layers=2)
    config = SampleConfig(length=300, seed=1, temperature=0.9)

    def written(by: Decoder) -> tuple[str, list[str]]:
        requests = RequestList(Request(number, "fox" * (number % 3)) for number in range(9))
        samples = generate_batch(by, made.vocabulary, config, requests, width=5)
        return "".join(piece.text for piece in generate(by, made.vocabulary, config, "fox")), [
            sample.text for sample in samples
        ]

    assert written(CompiledRNN(made.model_config, made.tensors)) == written(NumPyRNN(made.model_config, made.tensors))


@pytest.mark.parametrize("settings", [{"top_k": 5}, {"repeat_penalty": 1.3}, {"top_p": 0.9, "min_p": 0.01}])
def test_with_filters_it_writes_what_numpy_writes(tiny: Checkpoint, settings: dict[str, Any]) -> None:
    config = SampleConfig(length=200, seed=1, **settings)
    one, other = (
        "".join(
            piece.text for piece in generate(kind(tiny.model_config, tiny.tensors), tiny.vocabulary, config, "fox")
        )
        for kind in (CompiledRNN, NumPyRNN)
    )
    assert one == other


def test_rounding_costs_less_than_it_promises() -> None:
    made = datasets.find("python-docs")
    assert isinstance(made, datasets.Made)
    text = made.make()[:30_000]
    settings = {"precision": "fp32", "engine": "native", "threads": 1, "validation": 0.0}
    model = charrnn.train(text, steps=150, hidden=48, layers=1, seed=1, **settings)
    contents, held_out = model.checkpoint, text[-3000:]
    ids = contents.vocabulary.encode(held_out).astype(np.intp)

    def cost(precision: Any) -> float:
        numpy_rnn, nats = NumPyRNN(contents.model_config, contents.tensors, precision), 0.0
        state = numpy_rnn.zero_state(1)
        for now, following in itertools.pairwise(ids):
            logits, state = numpy_rnn.step(np.array([now]), state)
            nats -= log_softmax(logits)[0, following]
        return nats_to_bits(nats / (len(ids) - 1))

    exact, small = cost("fp32"), cost("int8")
    assert exact != small
    assert abs(exact - small) < 0.005


def test_a_row_is_rounded_by_half_a_step_at_most() -> None:
    weights = np.random.default_rng(0).normal(size=(20, 50)).astype(np.float32) * np.geomspace(1e-3, 1e3, 20)[:, None]
    whole, scales = quantize_rows(weights.astype(np.float32))
    assert np.abs(whole).max(axis=1).tolist() == [STEPS] * 20
    assert (np.abs(whole * scales[:, None] - weights) <= 0.5001 * scales[:, None]).all()
    assert (quantize_rows(np.zeros((2, 3), dtype=np.float32))[0] == 0).all()


@pytest.mark.parametrize("size", [1, 512, 1024, 100_000])
def test_no_sum_is_ever_too_large(size: int) -> None:
    assert 1 < float(state_levels(size)) * STEPS * size < 2**31


def test_long_samples_are_compiled_and_short_ones_not() -> None:
    made = make_checkpoint()
    engines = DecoderSelector(made)
    assert isinstance(engines.choose("int8", 200), NumPyRNN)
    assert isinstance(engines.choose("fp32", 1e9), NumPyRNN)
    assert isinstance(engines.choose("int8", 1e9), CompiledRNN)
    assert isinstance(engines.choose("int8", 200), CompiledRNN)  # it is there by now


def test_where_nothing_can_be_compiled_numpy_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "charrnn.rnn.compiled_rnn", None)
    made = make_checkpoint()
    assert isinstance(DecoderSelector(made).choose("int8", 1e9), NumPyRNN)


def test_logits_that_are_no_numbers_choose_a_character_that_there_is() -> None:
    made = make_checkpoint(text=TEXT + "€")
    assert len(made.vocabulary) % 16  # or there would be no row beyond the last
    broken = {**made.tensors, "output.bias": np.full_like(made.tensors["output.bias"], np.nan)}
    config = SampleConfig(length=20, seed=1)
    text = "".join(
        piece.text for piece in generate(CompiledRNN(made.model_config, broken), made.vocabulary, config, "fox")
    )
    assert set(text) <= set(made.vocabulary.symbols)
    assert len(text) == 20


@pytest.mark.parametrize("ids", [[-1, 0], [0, V]])
def test_an_id_beyond_the_vocabulary_is_an_error_and_no_crash(ids: list[int]) -> None:
    ours = CompiledRNN(*network("rnn", 1, 8))
    with pytest.raises(IndexError):
        ours.step(np.array(ids), ours.zero_state(2))
    with pytest.raises(IndexError):
        ours.run(np.zeros(1, dtype=np.intp), ours.zero_state(1), DecodeInputs.forced(np.array([[V]])), measure=False)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_state_beyond_its_bounds_is_cut_alike_by_both(cell: Cell) -> None:
    made = network(cell, 2, 8)
    ours, theirs = CompiledRNN(*made), NumPyRNN(*made)
    wild = ours.zero_state(3).map(lambda part: np.full_like(part, 1e30))
    for kind in (ours, theirs):
        logits, after = kind.step(np.arange(3), wild)
        assert np.isfinite(logits).all()
        np.testing.assert_array_equal(logits, ours.step(np.arange(3), wild)[0])
        np.testing.assert_array_equal(after.flatten(), ours.step(np.arange(3), wild)[1].flatten())


def test_of_characters_that_are_equally_likely_greedy_takes_the_first() -> None:
    config, tensors = network("rnn", 1, 8)
    equal = {name: np.zeros_like(array) if name.startswith("output") else array for name, array in tensors.items()}
    ours, forbidden = CompiledRNN(config, equal), np.zeros(V, dtype=bool)
    for first in (0, 2):
        forbidden[:first] = True
        decode_inputs = DecodeInputs(np.full((1, 5), -1), np.full((1, 5), 0.5), np.zeros((1, 5)), forbidden)
        chosen, _, _ = ours.run(np.arange(5), ours.zero_state(5), decode_inputs, measure=False)
        assert chosen.tolist() == [[first] * 5]
