"""Compiled code generates the same as NumPy, and int8 costs little."""

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
from charrnn.rnn.costs import TYPICAL
from charrnn.rnn.decode_inputs import DecodeInputs
from charrnn.rnn.numpy_rnn import NumPyRNN
from charrnn.rnn.quantize import MAX_INT8, quantize_rows, state_levels
from charrnn.rnn.state import State
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.worker_pool import WorkerPool
from charrnn.units import nats_to_bits
from tests.conftest import TEXT, make_checkpoint

V = 37


def make_weights(cell: Cell, layers: int, hidden: int, embedding: int = 0) -> tuple[ModelConfig, dict[str, Any]]:
    config = ModelConfig(cell=cell, layers=layers, hidden=hidden, embedding=embedding)
    network = CharRNN(config, V)
    network.initialize(seed=layers)
    random = np.random.default_rng(5)
    tensors = {
        name: random.normal(size=array.shape).astype(np.float32) * 0.3 if "bias" in name else array
        for name, array in network.tensors().items()
    }
    return config, tensors


@pytest.mark.parametrize("batch", [1, 4, 7])
@pytest.mark.parametrize(("layers", "hidden", "embedding"), [(1, 8, 0), (2, 33, 5), (3, 64, 0)])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_step_equals_numpy_bit_for_bit(cell: Cell, layers: int, hidden: int, embedding: int, batch: int) -> None:
    weights = make_weights(cell, layers, hidden, embedding)
    compiled, numpy_rnn = CompiledRNN(*weights), NumPyRNN(*weights)
    state, expected_state = compiled.zero_state(batch), numpy_rnn.zero_state(batch)
    for ids in np.random.default_rng(0).integers(V, size=(40, batch)):
        logits, state = compiled.step(ids, state)
        expected, expected_state = numpy_rnn.step(ids, expected_state)
        np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(state.flatten(), expected_state.flatten())


@pytest.mark.parametrize("cores", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 3, 7, 8, 17, 256])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_step_equals_numpy_with_any_number_of_streams_and_cores(
    cell: Cell, batch: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = make_weights(cell, 2, 40)
    compiled, numpy_rnn = CompiledRNN(*weights), NumPyRNN(*weights)
    monkeypatch.setattr(compiled, "_workers", WorkerPool(cores))
    state, expected_state = compiled.zero_state(batch), numpy_rnn.zero_state(batch)
    for ids in np.random.default_rng(batch).integers(V, size=(5, batch)):
        logits, state = compiled.step(ids, state)
        expected, expected_state = numpy_rnn.step(ids, expected_state)
        np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(state.flatten(), expected_state.flatten())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("hidden", [512, 517, 700])
def test_sums_of_the_largest_weights_and_states_do_not_overflow(hidden: int, sign: int) -> None:
    config, tensors = make_weights("rnn", 2, hidden)
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
def test_a_stream_does_not_depend_on_other_streams(cell: Cell) -> None:
    compiled = CompiledRNN(*make_weights(cell, 2, 40))
    ids = np.random.default_rng(1).integers(V, size=(30, 11))
    together, alone = compiled.zero_state(11), [compiled.zero_state(1) for _ in range(11)]
    for row in ids:
        logits, together = compiled.step(row, together)
        for b in range(11):
            alone_logits, alone[b] = compiled.step(row[[b]], alone[b])
            np.testing.assert_array_equal(logits[b], alone_logits[0])


def test_many_steps_at_once_equal_single_steps_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = CompiledRNN(*make_weights("lstm", 2, 40))
    random = np.random.default_rng(2)
    forced = random.integers(-V, V, size=(20, 13))
    uniforms, temperatures = random.random((20, 13)), random.random((20, 13)) + 0.5
    forbidden_ids, first = np.zeros(V, dtype=bool), np.arange(13)
    monkeypatch.setattr(compiled, "_workers", WorkerPool(3))
    decode_inputs = DecodeInputs(forced, uniforms, temperatures, forbidden_ids)
    ids_by_step, nats, last_state = compiled.run(first, compiled.zero_state(13), decode_inputs, measure=True)
    monkeypatch.setattr(compiled, "_workers", WorkerPool(1))
    ids, state = first, compiled.zero_state(13)
    for t in range(20):
        step = DecodeInputs(forced[[t]], uniforms[[t]], temperatures[[t]], forbidden_ids)
        step_ids, surprise, state = compiled.run(ids, state, step, measure=True)
        np.testing.assert_array_equal(step_ids[0], ids_by_step[t])
        np.testing.assert_array_equal(surprise[0], nats[t])
        ids = step_ids[0]
    np.testing.assert_array_equal(state.flatten(), last_state.flatten())
    np.testing.assert_array_equal(ids_by_step[forced >= 0], forced[forced >= 0])


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.4}, {"temperature": 0}, {"allow": "5-9"}, {"temperature": 30}]
)
def test_it_samples_as_the_sampler_does(settings: dict[str, Any]) -> None:
    number, weights = 5000, make_weights("gru", 1, 24)
    compiled, characters = CompiledRNN(*weights), "".join(map(chr, range(33, 33 + V)))
    sampler = Sampler(SampleConfig(**settings), characters)
    uniforms = np.random.default_rng(3).random((1, number))
    uniforms[0, :2] = 0, np.nextafter(1, 0)
    temperatures = sampler.temperatures(np.zeros((1, number), dtype=np.intp))
    ids, state = np.arange(number) % V, compiled.zero_state(number)
    decode_inputs = DecodeInputs(np.full((1, number), -1), uniforms, temperatures, sampler.forbidden_ids)
    ids_by_step, nats, _ = compiled.run(ids, state, decode_inputs, measure=True)
    logits, _ = compiled.step(ids, state)
    expected = sampler.sample(logits, uniforms[0], temperatures[0], np.empty((number, 0), dtype=np.intp))
    np.testing.assert_array_equal(ids_by_step[0], expected)
    surprise = -np.take_along_axis(log_softmax(logits), expected[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(nats[0], surprise, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_it_generates_the_same_text_as_numpy(cell: Cell) -> None:
    model = make_checkpoint(cell=cell, layers=2)
    config = SampleConfig(length=300, seed=1, temperature=0.9)

    def generate_texts(decoder: Decoder) -> tuple[str, list[str]]:
        requests = RequestList(Request(number, "fox" * (number % 3)) for number in range(9))
        samples = generate_batch(decoder, model.vocabulary, config, requests, width=5)
        return "".join(piece.text for piece in generate(decoder, model.vocabulary, config, "fox")), [
            sample.text for sample in samples
        ]

    assert generate_texts(CompiledRNN(model.model_config, model.tensors)) == generate_texts(
        NumPyRNN(model.model_config, model.tensors)
    )


@pytest.mark.parametrize("settings", [{"top_k": 5}, {"repeat_penalty": 1.3}, {"top_p": 0.9, "min_p": 0.01}])
def test_it_generates_the_same_text_as_numpy_with_filters(tiny: Checkpoint, settings: dict[str, Any]) -> None:
    config = SampleConfig(length=200, seed=1, **settings)
    compiled_text, numpy_text = (
        "".join(
            piece.text for piece in generate(kind(tiny.model_config, tiny.tensors), tiny.vocabulary, config, "fox")
        )
        for kind in (CompiledRNN, NumPyRNN)
    )
    assert compiled_text == numpy_text


def test_int8_costs_less_than_documented() -> None:
    dataset = datasets.find("python-docs")
    assert isinstance(dataset, datasets.Generated)
    text = dataset.generate()[:30_000]
    settings = {"precision": "fp32", "engine": "native", "threads": 1, "validation": 0.0}
    model = charrnn.train(text, steps=150, hidden=48, layers=1, seed=1, **settings)
    checkpoint, held_out = model.checkpoint, text[-3000:]
    ids = checkpoint.vocabulary.encode(held_out).astype(np.intp)

    def cost(precision: Any) -> float:
        numpy_rnn, nats = NumPyRNN(checkpoint.model_config, checkpoint.tensors, precision), 0.0
        state = numpy_rnn.zero_state(1)
        for index, next_index in itertools.pairwise(ids):
            logits, state = numpy_rnn.step(np.array([index]), state)
            nats -= log_softmax(logits)[0, next_index]
        return nats_to_bits(nats / (len(ids) - 1))

    fp32_bits, int8_bits = cost("fp32"), cost("int8")
    assert fp32_bits != int8_bits
    assert abs(fp32_bits - int8_bits) < 0.005


def test_quantization_rounds_by_half_a_step_at_most() -> None:
    weights = np.random.default_rng(0).normal(size=(20, 50)).astype(np.float32) * np.geomspace(1e-3, 1e3, 20)[:, None]
    quantized, scales = quantize_rows(weights.astype(np.float32))
    assert np.abs(quantized).max(axis=1).tolist() == [MAX_INT8] * 20
    assert (np.abs(quantized * scales[:, None] - weights) <= 0.5001 * scales[:, None]).all()
    assert (quantize_rows(np.zeros((2, 3), dtype=np.float32))[0] == 0).all()


@pytest.mark.parametrize("size", [1, 512, 1024, 100_000])
def test_quantized_sums_fit_into_int32(size: int) -> None:
    assert 1 < float(state_levels(size)) * MAX_INT8 * size < 2**31


def test_only_long_samples_use_compiled_code() -> None:
    selector = DecoderSelector(make_checkpoint(), costs=TYPICAL)
    assert isinstance(selector.choose("int8", 200), NumPyRNN)
    assert isinstance(selector.choose("fp32", 1e9), NumPyRNN)
    assert isinstance(selector.choose("int8", 1e9), CompiledRNN)
    assert isinstance(selector.choose("int8", 200), CompiledRNN)  # it is loaded by now


def test_numpy_is_used_if_nothing_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "charrnn.rnn.compiled_rnn", None)
    model = make_checkpoint()
    assert isinstance(DecoderSelector(model).choose("int8", 1e9), NumPyRNN)


def test_nan_logits_select_an_existing_character() -> None:
    model = make_checkpoint(text=TEXT + "€")
    assert len(model.vocabulary) % 16  # so that the padded output has rows beyond the last
    broken = {**model.tensors, "output.bias": np.full_like(model.tensors["output.bias"], np.nan)}
    config = SampleConfig(length=20, seed=1)
    text = "".join(
        piece.text for piece in generate(CompiledRNN(model.model_config, broken), model.vocabulary, config, "fox")
    )
    assert set(text) <= set(model.vocabulary.symbols)
    assert len(text) == 20


@pytest.mark.parametrize("ids", [[-1, 0], [0, V]])
def test_an_id_outside_the_vocabulary_is_an_index_error(ids: list[int]) -> None:
    compiled = CompiledRNN(*make_weights("rnn", 1, 8))
    with pytest.raises(IndexError):
        compiled.step(np.array(ids), compiled.zero_state(2))
    with pytest.raises(IndexError):
        compiled.run(
            np.zeros(1, dtype=np.intp), compiled.zero_state(1), DecodeInputs.forced(np.array([[V]])), measure=False
        )


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_state_out_of_bounds_is_clipped_as_in_numpy(cell: Cell) -> None:
    weights = make_weights(cell, 2, 8)
    compiled, numpy_rnn = CompiledRNN(*weights), NumPyRNN(*weights)
    out_of_bounds = compiled.zero_state(3).map(lambda part: np.full_like(part, 1e30))
    for kind in (compiled, numpy_rnn):
        logits, last_state = kind.step(np.arange(3), out_of_bounds)
        assert np.isfinite(logits).all()
        np.testing.assert_array_equal(logits, compiled.step(np.arange(3), out_of_bounds)[0])
        np.testing.assert_array_equal(last_state.flatten(), compiled.step(np.arange(3), out_of_bounds)[1].flatten())


def test_greedy_sampling_takes_the_first_of_equally_likely_characters() -> None:
    config, tensors = make_weights("rnn", 1, 8)
    equal = {name: np.zeros_like(array) if name.startswith("output") else array for name, array in tensors.items()}
    compiled, forbidden = CompiledRNN(config, equal), np.zeros(V, dtype=bool)
    for first in (0, 2):
        forbidden[:first] = True
        decode_inputs = DecodeInputs(np.full((1, 5), -1), np.full((1, 5), 0.5), np.zeros((1, 5)), forbidden)
        ids_by_step, _, _ = compiled.run(np.arange(5), compiled.zero_state(5), decode_inputs, measure=False)
        assert ids_by_step.tolist() == [[first] * 5]
