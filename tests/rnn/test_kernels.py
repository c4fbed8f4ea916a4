"""The language of the kernels, and kernels for another processor."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import ir

from charrnn.config import Cell, ModelConfig
from charrnn.rnn import compiled_rnn, recurrence
from charrnn.rnn.compiled_rnn import CompiledRNN
from charrnn.rnn.kernels import object_cache
from charrnn.rnn.kernels.decode import decoding_kernel
from charrnn.rnn.kernels.jit import Kernel, load_kernels
from charrnn.rnn.kernels.object_cache import Target
from charrnn.rnn.kernels.simd import BF16, F32, F64, I64, LANES, Function, Parameters, exp
from charrnn.rnn.kernels.training import training_kernels
from charrnn.rnn.numpy_rnn import NumPyRNN
from tests.rnn.test_recurrence import assert_close, make_layer, random, random_state, results

GENERIC = Target("generic", "")  # target with the narrowest vectors


def test_bfloat16_is_rounded_to_nearest_even_and_keeps_nan() -> None:
    parameters: dict[str, Parameters] = {"round": {"numbers": F32, "rounded": BF16, "back": F32}}

    def build(target: Target) -> ir.Module:
        module = ir.Module("round")
        f = Function(module, "round", parameters["round"])
        f["rounded"].store_vector(f["numbers"].vector())
        f["back"].store_vector(f["rounded"].vector())
        f.finish()
        return module

    values = [1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1.0039, 3e38, 1e-40, float("nan"), float("-inf")]
    numbers = np.array(values * (LANES // len(values)), dtype=np.float32)
    rounded, back = np.zeros(LANES, dtype=np.uint16), np.zeros(LANES, dtype=np.float32)
    load_kernels("test_round", parameters, build)["round"](numbers=numbers, rounded=rounded, back=back)
    expected = torch.from_numpy(numbers).to(torch.bfloat16)
    assert expected.isnan().any()
    assert torch.equal(torch.from_numpy(rounded).view(torch.bfloat16).nan_to_num(7.0), expected.nan_to_num(7.0))
    np.testing.assert_array_equal(back, expected.float().numpy())


@cache
def exponential() -> Kernel:
    parameters: dict[str, Parameters] = {"exp": {"numbers": F64, "result": F64}}

    def build(target: Target) -> ir.Module:
        module = ir.Module("exp")
        f = Function(module, "exp", parameters["exp"])
        f["result"].store_vector(exp(f["numbers"].vector()))
        f.finish()
        return module

    return load_kernels("test_exp", parameters, build)["exp"]


@given(st.lists(st.floats(-800, 0), min_size=LANES, max_size=LANES))
def test_the_exponential_is_accurate(values: list[float]) -> None:
    numbers = np.array(values)
    result = np.empty_like(numbers)
    exponential()(numbers=numbers, result=result)
    np.testing.assert_allclose(result, np.where(numbers < -708, 0, np.exp(numbers)), rtol=1e-15)


@cache
def loop() -> Kernel:
    parameters: dict[str, Parameters] = {"loop": {"start": int, "stop": int, "step": int, "seen": I64}}

    def build(target: Target) -> ir.Module:
        module = ir.Module("loop")
        f = Function(module, "loop", parameters["loop"])
        count = f.variable(f.index(0))
        with f.range(f["start"], f["stop"], f["step"]) as number, f.when(number.compare("!=", 3)):
            f["seen"].at(count.get()).store(number)
            count.set(count.get() + 1)
        f["seen"].at(f.index(39)).store(count.get())
        f.finish()
        return module

    return load_kernels("test_loop", parameters, build)["loop"]


@given(start=st.integers(-3, 5), stop=st.integers(-3, 20), step=st.integers(1, 4))
def test_loops_equal_the_range_of_python(start: int, stop: int, step: int) -> None:
    seen = np.zeros(40, dtype=np.int64)
    loop()(start=start, stop=stop, step=step, seen=seen)
    expected = [number for number in range(start, stop, step) if number != 3]
    assert seen[: len(expected)].tolist() == expected
    assert seen[39] == len(expected)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_training_kernels_for_narrow_vectors_agree(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(object_cache.CACHE_VARIABLE, str(tmp_path))
    layer = make_layer(cell, 3, 37, torch.float32)
    x, state = random(4, 5, 3, dtype=torch.float32, seed=1), random_state(layer, 5, torch.float32)
    exact: list[torch.Tensor] = []
    for bf16 in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            host = results(layer, True, x, state)
            with monkeypatch.context() as patch:
                patch.setattr(Target, "host", classmethod(lambda cls: GENERIC))
                patch.setattr(recurrence, "training_kernels", training_kernels.__wrapped__)
                generic = results(layer, True, x, state)
        exact = exact or host
        assert_close([part.float() for part in host], exact, 0.1)
        for one, other in zip(host, generic, strict=True):
            torch.testing.assert_close(one, other, atol=0.05 if bf16 else 1e-5, rtol=0.05 if bf16 else 1e-5)


def test_the_decoder_for_narrow_vectors_is_bit_identical(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(object_cache.CACHE_VARIABLE, str(tmp_path))
    config = ModelConfig(hidden=20)
    random_numbers = np.random.default_rng(0)
    shapes = config.tensor_shapes(9).items()
    tensors = {name: random_numbers.normal(size=shape).astype(np.float32) for name, shape in shapes}
    monkeypatch.setattr(compiled_rnn, "decoding_kernel", lambda cell: decoding_kernel.__wrapped__(cell, GENERIC))
    compiled, numpy_rnn = CompiledRNN(config, tensors), NumPyRNN(config, tensors)
    logits, state = compiled.step(np.arange(7), compiled.zero_state(7))
    expected, expected_state = numpy_rnn.step(np.arange(7), numpy_rnn.zero_state(7))
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(state.flatten(), expected_state.flatten())
