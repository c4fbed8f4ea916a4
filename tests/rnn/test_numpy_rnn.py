"""The NumPy network computes the same as the torch network."""

import numpy as np
import pytest
import torch

from charrnn.config import ModelConfig
from charrnn.rnn.numpy_rnn import NumPyRNN
from charrnn.rnn.state import State
from charrnn.rnn.torch_rnn import CharRNN

V, LENGTH = 40, 200


def _network(cell: str, hidden: int) -> NumPyRNN:
    config = ModelConfig(cell=cell, layers=2, hidden=hidden)  # type: ignore[arg-type]
    network = CharRNN(config, V)
    network.initialize(seed=0)
    return NumPyRNN(config, network.tensors(), "fp32")


@pytest.mark.parametrize("embedding", [0, 12])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_logits_equal_those_of_the_torch_network(cell: str, layers: int, embedding: int) -> None:
    config = ModelConfig(cell=cell, layers=layers, hidden=48, embedding=embedding)  # type: ignore[arg-type]
    network = CharRNN(config, V)
    network.initialize(seed=layers)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "bias" in name:  # initialized with zero, which would hide a missing bias
                parameter.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(5))
    ids = np.random.default_rng(0).integers(V, size=LENGTH)
    with torch.no_grad():
        expected, expected_state = network(torch.from_numpy(ids[:, None]), network.zero_state(1))
    numpy_rnn = NumPyRNN(config, network.tensors(), "fp32")
    state = numpy_rnn.zero_state(1)
    for t in range(LENGTH):
        logits, state = numpy_rnn.step(ids[[t]], state)
        np.testing.assert_allclose(logits[0], expected[t, 0].numpy(), atol=1e-5)
    for (_, actual), (_, reference) in zip(state.named(), expected_state.named(), strict=True):
        np.testing.assert_allclose(actual, reference.numpy(), atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_batch_equals_its_streams_one_by_one(cell: str) -> None:
    numpy_rnn = _network(cell, hidden=24)
    ids = np.random.default_rng(1).integers(V, size=(30, 5))
    states = [numpy_rnn.zero_state(1) for _ in range(5)]
    together = numpy_rnn.zero_state(5)
    for row in ids:
        logits, together = numpy_rnn.step(row, together)
        for b in range(5):
            alone, states[b] = numpy_rnn.step(row[[b]], states[b])
            np.testing.assert_allclose(logits[b], alone[0], atol=1e-5)
    rows = np.array([3, 0])
    selected, joined = together.select(rows), State.join([states[3], states[0]])
    np.testing.assert_allclose(selected.flatten(), joined.flatten(), atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_step_does_not_change_its_input_state(cell: str) -> None:
    numpy_rnn = _network(cell, hidden=8)
    _, state = numpy_rnn.step(np.array([3]), numpy_rnn.zero_state(1))
    copy = state.map(np.copy)
    first, _ = numpy_rnn.step(np.array([5]), state)
    again, _ = numpy_rnn.step(np.array([5]), state)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(state.flatten(), copy.flatten())


def test_the_given_weights_are_not_changed() -> None:
    config = ModelConfig(hidden=8)
    network = CharRNN(config, V)
    network.initialize(seed=0)
    tensors = network.tensors()
    copy = {name: array.copy() for name, array in tensors.items()}
    numpy_rnn = NumPyRNN(config, tensors)
    numpy_rnn.step(np.array([1]), numpy_rnn.zero_state(1))
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, copy[name])


def test_very_large_activations_raise_no_warning() -> None:
    config = ModelConfig(hidden=8)
    network = CharRNN(config, V)
    network.initialize(seed=0)
    numpy_rnn = NumPyRNN(config, {name: array * 1e4 for name, array in network.tensors().items()})
    logits, _ = numpy_rnn.step(np.array([1]), numpy_rnn.zero_state(1))
    assert np.isfinite(logits).all()
