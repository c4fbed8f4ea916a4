"""The recurrent state: its operations undo each other, in NumPy and in torch."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config import Cell, ModelConfig
from charrnn.rnn.state import State

CELLS: list[Cell] = ["lstm", "gru", "rnn"]


def some(batch: int, cell: Cell = "lstm", layers: int = 2) -> State:
    random = np.random.default_rng(batch)
    zeros = State.zeros(ModelConfig(cell=cell, layers=layers, hidden=3), batch)
    return zeros.map(lambda part: random.normal(size=part.shape).astype(np.float32))


def same(one: State, other: State) -> bool:
    pairs = zip(one.named(), other.named(), strict=True)
    return all(name == own and np.array_equal(part, its) for (name, part), (own, its) in pairs)


@pytest.mark.parametrize("cell", CELLS)
def test_a_zero_state_has_the_parts_of_its_cell(cell: Cell) -> None:
    state = State.zeros(ModelConfig(cell=cell, layers=3, hidden=4), 2)
    assert [len(layer) for layer in state.layers] == [2 if cell == "lstm" else 1] * 3
    assert state.flatten().shape == (2, sum(len(layer) for layer in state.layers) * 4)
    assert not state.flatten().any()
    assert state.batch == 2


@given(cuts=st.lists(st.integers(0, 9), max_size=4))
def test_what_is_selected_part_by_part_and_joined_is_the_whole(cuts: list[int]) -> None:
    state, edges = some(9), [0, *sorted(cuts), 9]
    parts = [state.select(slice(start, stop)) for start, stop in pairwise(edges)]
    assert same(State.join(parts), state)
    tensors = State.join([part.map(torch.from_numpy) for part in parts])
    assert same(tensors.map(lambda part: part.numpy()), state)


@given(order=st.permutations(range(5)))
def test_streams_may_be_selected_in_any_order(order: list[int]) -> None:
    state = some(5)
    there = state.select(np.array(order))
    assert same(there.select(np.argsort(order)), state)


@pytest.mark.parametrize("cell", CELLS)
def test_a_state_survives_being_flattened_and_being_named(cell: Cell) -> None:
    state = some(4, cell)
    assert same(State.zeros(ModelConfig(cell=cell, layers=2, hidden=3), 4).unflatten(state.flatten()), state)
    assert same(state.from_named(dict(state.named())), state)
    assert next(iter(dict(state.named()))) == "state.0.0"
    with pytest.raises(KeyError):
        state.from_named({})


def test_a_reset_makes_some_streams_zero_and_leaves_the_old_state_alone() -> None:
    state, mask = some(3), np.array([False, True, False])
    before = state.map(np.copy)
    reset = state.reset(mask)
    assert not reset.flatten()[1].any()
    np.testing.assert_array_equal(reset.flatten()[~mask], before.flatten()[~mask])
    assert same(state, before)
    assert state.reset(np.zeros(3, dtype=bool)) is state


def test_a_reset_also_clears_what_is_no_number() -> None:
    state = some(2).map(lambda part: part * np.float32("nan"))
    assert np.isfinite(state.reset(np.array([True, True])).flatten()).all()
