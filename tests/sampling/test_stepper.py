"""The NumPy network is the torch network."""

import numpy as np
import pytest
import torch

from charrnn.config import ModelConfig
from charrnn.model.network import CharRNN
from charrnn.sampling.stepper import Stepper

V, CHARACTERS = 40, 200


@pytest.mark.parametrize("embedding", [0, 12])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_logits_are_those_of_the_torch_network(cell: str, layers: int, embedding: int) -> None:
    config = ModelConfig(cell=cell, layers=layers, hidden=48, embedding=embedding)  # type: ignore[arg-type]
    network = CharRNN(config, V)
    network.initialize(seed=layers)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "bias" in name:  # zero at first, and a bias that is left out must not go unseen
                parameter.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(5))
    ids = np.random.default_rng(0).integers(V, size=CHARACTERS)
    with torch.no_grad():
        expected, after = network(torch.from_numpy(ids[:, None]), network.zero_state(1))
    stepper = Stepper(config, network.tensors())
    state = stepper.zero_state()
    for t, index in enumerate(ids.tolist()):
        logits, state = stepper.step(index, state)
        np.testing.assert_allclose(logits, expected[t, 0].numpy(), atol=1e-5)
    for ours, theirs in zip(state, after, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_step_leaves_the_state_it_was_given(cell: str) -> None:
    config = ModelConfig(cell=cell, layers=2, hidden=8)  # type: ignore[arg-type]
    network = CharRNN(config, V)
    network.initialize(seed=0)
    stepper = Stepper(config, network.tensors())
    _, state = stepper.step(3, stepper.zero_state())
    copy = [[part.copy() for part in layer] for layer in state]
    first, _ = stepper.step(5, state)
    again, _ = stepper.step(5, state)
    np.testing.assert_array_equal(first, again)
    for layer, kept in zip(state, copy, strict=True):
        for part, expected in zip(layer, kept, strict=True):
            np.testing.assert_array_equal(part, expected)


def test_the_weights_it_was_built_from_stay_as_they_were() -> None:
    config = ModelConfig(hidden=8)
    network = CharRNN(config, V)
    network.initialize(seed=0)
    tensors = network.tensors()
    copy = {name: array.copy() for name, array in tensors.items()}
    stepper = Stepper(config, tensors)
    stepper.step(1, stepper.zero_state())
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, copy[name])


def test_very_large_activations_warn_about_nothing() -> None:
    config = ModelConfig(hidden=8)
    network = CharRNN(config, V)
    network.initialize(seed=0)
    stepper = Stepper(config, {name: array * 1e4 for name, array in network.tensors().items()})
    logits, _ = stepper.step(1, stepper.zero_state())
    assert np.isfinite(logits).all()
