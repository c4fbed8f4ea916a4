"""The optimizer step: groups of streams give the result of the whole batch, with any number of threads."""

import copy
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from charrnn.config import Engine, ModelConfig, TrainConfig
from charrnn.data.dataloader import IGNORE_INDEX
from charrnn.rnn import recurrence
from charrnn.rnn.state import State
from charrnn.rnn.stream_groups import GROUP_SIZE
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.training import train_step as module
from charrnn.training.train_step import TrainStep

V, T, B = 11, 6, 2 * GROUP_SIZE + 3  # three groups


def make_train_step(dropout: Any = 0.0, seed: int = 0, **train: object) -> TrainStep:
    network = CharRNN(ModelConfig(hidden=12, dropout=dropout), V)
    network.initialize(seed=3)
    settings = {"device": "cpu", "precision": "fp32", "engine": "native", "threads": 1, "batch_size": B, **train}
    return TrainStep(network, TrainConfig(seed=seed, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_last_group_of_one_stream_is_trained(engine: Engine) -> None:
    train_step, batch = make_train_step(engine=engine, batch_size=GROUP_SIZE + 1), GROUP_SIZE + 1
    ids = np.random.default_rng(0).integers(V, size=(T + 1, batch))
    first, next_state = train_step.step(0, ids[:-1], ids[1:], train_step.network.zero_state(batch), 0.01)
    assert np.isfinite(first)
    assert next_state.batch == batch


def train(train_step: TrainStep, steps: int = 3, padded: int = 0) -> tuple[list[float], State, list[torch.Tensor]]:
    random = np.random.default_rng(0)
    state, losses = train_step.network.zero_state(B), []
    for number in range(steps):
        ids = random.integers(V, size=(T + 1, B))
        targets = ids[1:].copy()
        if padded:
            targets[-2:, -padded:] = IGNORE_INDEX
        nats, state = train_step.step(number, ids[:-1], targets, state, 0.01)
        losses.append(nats)
    return losses, state, [parameter.detach().clone() for parameter in train_step.network.parameters()]


def assert_close(first: object, second: object) -> None:
    torch.testing.assert_close(first, second, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("threads", [2, 3, 9])
@pytest.mark.parametrize("padded", [0, 1, 3])
def test_any_number_of_threads_gives_the_same_weights_bit_for_bit(engine: Engine, threads: int, padded: int) -> None:
    settings: dict[str, object] = {"engine": engine, "dropout": 0.4}
    first = train(make_train_step(**settings), padded=padded)
    second = train(make_train_step(threads=threads, **settings), padded=padded)
    assert first[0] == second[0]
    assert all(torch.equal(*pair) for pair in zip(first[2], second[2], strict=True))
    for (_, left), (_, right) in zip(first[1].named(), second[1].named(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("padded", [0, 3])
def test_groups_give_the_same_weights_as_the_whole_batch(padded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = train(make_train_step(), padded=padded)
    monkeypatch.setattr(module, "stream_groups", lambda batch: [slice(0, batch)])
    whole = train(make_train_step(), padded=padded)
    assert_close([groups[0], groups[2]], [whole[0], whole[2]])


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_both_backends_give_the_same_weights(engine: Engine) -> None:
    first, second = train(make_train_step(engine=engine)), train(make_train_step())
    assert_close([first[0], first[2]], [second[0], second[2]])


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_are_reproducible_bit_for_bit(threads: int) -> None:
    first, same = (train(make_train_step(dropout=0.4, threads=threads)) for _ in range(2))
    assert first[0] == same[0]
    assert all(torch.equal(*pair) for pair in zip(first[2], same[2], strict=True))


def test_dropout_differs_between_steps_seeds_and_groups() -> None:
    assert train(make_train_step(dropout=0.4, seed=0))[0] != train(make_train_step(dropout=0.4, seed=1))[0]
    train_step = make_train_step(dropout=0.4)
    ids = np.tile(np.arange(T)[:, None] % V, (1, B))
    state = train_step.network.zero_state(B)
    weights = copy.deepcopy(train_step.network.state_dict())
    first, next_state = train_step.step(0, ids, ids, state, 1e-9)
    train_step.network.load_state_dict(weights)
    second, _ = train_step.step(1, ids, ids, state, 1e-9)
    assert first != second
    hidden = next_state.layers[1][0]
    assert not torch.equal(hidden[0], hidden[GROUP_SIZE])  # the same text in another group, with other units dropped


def test_weights_are_packed_once_per_step_for_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    pack, calls = recurrence.pack, []
    monkeypatch.setattr(recurrence, "pack", lambda *arguments: calls.append(1) or pack(*arguments))
    train(make_train_step(threads=3), steps=2)
    assert len(calls) == 2 * 2  # steps, layers


@pytest.mark.parametrize("threads", [1, 2])
def test_a_deleted_train_step_frees_memory_immediately(threads: int) -> None:
    train_step = make_train_step(threads=threads)
    train(train_step)
    network = weakref.ref(train_step.network)
    gc.disable()  # the object must be freed without the garbage collector
    try:
        del train_step
        assert network() is None
    finally:
        gc.enable()


def test_a_step_does_not_change_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        train(make_train_step(threads=2), steps=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_nan_loss_changes_nothing(threads: int) -> None:
    train_step = make_train_step(threads=threads)
    before = [parameter.detach().clone() for parameter in train_step.network.parameters()]
    state = train_step.network.zero_state(B)
    nan_state = state.map(torch.clone)
    nan_state.layers[0][0][-1, 0] = float("nan")  # in one stream of the last group
    nats, next_state = train_step.step(0, np.zeros((T, B), np.int64), np.zeros((T, B), np.int64), nan_state, 0.01)
    assert not np.isfinite(nats)
    assert next_state is nan_state
    assert all(torch.equal(*pair) for pair in zip(before, train_step.network.parameters(), strict=True))


def test_an_error_in_a_group_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    train_step = make_train_step(threads=2)
    with pytest.raises(IndexError):
        train_step.step(0, np.full((T, B), V), np.zeros((T, B), np.int64), train_step.network.zero_state(B), 0.01)


def test_the_average_is_a_polynomial_average_of_the_weights() -> None:
    train_step, steps, weights_by_step = make_train_step(), 200, []
    random, state = np.random.default_rng(0), train_step.network.zero_state(B)
    for number in range(steps):
        ids = random.integers(V, size=(T + 1, B))
        _, state = train_step.step(number, ids[:-1], ids[1:], state, 0.01)
        weights_by_step.append(train_step.network.tensors())
    coefficients = np.diff((np.arange(steps + 1) / steps) ** 9)  # of each step; they add up to 1
    for name, average in train_step.averages().items():
        if name.startswith("average."):
            tensors = np.stack([weights[name.removeprefix("average.")] for weights in weights_by_step])
            expected = np.tensordot(coefficients, tensors, 1)
            assert np.abs(average - expected).max() < 0.1 * np.abs(tensors[-1] - expected).max()


def test_the_gradient_equals_that_of_the_mean_loss() -> None:
    train_step, ids = make_train_step(grad_clip=0.0, threads=2), np.random.default_rng(0).integers(V, size=(T + 1, B))
    logits, _ = train_step.network(torch.from_numpy(ids[:-1]), train_step.network.zero_state(B))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(ids[1:]).flatten())
    grads = torch.autograd.grad(loss, list(train_step.network.parameters()))
    train_step.step(0, ids[:-1], ids[1:], train_step.network.zero_state(B), 0.01)
    means = [torch.from_numpy(mean) for name, mean in train_step.averages().items() if name.startswith("mean.")]
    assert_close(
        means, [0.1 * grad for grad in grads]
    )  # AdamW's first moment after one step is a tenth of the gradient
