"""Captured work is the same work, whatever is given to it: shown on a stand-in for CUDA graphs, on any processor."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from charrnn.config import Cell, ModelConfig, Precision, TrainConfig
from charrnn.data.dataloader import IGNORED
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.training.cuda_graphs import Captured
from charrnn.training.train_step import TrainStep

V, T, B = 11, 6, 5
ON_CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


class Graph:
    """A CUDA graph as far as it shows: operations asked for once, and repeated on the same memory."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        with torch.no_grad():
            for operation, args, kwargs, results in self.operations:
                anew = operation(*args, **kwargs)
                for old, new in zip(tensors(results), tensors(anew), strict=True):
                    if old.data_ptr() != new.data_ptr():  # neither a view nor written in place
                        old.copy_(new)


class Capture(TorchDispatchMode):
    """Fills a graph. What is done meanwhile is undone in the end, for a capture runs nothing."""

    def __init__(self, graph: Graph, stream: "Stream") -> None:
        super().__init__()
        self._graph = graph
        self._failed = False
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation is torch.ops.aten._local_scalar_dense.default:
            self._failed = True
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in tensors((args, kwargs)):
            self._before.setdefault(tensor.data_ptr(), (tensor.detach(), tensor.detach().clone()))
        results = operation(*args, **(kwargs or {}))
        self._graph.operations.append((operation, args, kwargs or {}, results))
        return results

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for tensor, before in self._before.values():
            tensor.copy_(before)
        if self._failed:
            raise RuntimeError("operation failed due to a previous error during capture")


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        pass


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Those made in the test."""
    made: list[Graph] = []
    monkeypatch.setattr(Captured, "refusal", "")

    def make() -> Graph:
        made.append(Graph())
        return made[-1]

    for name, stand_in in {
        "CUDAGraph": make, "graph": Capture, "Stream": Stream, "current_stream": Stream,
        "stream": lambda stream: nullcontext(),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return made


def learner(precision: Precision, cell: Cell = "lstm", device: str = "cpu", **train: Any) -> TrainStep:
    network = CharRNN(ModelConfig(cell=cell, hidden=12, embedding=4, dropout=0.2), V)
    network.initialize(seed=3)
    config = {"engine": "stock", "precision": precision, "batch_size": B, "threads": 1, **train}
    return TrainStep(network, TrainConfig(device=device, **config))  # type: ignore[arg-type]


def learn(made: TrainStep) -> list[Any]:
    """Losses and all that is learned, of steps that differ in all that may differ."""
    draw = np.random.default_rng(0)
    state, losses = made.network.zero_state(B), []
    for number in range(12):
        steps = 3 if number % 5 == 4 else T  # nothing hangs on all chunks being alike
        ids = draw.integers(V, size=(steps + 1, B))
        targets = ids[1:].copy()
        targets[-1, : number % 3] = IGNORED
        nats, state = made.step(number, ids[:-1], targets, state, 0.02 / (1 + number))
        losses.append(nats)
    everything = made.averages() | made.network.tensors()
    return [losses, [torch.from_numpy(everything[name]) for name in sorted(everything)]]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_captured_step_learns_what_a_step_learns(
    graphs: list[Graph], precision: Precision, clip: float, cell: Cell
) -> None:
    plain, recorded = (learner(precision, cell, clip=clip) for _ in range(2))
    capture(recorded)
    torch.testing.assert_close(learn(recorded), learn(plain), rtol=1e-5, atol=1e-6)
    assert not Captured.refusal
    assert len(graphs) == 2  # of loss and update; the short chunk was seen too seldom for one of its own


def capture(made: TrainStep) -> None:
    """Has a step of the CPU treated as one of a GPU."""
    for part in (made._loss, made._update):
        part._wanted = True


@pytest.mark.parametrize("device", [ON_CUDA])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_learns_the_same_with_and_without_graphs(device: str, precision: Precision) -> None:
    plain, recorded = (learner(precision, device=device) for _ in range(2))
    plain._loss._wanted = plain._update._wanted = False
    torch.testing.assert_close(learn(recorded), learn(plain), rtol=1e-3, atol=1e-5)
    assert not Captured.refusal


def test_each_set_of_shapes_has_a_graph_of_its_own(graphs: list[Graph]) -> None:
    def multiply(one: Tensor, factor: Tensor) -> tuple[Tensor]:
        return ((one * factor).sum(),)

    sums = Captured(wanted=True)
    for number in range(6):
        for size in (2, 3):
            given = torch.arange(size, dtype=torch.float32) + number
            assert sums(multiply, given, number)[0] == (given * number).sum()
    assert len(graphs) == 2


def test_an_update_takes_place_once_for_each_call(graphs: list[Graph]) -> None:
    total = torch.zeros(3)

    def add(more: Tensor) -> tuple[()]:
        total.add_(more)
        return ()

    captured = Captured(wanted=True)
    for number in range(7):
        captured(add, torch.full((3,), float(number)))
    assert total.tolist() == [21.0] * 3


@pytest.mark.parametrize("look", [lambda x: float(x.sum()), lambda x: x.sum().item()])
def test_what_cannot_be_captured_runs_all_the_same(graphs: list[Graph], look: Callable[[Tensor], float]) -> None:
    for captured in (Captured(wanted=True), Captured(wanted=True)):
        for number in range(5):
            given = torch.full((2,), float(number))
            assert captured(lambda x: (x * look(x),), given)[0].tolist() == [2.0 * number * number] * 2
    assert Captured.refusal == "operation not permitted when stream is capturing"
    assert len(graphs) == 1  # one trial is enough


@pytest.mark.parametrize("device", [ON_CUDA])
def test_a_gpu_goes_on_after_a_capture_that_failed(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Captured, "refusal", "")
    own, captured = torch.cuda.current_stream(), Captured(wanted=True)
    for number in range(5):
        given = torch.full((2,), float(number), device=device)
        assert captured(lambda x: (x * x.sum().item(),), given)[0].tolist() == [2.0 * number * number] * 2
    assert Captured.refusal
    assert torch.cuda.current_stream() == own
