"""Where a document starts, a stream forgets: whatever computes it, forward and backward."""

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
from tests.rnn.test_recurrence import CELLS, UNITS, assert_close, layer, random, state_of

V, B, BOUNDARY = 7, 3, 2
ENGINES = pytest.mark.parametrize("native", [False, True], ids=["torch", "native"])
ALL_CELLS = pytest.mark.parametrize("cell", CELLS)
IDS = st.integers(0, V - 1)


def network(cell: Cell, native: bool, **shape: Any) -> CharRNN:
    made = CharRNN(ModelConfig(cell=cell, hidden=6, **shape), V, BOUNDARY)
    made.initialize(seed=0)
    made.native = native
    return made


@ENGINES
@ALL_CELLS
@settings(max_examples=8)
@given(documents=st.lists(st.lists(IDS.filter(lambda one: one != BOUNDARY), max_size=5), min_size=1, max_size=6))
@torch.no_grad()
def test_documents_in_a_row_are_read_as_each_of_them_alone(
    native: bool, cell: Cell, documents: list[list[int]]
) -> None:
    made = network(cell, native)
    ids = [torch.tensor([BOUNDARY, *document])[:, None].expand(-1, B) for document in documents]
    used = made.zero_state(B).map(torch.ones_like)
    together, _ = made(torch.cat(ids), used)
    alone = [made(one, made.zero_state(B))[0] for one in ids]
    torch.testing.assert_close(together, torch.cat(alone))


@ENGINES
@ALL_CELLS
@settings(max_examples=8)
@given(ids=st.lists(st.lists(IDS, min_size=B, max_size=B), min_size=2, max_size=9), data=st.data())
@torch.no_grad()
def test_a_text_in_chunks_is_read_as_the_whole(
    native: bool, cell: Cell, ids: list[list[int]], data: st.DataObject
) -> None:
    made, whole = network(cell, native, embedding=3), torch.tensor(ids)
    cut = data.draw(st.integers(1, len(ids) - 1))
    at_once, after = made(whole, made.zero_state(B))
    first, state = made(whole[:cut], made.zero_state(B))
    second, last = made(whole[cut:], state)
    torch.testing.assert_close(torch.cat([first, second]), at_once)
    for (_, one), (_, other) in zip(last.named(), after.named(), strict=True):
        torch.testing.assert_close(one, other)


@ENGINES
@torch.no_grad()
def test_streams_that_start_no_document_are_left_alone(native: bool) -> None:
    made = network("lstm", native)
    ids = torch.tensor([[0, 1, 3], [BOUNDARY, 4, 5], [1, 1, BOUNDARY]])
    plain = CharRNN(made.config, V)
    plain.load_state_dict(made.state_dict())
    plain.native = native
    torch.testing.assert_close(made(ids, made.zero_state(B))[0][:, 1], plain(ids, made.zero_state(B))[0][:, 1])


RESET = st.lists(st.lists(st.booleans(), min_size=TILE_ROWS + 1, max_size=TILE_ROWS + 1), min_size=6, max_size=6).map(
    np.array
)
RARELY = st.sets(st.tuples(st.integers(0, 5), st.integers(0, TILE_ROWS)), max_size=5)


def reset_at(places: set[tuple[int, int]]) -> NDArray[np.bool_]:
    reset = np.zeros((6, TILE_ROWS + 1), dtype=np.bool_)
    for step, stream in places:
        reset[step, stream] = True
    return reset


def results(made: RecurrentLayer, native: bool, inputs: Tensor, state: Any, reset: Reset) -> list[Tensor]:
    made.native = native
    outputs, after = made(inputs, state, None, reset)
    mixture = sum(
        (part * random(*part.shape, dtype=inputs.dtype, seed=20 + place).detach()).sum()
        for place, part in enumerate((outputs, *after))
    )
    grads = torch.autograd.grad(mixture, [inputs, *state, *made.parameters()])  # type: ignore[arg-type]
    return [outputs, *after, *grads]


@ALL_CELLS
@pytest.mark.parametrize("hidden", [5, UNITS + 1])
@settings(max_examples=10)
@given(reset=st.one_of(RESET, RARELY.map(reset_at)))
def test_the_kernels_compute_and_learn_what_torch_does(cell: Cell, hidden: int, reset: Reset) -> None:
    made = layer(cell, 3, hidden, torch.float32)
    x, state = random(6, TILE_ROWS + 1, 3, dtype=torch.float32, seed=1), state_of(made, TILE_ROWS + 1, torch.float32)
    assert_close(results(made, True, x, state, reset), results(made, False, x, state, reset), 1e-5)


@ALL_CELLS
def test_the_gradients_are_those_of_the_function(cell: Cell) -> None:
    made = layer(cell, 3, 5, torch.float64)
    made.native = True
    state = state_of(made, 2, torch.float64)
    names = [name for name, _ in made.named_parameters()]
    reset = np.array([[False, True], [False, False], [True, True], [True, False], [False, False]])

    def function(inputs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        before, parameters = rest[: len(state)], dict(zip(names, rest[len(state) :], strict=True))
        outputs, after = torch.func.functional_call(made, parameters, (inputs, before, None, reset))
        return outputs, *after

    x = random(5, 2, 3, dtype=torch.float64, seed=1)
    assert torch.autograd.gradcheck(
        function, (x, *state, *made.parameters()), eps=1e-6, atol=1e-8, rtol=1e-8, fast_mode=True
    )


@ALL_CELLS
def test_in_bf16_the_kernels_forget_as_well(cell: Cell) -> None:
    ids = torch.tensor([[0, 1, 3], [BOUNDARY, 4, 5], [1, 1, BOUNDARY], [4, BOUNDARY, 0], [0, 0, 0]])

    def learned(made: CharRNN) -> tuple[Tensor, tuple[Tensor, ...]]:
        logits = made(ids, made.zero_state(B))[0].float()
        return logits, torch.autograd.grad(logits.square().sum(), list(made.parameters()))

    exact, of_exact = learned(network(cell, False))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, of_rounded = learned(network(cell, True))
    torch.testing.assert_close(rounded, exact, atol=0.03, rtol=0.03)
    assert_close(list(of_rounded), list(of_exact), 0.05)
