"""A stream is reset where a document starts, with every backend, forward and backward."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from charrnn.config import Cell, ModelConfig
from charrnn.rnn.kernels.gemm import TILE_ROWS
from charrnn.rnn.torch_rnn import CharRNN, RecurrentLayer, Reset
from tests.rnn.test_recurrence import CELLS, UNITS, assert_close, make_layer, random, random_state

V, B, BOUNDARY = 7, 3, 2
ENGINES = pytest.mark.parametrize("native", [False, True], ids=["torch", "native"])
ALL_CELLS = pytest.mark.parametrize("cell", CELLS)
IDS = st.integers(0, V - 1)


def make_network(cell: Cell, native: bool, **shape: Any) -> CharRNN:
    network = CharRNN(ModelConfig(cell=cell, hidden=6, **shape), V, BOUNDARY)
    network.initialize(seed=0)
    network.native = native
    return network


@ENGINES
@ALL_CELLS
@settings(max_examples=8)
@given(documents=st.lists(st.lists(IDS.filter(lambda one: one != BOUNDARY), max_size=5), min_size=1, max_size=6))
@torch.no_grad()
def test_consecutive_documents_equal_separate_documents(native: bool, cell: Cell, documents: list[list[int]]) -> None:
    network = make_network(cell, native)
    ids = [torch.tensor([BOUNDARY, *document])[:, None].expand(-1, B) for document in documents]
    nonzero_state = network.zero_state(B).map(torch.ones_like)
    together, _ = network(torch.cat(ids), nonzero_state)
    alone = [network(one, network.zero_state(B))[0] for one in ids]
    torch.testing.assert_close(together, torch.cat(alone))


@ENGINES
@ALL_CELLS
@settings(max_examples=8)
@given(ids=st.lists(st.lists(IDS, min_size=B, max_size=B), min_size=2, max_size=9), data=st.data())
@torch.no_grad()
def test_consecutive_chunks_equal_one_long_chunk(
    native: bool, cell: Cell, ids: list[list[int]], data: st.DataObject
) -> None:
    network, whole = make_network(cell, native, embedding=3), torch.tensor(ids)
    cut = data.draw(st.integers(1, len(ids) - 1))
    at_once, after = network(whole, network.zero_state(B))
    first, state = network(whole[:cut], network.zero_state(B))
    second, last = network(whole[cut:], state)
    torch.testing.assert_close(torch.cat([first, second]), at_once)
    for (_, one), (_, other) in zip(last.named(), after.named(), strict=True):
        torch.testing.assert_close(one, other)


@ENGINES
@torch.no_grad()
def test_streams_without_a_boundary_are_not_reset(native: bool) -> None:
    network = make_network("lstm", native)
    ids = torch.tensor([[0, 1, 3], [BOUNDARY, 4, 5], [1, 1, BOUNDARY]])
    without_boundary = CharRNN(network.config, V)
    without_boundary.load_state_dict(network.state_dict())
    without_boundary.native = native
    torch.testing.assert_close(
        network(ids, network.zero_state(B))[0][:, 1], without_boundary(ids, network.zero_state(B))[0][:, 1]
    )


RESET = st.lists(st.lists(st.booleans(), min_size=TILE_ROWS + 1, max_size=TILE_ROWS + 1), min_size=6, max_size=6).map(
    np.array
)
SPARSE = st.sets(st.tuples(st.integers(0, 5), st.integers(0, TILE_ROWS)), max_size=5)


def reset_at(indices: set[tuple[int, int]]) -> NDArray[np.bool_]:
    reset = np.zeros((6, TILE_ROWS + 1), dtype=np.bool_)
    for step, stream in indices:
        reset[step, stream] = True
    return reset


def results(layer: RecurrentLayer, native: bool, inputs: Tensor, state: Any, reset: Reset) -> list[Tensor]:
    layer.native = native
    outputs, after = layer(inputs, state, None, reset)
    projection = sum(
        (part * random(*part.shape, dtype=inputs.dtype, seed=20 + index).detach()).sum()
        for index, part in enumerate((outputs, *after))
    )
    grads = torch.autograd.grad(projection, [inputs, *state, *layer.parameters()])  # type: ignore[arg-type]
    return [outputs, *after, *grads]


@ALL_CELLS
@pytest.mark.parametrize("hidden", [5, UNITS + 1])
@settings(max_examples=10)
@given(reset=st.one_of(RESET, SPARSE.map(reset_at)))
def test_the_kernels_equal_the_layers_of_torch_with_resets(cell: Cell, hidden: int, reset: Reset) -> None:
    layer = make_layer(cell, 3, hidden, torch.float32)
    x = random(6, TILE_ROWS + 1, 3, dtype=torch.float32, seed=1)
    state = random_state(layer, TILE_ROWS + 1, torch.float32)
    assert_close(results(layer, True, x, state, reset), results(layer, False, x, state, reset), 1e-5)


@ALL_CELLS
def test_the_gradients_pass_gradcheck_with_resets(cell: Cell) -> None:
    layer = make_layer(cell, 3, 5, torch.float64)
    layer.native = True
    state = random_state(layer, 2, torch.float64)
    names = [name for name, _ in layer.named_parameters()]
    reset = np.array([[False, True], [False, False], [True, True], [True, False], [False, False]])

    def function(inputs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        initial_state, parameters = rest[: len(state)], dict(zip(names, rest[len(state) :], strict=True))
        outputs, after = torch.func.functional_call(layer, parameters, (inputs, initial_state, None, reset))
        return outputs, *after

    x = random(5, 2, 3, dtype=torch.float64, seed=1)
    assert torch.autograd.gradcheck(
        function, (x, *state, *layer.parameters()), eps=1e-6, atol=1e-8, rtol=1e-8, fast_mode=True
    )


@ALL_CELLS
def test_the_kernels_reset_streams_in_bf16(cell: Cell) -> None:
    ids = torch.tensor([[0, 1, 3], [BOUNDARY, 4, 5], [1, 1, BOUNDARY], [4, BOUNDARY, 0], [0, 0, 0]])

    def logits_and_gradients(network: CharRNN) -> tuple[Tensor, tuple[Tensor, ...]]:
        logits = network(ids, network.zero_state(B))[0].float()
        return logits, torch.autograd.grad(logits.square().sum(), list(network.parameters()))

    fp32_logits, fp32_gradients = logits_and_gradients(make_network(cell, False))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bf16_logits, bf16_gradients = logits_and_gradients(make_network(cell, True))
    torch.testing.assert_close(bf16_logits, fp32_logits, atol=0.03, rtol=0.03)
    assert_close(list(bf16_gradients), list(fp32_gradients), 0.05)
