"""The equations of the cells: the same results with every kind of number, and correct gradients."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import ir

from charrnn.config import GATES, Cell
from charrnn.rnn.cells import EQUATIONS
from charrnn.rnn.kernels.jit import load_kernels
from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.simd import F32, LANES, Function, Parameters
from charrnn.rnn.tanh_approx import LIMIT, tanh

CELLS: list[Cell] = ["lstm", "gru", "rnn"]
ALL_CELLS = pytest.mark.parametrize("cell", CELLS)
TORCH = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}
H = 5


def random_vectors(number: int, seed: int, dtype: type = np.float64) -> list[Any]:
    """Return ``number`` arrays of LANES random numbers."""
    random = np.random.default_rng(seed)
    return [random.normal(size=LANES).astype(dtype) for _ in range(number)]


@ALL_CELLS
def test_a_step_equals_the_cell_of_torch(cell: Cell) -> None:
    equations, torch_cell = EQUATIONS[cell], TORCH[cell](3, H).double()
    random = torch.Generator().manual_seed(1)
    x, *state = (torch.randn(2, size, generator=random).double() for size in (3, *[H] * equations.num_state_arrays))
    inputs = x @ torch_cell.weight_ih.T + torch_cell.bias_ih
    recurrent = state[0] @ torch_cell.weight_hh.T + torch_cell.bias_hh
    gates = [tuple(product.detach().numpy().reshape(2, -1, H).swapaxes(0, 1)) for product in (inputs, recurrent)]
    _, next_state = equations.step(equations.pre(*gates), tuple(part.numpy() for part in state), np.tanh)
    expected = torch_cell(x, tuple(state) if len(state) > 1 else state[0])
    expected = expected if isinstance(expected, tuple) else (expected,)
    for actual, reference in zip(next_state, expected, strict=True):
        np.testing.assert_allclose(actual, reference.detach().numpy(), atol=1e-12)


@ALL_CELLS
@given(seed=st.integers(0, 10**6))
def test_the_gradient_equals_finite_differences_of_the_step(cell: Cell, seed: int) -> None:
    equations = EQUATIONS[cell]
    pre, before = (
        random_vectors(equations.pre_activations, seed),
        random_vectors(equations.num_state_arrays, seed + 1),
    )
    grad = random_vectors(equations.num_state_arrays, seed + 2)

    def value(pre: list[Any], before: list[Any]) -> Any:
        _, next_state = equations.step(tuple(pre), tuple(before), np.tanh)
        return sum(weight * part for weight, part in zip(grad, next_state, strict=True))

    saved, next_state = equations.step(tuple(pre), tuple(before), np.tanh)
    grad_pre, grad_before = equations.gradient(saved, tuple(before), next_state, tuple(grad), np.tanh)
    for numbers, gradients in ((pre, grad_pre), (before, grad_before)):
        for index, gradient in enumerate(gradients):
            shifted = [[*numbers[:index], numbers[index] + step, *numbers[index + 1 :]] for step in (1e-6, -1e-6)]
            up, down = (value(vectors, before) if numbers is pre else value(pre, vectors) for vectors in shifted)
            np.testing.assert_allclose(0 if gradient is None else gradient, (up - down) / 2e-6, atol=1e-7)


@ALL_CELLS
def test_compiled_vectors_equal_numpy_bit_for_bit(cell: Cell) -> None:
    equations = EQUATIONS[cell]
    names = [f"pre{n}" for n in range(equations.pre_activations)]
    names += [f"state{n}" for n in range(equations.num_state_arrays)]
    parameters: dict[str, Parameters] = {"step": dict.fromkeys([*names, "result"], F32)}

    def build(target: Target) -> ir.Module:
        module = ir.Module("step")
        f = Function(module, "step", parameters["step"])
        numbers = [f[name].vector() for name in names]
        pre, state = numbers[: equations.pre_activations], numbers[equations.pre_activations :]
        saved, next_state = equations.step(tuple(pre), tuple(state), tanh)
        for index, number in enumerate((*saved, *next_state)):
            f["result"].at(index * LANES).store_vector(number)
        f.finish()
        return module

    arrays = [array * np.float32(3) for array in random_vectors(len(names), 7, np.float32)]
    pre, state = arrays[: equations.pre_activations], arrays[equations.pre_activations :]
    saved, next_state = equations.step(tuple(pre), tuple(state), tanh)
    expected = np.stack([*saved, *next_state])
    result = np.empty_like(expected)
    load_kernels(f"test_step_{cell}", parameters, build)["step"](
        **dict(zip(names, arrays, strict=True)), result=result
    )
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
    for lane in range(LANES):  # and with scalars
        _, alone = equations.step(tuple(a[lane] for a in pre), tuple(a[lane] for a in state), tanh)
        assert [float(scalar) for scalar in alone] == [float(vector[lane]) for vector in next_state]


@ALL_CELLS
def test_the_equations_and_the_weights_have_the_same_gates(cell: Cell) -> None:
    assert EQUATIONS[cell].gates == GATES[cell]
    assert len(EQUATIONS[cell].recurrent_slots) == GATES[cell]


@given(st.floats(-20, 20, width=32))
def test_tanh_is_accurate(x: float) -> None:
    assert float(tanh(np.float32(x))) == pytest.approx(math.tanh(x), rel=4e-7, abs=1e-38)


def test_tanh_is_odd_bounded_by_one_and_propagates_nan() -> None:
    x = np.linspace(-30, 30, 1001, dtype=np.float32)
    np.testing.assert_array_equal(tanh(x), -tanh(-x))
    assert np.abs(tanh(x)).max() <= 1
    assert tanh(np.float32(100)) == tanh(LIMIT) == pytest.approx(1, abs=1e-6)
    assert np.isnan(tanh(np.float32("nan")))
