"""One optimizer step: groups of streams together are the whole batch, in any number of threads."""

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


def step_of(dropout: Any = 0.0, seed: int = 0, **train: object) -> TrainStep:
    network = CharRNN(ModelConfig(hidden=12, dropout=dropout), V)
    network.initialize(seed=3)
    settled = {"device": "cpu", "precision": "fp32", "engine": "native", "threads": 1, "batch_size": B, **train}
    return TrainStep(network, TrainConfig(seed=seed, **settled))  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_last_group_of_one_stream_learns_too(engine: Engine) -> None:
    made, batch = step_of(engine=engine, batch_size=GROUP_SIZE + 1), GROUP_SIZE + 1
    ids = np.random.default_rng(0).integers(V, size=(T + 1, batch))
    one, after = made.step(0, ids[:-1], ids[1:], made.network.zero_state(batch), 0.01)
    assert np.isfinite(one)
    assert after.batch == batch


def learn(made: TrainStep, steps: int = 3, padded: int = 0) -> tuple[list[float], State, list[torch.Tensor]]:
    draw = np.random.default_rng(0)
    state, losses = made.network.zero_state(B), []
    for number in range(steps):
        ids = draw.integers(V, size=(T + 1, B))
        targets = ids[1:].copy()
        if padded:
            targets[-2:, -padded:] = IGNORE_INDEX
        nats, state = made.step(number, ids[:-1], targets, state, 0.01)
        losses.append(nats)
    return losses, state, [parameter.detach().clone() for parameter in made.network.parameters()]


def assert_near(one: object, other: object) -> None:
    torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("threads", [2, 3, 9])
@pytest.mark.parametrize("padded", [0, 1, 3])
def test_any_number_of_threads_learns_the_same_to_the_bit(engine: Engine, threads: int, padded: int) -> None:
    settings: dict[str, object] = {"engine": engine, "dropout": 0.4}
    one = learn(step_of(**settings), padded=padded)
    other = learn(step_of(threads=threads, **settings), padded=padded)
    assert one[0] == other[0]
    assert all(torch.equal(*pair) for pair in zip(one[2], other[2], strict=True))
    for (_, left), (_, right) in zip(one[1].named(), other[1].named(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("padded", [0, 3])
def test_groups_learn_what_the_whole_batch_learns(padded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = learn(step_of(), padded=padded)
    monkeypatch.setattr(module, "stream_groups", lambda batch: [slice(0, batch)])
    whole = learn(step_of(), padded=padded)
    assert_near([groups[0], groups[2]], [whole[0], whole[2]])


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_either_engine_learns_the_same(engine: Engine) -> None:
    one, other = learn(step_of(engine=engine)), learn(step_of())
    assert_near([one[0], one[2]], [other[0], other[2]])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_is_repeated_to_the_bit(threads: int) -> None:
    one, same = (learn(step_of(dropout=0.4, threads=threads)) for _ in range(2))
    assert one[0] == same[0]
    assert all(torch.equal(*pair) for pair in zip(one[2], same[2], strict=True))


def test_dropout_differs_between_steps_seeds_and_groups() -> None:
    assert learn(step_of(dropout=0.4, seed=0))[0] != learn(step_of(dropout=0.4, seed=1))[0]
    made = step_of(dropout=0.4)
    ids = np.tile(np.arange(T)[:, None] % V, (1, B))
    state = made.network.zero_state(B)
    kept = copy.deepcopy(made.network.state_dict())
    first, after = made.step(0, ids, ids, state, 1e-9)
    made.network.load_state_dict(kept)
    second, _ = made.step(1, ids, ids, state, 1e-9)
    assert first != second
    hidden = after.layers[1][0]
    assert not torch.equal(hidden[0], hidden[GROUP_SIZE])  # the same text in another group, with other units dropped


def test_the_groups_share_weights_that_are_packed_once_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    pack, calls = recurrence.pack, []
    monkeypatch.setattr(recurrence, "pack", lambda *arguments: calls.append(1) or pack(*arguments))
    learn(step_of(threads=3), steps=2)
    assert len(calls) == 2 * 2  # steps, layers


@pytest.mark.parametrize("threads", [1, 2])
def test_a_learner_that_is_done_gives_its_memory_back_at_once(threads: int) -> None:
    made = step_of(threads=threads)
    learn(made)
    network = weakref.ref(made.network)
    gc.disable()  # the collector comes when it likes, and autotuning leaves many of them behind
    try:
        del made
        assert network() is None
    finally:
        gc.enable()


def test_the_number_of_threads_is_as_it_was_after_a_step() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        learn(step_of(threads=2), steps=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_loss_that_is_no_number_changes_nothing(threads: int) -> None:
    made = step_of(threads=threads)
    before = [parameter.detach().clone() for parameter in made.network.parameters()]
    state = made.network.zero_state(B)
    poisoned = state.map(torch.clone)
    poisoned.layers[0][0][-1, 0] = float("nan")  # in one stream of the last group
    nats, after = made.step(0, np.zeros((T, B), np.int64), np.zeros((T, B), np.int64), poisoned, 0.01)
    assert not np.isfinite(nats)
    assert after is poisoned
    assert all(torch.equal(*pair) for pair in zip(before, made.network.parameters(), strict=True))


def test_an_error_in_a_group_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    made = step_of(threads=2)
    with pytest.raises(IndexError):
        made.step(0, np.full((T, B), V), np.zeros((T, B), np.int64), made.network.zero_state(B), 0.01)


def test_the_average_is_of_the_weights_after_late_steps() -> None:
    made, steps, every = step_of(), 200, []
    draw, state = np.random.default_rng(0), made.network.zero_state(B)
    for number in range(steps):
        ids = draw.integers(V, size=(T + 1, B))
        _, state = made.step(number, ids[:-1], ids[1:], state, 0.01)
        every.append(made.network.tensors())
    shares = np.diff((np.arange(steps + 1) / steps) ** 9)  # of each step, which add up to 1
    for name, average in made.averages().items():
        if name.startswith("average."):
            tensors = np.stack([weights[name.removeprefix("average.")] for weights in every])
            wanted = np.tensordot(shares, tensors, 1)
            assert np.abs(average - wanted).max() < 0.1 * np.abs(tensors[-1] - wanted).max()


def test_the_gradient_is_that_of_the_mean_loss() -> None:
    made, ids = step_of(grad_clip=0.0, threads=2), np.random.default_rng(0).integers(V, size=(T + 1, B))
    logits, _ = made.network(torch.from_numpy(ids[:-1]), made.network.zero_state(B))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(ids[1:]).flatten())
    grads = torch.autograd.grad(loss, list(made.network.parameters()))
    made.step(0, ids[:-1], ids[1:], made.network.zero_state(B), 0.01)
    means = [torch.from_numpy(mean) for name, mean in made.averages().items() if name.startswith("mean.")]
    assert_near(means, [0.1 * grad for grad in grads])  # a tenth of it is new in AdamW's average
