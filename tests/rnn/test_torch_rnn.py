"""The network: properties that hold for every cell, depth and kind of input."""

import math

import numpy as np
import pytest
import torch

from charrnn.config import ModelConfig
from charrnn.rnn.state import State
from charrnn.rnn.torch_rnn import CharRNN, detach

V, T, B = 11, 12, 3
SHAPES = [
    ModelConfig(cell=cell, layers=layers, hidden=16, embedding=embedding)
    for cell in ("lstm", "gru", "rnn")
    for layers in (1, 2, 3)
    for embedding in (0, 5)
]


def build(config: ModelConfig, seed: int = 0) -> CharRNN:
    network = CharRNN(config, V)
    network.initialize(seed)
    return network


def random_ids(time: int = T, batch: int = B) -> torch.Tensor:
    return torch.randint(V, (time, batch), generator=torch.Generator().manual_seed(1))


def assert_same(one: State, other: State) -> None:
    for (_, left), (_, right) in zip(one.named(), other.named(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_logits_and_states_have_the_documented_shapes(config: ModelConfig) -> None:
    network = build(config)
    logits, state = network(random_ids(), network.zero_state(B))
    assert logits.shape == (T, B, V)
    assert len(state.layers) == config.layers
    assert {part.shape for layer in state.layers for part in layer} == {(B, config.hidden)}
    assert {len(layer) for layer in state.layers} == {2 if config.cell == "lstm" else 1}


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_all_steps_at_once_equal_single_steps(config: ModelConfig) -> None:
    network, ids = build(config), random_ids()
    whole, after = network(ids, network.zero_state(B))
    state, single = network.zero_state(B), []
    for t in range(T):
        logits, state = network(ids[t : t + 1], state)
        single.append(logits)
    torch.testing.assert_close(torch.cat(single), whole, atol=1e-5, rtol=1e-4)
    assert_same(state, after)


@pytest.mark.parametrize("config", SHAPES[::4], ids=str)
def test_a_batch_equals_its_streams_one_by_one(config: ModelConfig) -> None:
    network, ids = build(config), random_ids()
    together, _ = network(ids, network.zero_state(B))
    for stream in range(B):
        alone, _ = network(ids[:, stream : stream + 1], network.zero_state(1))
        torch.testing.assert_close(alone[:, 0], together[:, stream], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_tensors_have_the_configured_names_and_shapes(config: ModelConfig) -> None:
    tensors = build(config).tensors()
    assert {name: array.shape for name, array in tensors.items()} == config.tensor_shapes(V)
    assert sum(array.size for array in tensors.values()) == config.num_parameters(V)


@pytest.mark.parametrize("config", SHAPES[::4], ids=str)
def test_loaded_tensors_compute_the_same(config: ModelConfig) -> None:
    one, other = build(config, seed=1), build(config, seed=2)
    other.load_tensors(one.tensors())
    assert torch.equal(one(random_ids(), one.zero_state(B))[0], other(random_ids(), one.zero_state(B))[0])


def test_tensors_are_a_copy() -> None:
    network = build(SHAPES[0])
    before = network.tensors()["output.bias"].copy()
    copied = network.tensors()
    network.output.bias.data += 1
    np.testing.assert_array_equal(copied["output.bias"], before)


def test_the_same_seed_draws_the_same_weights() -> None:
    one, same, other = (build(SHAPES[2], seed).tensors()["layers.0.weight_hh"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_forget_gates_start_open_and_other_biases_at_zero() -> None:
    tensors = build(ModelConfig(cell="lstm", layers=2, hidden=16)).tensors()
    for layer in (0, 1):
        bias = tensors[f"layers.{layer}.bias_ih"] + tensors[f"layers.{layer}.bias_hh"]
        np.testing.assert_array_equal(bias, [0] * 16 + [1] * 16 + [0] * 32)  # i, f, g, o


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_cells_follow_the_documented_equations(cell: str) -> None:
    config = ModelConfig(cell=cell, layers=1, hidden=4)  # type: ignore[arg-type]
    network = build(config)
    for bias in (parameter for name, parameter in network.named_parameters() if "bias" in name):
        torch.nn.init.normal_(bias, generator=torch.Generator().manual_seed(3))
    w = {name: array.astype(float) for name, array in network.tensors().items()}
    h, c = np.linspace(-0.5, 0.5, 4), np.linspace(1, -1, 4)
    x = np.eye(V)[7]
    inputs = np.split(w["layers.0.weight_ih"] @ x + w["layers.0.bias_ih"], len(w["layers.0.bias_ih"]) // 4)
    recurrent = np.split(w["layers.0.weight_hh"] @ h + w["layers.0.bias_hh"], len(inputs))

    def s(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    if cell == "lstm":
        i, f, g, o = (a + b for a, b in zip(inputs, recurrent, strict=True))
        expected = s(o) * np.tanh(s(f) * c + s(i) * np.tanh(g))
    elif cell == "gru":
        r, u = (s(a + b) for a, b in zip(inputs[:2], recurrent[:2], strict=True))
        expected = (1 - u) * np.tanh(inputs[2] + r * recurrent[2]) + u * h
    else:
        expected = np.tanh(inputs[0] + recurrent[0])
    state = tuple(torch.tensor(part[None], dtype=torch.float32) for part in ((h, c) if cell == "lstm" else (h,)))
    _, after = network(torch.tensor([[7]]), State((state,)))
    np.testing.assert_allclose(after.layers[0][0][0].detach().numpy(), expected, atol=1e-6)


def test_dropout_zeroes_the_given_share_and_keeps_the_mean() -> None:
    from charrnn.rnn.torch_rnn import _dropout

    dropped = _dropout(torch.ones(3, 400, 400), 0.3, torch.Generator().manual_seed(0))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)


def test_dropout_zeroes_the_same_units_at_all_steps_of_a_chunk() -> None:
    from charrnn.rnn.torch_rnn import _dropout

    generator = torch.Generator().manual_seed(0)
    one, other = (_dropout(torch.ones(5, B, 400), 0.5, generator) for _ in range(2))
    assert torch.equal(one, one[:1].expand_as(one))
    assert not torch.equal(one[0, 0], one[0, 1])
    assert not torch.equal(one, other)


def test_dropout_applies_only_with_a_generator() -> None:
    network = build(ModelConfig(hidden=16, dropout=0.5))
    without_dropout = [network(random_ids(), network.zero_state(B))[0] for _ in range(2)]
    with_dropout = network(random_ids(), network.zero_state(B), torch.Generator().manual_seed(0))[0]
    assert torch.equal(*without_dropout)
    assert not torch.equal(without_dropout[0], with_dropout)


def test_dropout_repeats_with_its_generator() -> None:
    network = build(ModelConfig(hidden=16, dropout=0.5))
    one, same = (network(random_ids(), network.zero_state(B), torch.Generator().manual_seed(7))[0] for _ in range(2))
    assert torch.equal(one, same)


def test_gradients_end_at_a_detached_state() -> None:
    network = build(SHAPES[0])
    _, state = network(random_ids(), network.zero_state(B))
    assert all(part.requires_grad for _, part in state.named())
    assert not any(part.requires_grad for _, part in detach(state).named())
    assert_same(detach(state), state)


def test_the_input_state_is_not_changed() -> None:
    network = build(SHAPES[0])
    state = network.zero_state(B)
    network(random_ids(), state)
    assert all(float(part.abs().sum()) == 0 for _, part in state.named())


def test_an_untrained_network_predicts_about_uniformly() -> None:
    network = build(ModelConfig(hidden=64))
    logits, _ = network(random_ids(60, 8), network.zero_state(8))
    targets = random_ids(60, 8).flatten()
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets).item()
    assert nats == pytest.approx(math.log(V), abs=0.6)
