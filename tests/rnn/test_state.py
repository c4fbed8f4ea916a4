"""The recurrent state: operations and their inverses, in NumPy and in torch."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import Cell, ModelConfig
from charrnn.rnn.state import State

CELLS: list[Cell] = ["lstm", "gru", "rnn"]


def random_state(batch: int, cell: Cell = "lstm", layers: int = 2) -> State:
    random = np.random.default_rng(batch)
    zeros = State.zeros(ModelConfig(cell=cell, layers=layers, hidden=3), batch)
    return zeros.map(lambda part: random.normal(size=part.shape).astype(np.float32))


def are_equal(one: State, other: State) -> bool:
    pairs = zip(one.named(), other.named(), strict=True)
    return all(
        name == other_name and np.array_equal(part, other_part) for (name, part), (other_name, other_part) in pairs
    )


@pytest.mark.parametrize("cell", CELLS)
def test_a_zero_state_has_the_parts_of_its_cell(cell: Cell) -> None:
    state = State.zeros(ModelConfig(cell=cell, layers=3, hidden=4), 2)
    assert [len(layer) for layer in state.layers] == [2 if cell == "lstm" else 1] * 3
    assert state.flatten().shape == (2, sum(len(layer) for layer in state.layers) * 4)
    assert not state.flatten().any()
    assert state.batch == 2


@given(cuts=st.lists(st.integers(0, 9), max_size=4))
def test_joining_all_selected_parts_restores_the_state(cuts: list[int]) -> None:
    state, edges = random_state(9), [0, *sorted(cuts), 9]
    parts = [state.select(slice(start, stop)) for start, stop in pairwise(edges)]
    assert are_equal(State.join(parts), state)
    tensors = State.join([part.map(torch.from_numpy) for part in parts])
    assert are_equal(tensors.map(lambda part: part.numpy()), state)


@given(order=st.permutations(range(5)))
def test_streams_can_be_selected_in_any_order(order: list[int]) -> None:
    state = random_state(5)
    permuted = state.select(np.array(order))
    assert are_equal(permuted.select(np.argsort(order)), state)


@pytest.mark.parametrize("cell", CELLS)
def test_flattening_and_naming_can_be_reversed(cell: Cell) -> None:
    state = random_state(4, cell)
    assert are_equal(State.zeros(ModelConfig(cell=cell, layers=2, hidden=3), 4).unflatten(state.flatten()), state)
    assert are_equal(state.from_named(dict(state.named())), state)
    assert next(iter(dict(state.named()))) == "state.0.0"
    with pytest.raises(KeyError):
        state.from_named({})


def test_a_reset_returns_a_state_with_the_masked_streams_at_zero() -> None:
    state, mask = random_state(3), np.array([False, True, False])
    before = state.map(np.copy)
    reset = state.reset(mask)
    assert not reset.flatten()[1].any()
    np.testing.assert_array_equal(reset.flatten()[~mask], before.flatten()[~mask])
    assert are_equal(state, before)
    assert state.reset(np.zeros(3, dtype=bool)) is state


def test_a_reset_also_clears_nan() -> None:
    state = random_state(2).map(lambda part: part * np.float32("nan"))
    assert np.isfinite(state.reset(np.array([True, True])).flatten()).all()
