"""The compiled kernels compute the same outputs and gradients as torch's layers, for all shapes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from charrnn.config import Cell, ModelConfig
from charrnn.rnn.cells import EQUATIONS
from charrnn.rnn.kernels.gemm import TILE_ROWS
from charrnn.rnn.torch_rnn import CharRNN, LayerState, RecurrentLayer

CELLS: list[Cell] = ["lstm", "gru", "rnn"]
V = 9
UNITS = 32  # the units of one or two tiles


def make_layer(cell: Cell, inputs: int, hidden: int, dtype: torch.dtype) -> RecurrentLayer:
    """Return a layer with weights that matter but do not amplify rounding errors."""
    layer = RecurrentLayer(cell, inputs, hidden).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=min(0.5, 1.5 * hidden**-0.5), generator=generator)
    return layer


def random(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def random_state(layer: RecurrentLayer, batch: int, dtype: torch.dtype) -> LayerState:
    parts, hidden = EQUATIONS[layer.cell].num_state_arrays, layer.layer.hidden_size
    return tuple(random(batch, hidden, dtype=dtype, seed=5 + part) for part in range(parts))


def zeros(layer: RecurrentLayer, batch: int) -> LayerState:
    return tuple(torch.zeros_like(part) for part in random_state(layer, batch, torch.float32))


def results(layer: RecurrentLayer, native: bool, inputs: Tensor, state: LayerState, *vectors: Tensor) -> list[Tensor]:
    """Return the outputs, the last state, and the gradients of a random projection of both."""
    layer.native = native
    outputs, last_state = layer(inputs, state, *vectors)
    projection = sum(
        (part * random(*part.shape, dtype=layer.layer.weight_hh_l0.dtype, seed=20 + index).detach()).sum()
        for index, part in enumerate((outputs, *last_state))
    )
    float_inputs = [inputs] if inputs.is_floating_point() else []
    grads = torch.autograd.grad(projection, [*float_inputs, *state, *vectors, *layer.parameters()])  # type: ignore[arg-type]
    return [outputs, *last_state, *grads]


def assert_close(actual: list[Tensor], expected: list[Tensor], relative: float) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).detach().norm().item() <= relative * max(
            1.0, other.detach().norm().item()
        )  # because a sum may cancel out


@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=12)
@given(
    steps=st.integers(1, 6),
    batch=st.sampled_from([1, 2, TILE_ROWS - 1, TILE_ROWS, TILE_ROWS + 3]),
    hidden=st.one_of(st.integers(1, 13), st.sampled_from([UNITS - 1, UNITS, UNITS + 1, 2 * UNITS])),
    inputs=st.integers(1, 5),
)
def test_the_kernels_equal_the_layers_of_torch(cell: Cell, steps: int, batch: int, hidden: int, inputs: int) -> None:
    layer = make_layer(cell, inputs, hidden, torch.float32)
    x, state = random(steps, batch, inputs, dtype=torch.float32, seed=1), random_state(layer, batch, torch.float32)
    assert_close(results(layer, True, x, state), results(layer, False, x, state), 1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("embedding", [False, True])
@pytest.mark.parametrize(
    ("steps", "batch"), [(1, 1), (4, 3), (5, TILE_ROWS + 1)]
)  # fewer ids than table rows, and more
def test_looking_up_ids_equals_multiplying_one_hot_vectors(
    cell: Cell, embedding: bool, steps: int, batch: int
) -> None:
    layer = make_layer(cell, 4 if embedding else V, 6, torch.float32)
    ids = torch.randint(V, (steps, batch), generator=torch.Generator().manual_seed(2))
    vectors = [random(V, 4, dtype=torch.float32, seed=3)] if embedding else []
    state = random_state(layer, batch, torch.float32)
    assert_close(results(layer, True, ids, state, *vectors), results(layer, False, ids, state, *vectors), 1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_contiguous_and_share_no_memory(cell: Cell, with_ids: bool, dtype: torch.dtype) -> None:
    layer = make_layer(cell, 4, 6, torch.float32)  # AdamW and clipping write into the gradients and rely on this
    layer.native = True
    inputs = torch.tensor([[0, 1], [2, 1]]) if with_ids else random(2, 2, 4, dtype=torch.float32, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs, _ = layer(inputs, zeros(layer, 2))
    grads = torch.autograd.grad(outputs.float().sum(), list(layer.parameters()))
    assert all(grad.is_contiguous() for grad in grads)
    assert len({grad.untyped_storage().data_ptr() for grad in grads}) == len(grads)


@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_of_the_last_state_may_be_transposed(cell: Cell) -> None:
    layer = make_layer(cell, 3, 5, torch.float32)
    x, state = random(2, 4, 3, dtype=torch.float32, seed=1), random_state(layer, 4, torch.float32)
    of_state = []
    for native in (True, False):
        layer.native = native
        _, last_state = layer(x, state)
        columns = [random(5, 4, dtype=torch.float32, seed=7 + index).detach().t() for index in range(len(last_state))]
        of_state.append(list(torch.autograd.grad(last_state, state, columns)))
    assert_close(of_state[0], of_state[1], 1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("with_ids", [False, True])
def test_the_gradients_pass_gradcheck(cell: Cell, with_ids: bool) -> None:
    layer = make_layer(cell, 3, 5, torch.float64)
    layer.native = True
    state = random_state(layer, 2, torch.float64)
    ids = torch.tensor([[0, 1], [2, 1], [1, 0]])
    names = [name for name, _ in layer.named_parameters()]
    x = random(3, 2, 3, dtype=torch.float64, seed=1)

    def function(inputs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        state_parts, parameters = rest[: len(state)], dict(zip(names, rest[len(state) :], strict=True))
        source = ids if with_ids else inputs
        outputs, last_state = torch.func.functional_call(layer, parameters, (source, state_parts))
        return outputs, *last_state

    assert torch.autograd.gradcheck(
        function, (x, *state, *layer.parameters()), eps=1e-6, atol=1e-8, rtol=1e-8, fast_mode=True
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("batch", "hidden"), [(3, 24), (TILE_ROWS + 1, UNITS), (2, UNITS + 5)])
def test_bfloat16_is_close_to_float32(cell: Cell, batch: int, hidden: int) -> None:
    layer = make_layer(cell, 7, hidden, torch.float32)
    for parameter in layer.parameters():
        parameter.data *= 0.4
    x, state = random(6, batch, 7, dtype=torch.float32, seed=1), random_state(layer, batch, torch.float32)
    exact = results(layer, True, x, state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bf16 = results(layer, True, x, state)
    assert bf16[0].dtype == torch.bfloat16  # input of the layer above
    assert all(part.dtype == torch.float32 for part in bf16[1 : 1 + len(state)])  # carried to the next chunk
    assert_close([part.float() for part in bf16], exact, 0.02)
    assert any(not torch.equal(one.float(), other) for one, other in zip(bf16, exact, strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("batch", "hidden"), [(3, 24), (TILE_ROWS + 1, UNITS), (2, UNITS + 5), (UNITS, 8 * UNITS)])
@pytest.mark.parametrize("scale", [0.4, 1])  # of the weights, relative to the other tests
def test_bfloat16_is_as_accurate_as_in_torch(cell: Cell, batch: int, hidden: int, scale: float) -> None:
    layer = make_layer(cell, 7, hidden, torch.float32)
    for parameter in layer.parameters():
        parameter.data *= scale
    x, state = random(6, batch, 7, dtype=torch.float32, seed=1), random_state(layer, batch, torch.float32)
    exact = results(layer, False, x, state)

    def errors(native: bool) -> list[float]:
        """Return the relative errors of the outputs, the last state and the gradients."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            bf16 = results(layer, native, x, state)
        return [((one.float() - other).norm() / other.norm()).item() for one, other in zip(bf16, exact, strict=True)]

    try:
        expected = errors(False)
    except RuntimeError as error:
        pytest.skip(f"torch cannot train this layer in bf16 here: {error}")
    actual = errors(True)
    assert sum(actual) < 1.05 * sum(expected)
    assert all(
        one < 1.3 * other for one, other in zip(actual, expected, strict=True)
    )  # single errors vary more than their sum


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinite_states_reach_the_outputs(cell: Cell, bad: float) -> None:
    layer = make_layer(cell, 3, 4, torch.float32)
    layer.native = True
    x = torch.zeros(3, 2, 3)
    state = tuple(torch.full((2, 4), bad) for _ in zeros(layer, 2))
    outputs, _ = layer(x, state)
    if bad != bad:
        assert outputs.isnan().any()
    else:
        torch.testing.assert_close(outputs, torch_outputs(layer, x, state), equal_nan=True)


def torch_outputs(layer: RecurrentLayer, x: Tensor, state: LayerState) -> Tensor:
    layer.native = False
    outputs: Tensor = layer(x, state)[0]
    return outputs


@pytest.mark.parametrize("cell", CELLS)
def test_consecutive_chunks_equal_one_long_chunk(cell: Cell) -> None:
    layer = make_layer(cell, 3, 20, torch.float32)
    layer.native = True
    x, state = random(9, 5, 3, dtype=torch.float32, seed=1), random_state(layer, 5, torch.float32)
    whole, end = layer(x, state)
    parts = []
    for chunk in (x[:4], x[4:5], x[5:]):
        outputs, state = layer(chunk, state)
        parts.append(outputs)
    assert_close([torch.cat(parts), *state], [whole, *end], 1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_a_stream_does_not_depend_on_other_streams(cell: Cell) -> None:
    layer = make_layer(cell, 3, 6, torch.float32)
    layer.native = True
    x, state = (
        random(4, TILE_ROWS + 2, 3, dtype=torch.float32, seed=1),
        random_state(layer, TILE_ROWS + 2, torch.float32),
    )
    together, _ = layer(x, state)
    for stream in (0, TILE_ROWS - 1, TILE_ROWS + 1):
        alone, _ = layer(x[:, stream : stream + 1], tuple(part[stream : stream + 1] for part in state))
        torch.testing.assert_close(alone, together[:, stream : stream + 1], rtol=1e-6, atol=1e-6)


def test_a_retained_graph_can_be_run_twice() -> None:
    layer = make_layer("lstm", 3, 4, torch.float32)
    layer.native = True
    x, state = random(3, 2, 3, dtype=torch.float32, seed=1), random_state(layer, 2, torch.float32)
    outputs, _ = layer(x, state)
    once = torch.autograd.grad(outputs.sum(), [x], retain_graph=True)[0]
    assert torch.equal(once, torch.autograd.grad(outputs.sum(), [x])[0])


@pytest.mark.parametrize("config", [
    ModelConfig(cell="lstm", hidden=24, dropout=0.3), ModelConfig(cell="gru", hidden=24, embedding=5, layers=3),
    ModelConfig(cell="rnn", hidden=24, layers=1),
], ids=str)  # fmt: skip
def test_a_network_computes_the_same_with_either_backend(config: ModelConfig) -> None:
    network = CharRNN(config, V)
    network.initialize(seed=0)
    ids = torch.randint(V, (7, 5), generator=torch.Generator().manual_seed(1))
    by_backend: list[Any] = []
    for native in (True, False):
        network.native = native
        assert network.native is native
        logits, state = network(ids, network.zero_state(5))
        grads = torch.autograd.grad(logits.square().sum(), list(network.parameters()))
        by_backend.append([logits, *(part for _, part in state.named()), *grads])
    assert_close(*by_backend, 1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden", [UNITS + 2, 5])  # bfloat16 numbers are packed in pairs; 5 is odd
@pytest.mark.parametrize("bf16", [False, True])
def test_weights_can_be_packed_in_advance(cell: Cell, hidden: int, bf16: bool) -> None:
    network, other = (CharRNN(ModelConfig(cell=cell, hidden=hidden), V) for _ in range(2))
    for seed, each in enumerate((network, other)):
        each.initialize(seed)
        each.native = True
    ids = torch.randint(V, (7, 5), generator=torch.Generator().manual_seed(1))
    by_packing = []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        for packed in ([], [pack() for pack in network.packing()], [pack() for pack in other.packing()]):
            outputs, _ = network.read(ids, network.zero_state(5), packed=packed)
            by_packing.append(
                [outputs, *torch.autograd.grad(outputs.square().sum(), list(network.layers.parameters()))]
            )
    assert all(torch.equal(one, two) for one, two in zip(by_packing[0], by_packing[1], strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(by_packing[0], by_packing[2], strict=True))


def test_dropout_applies_to_the_outputs_of_the_kernels() -> None:
    network = CharRNN(ModelConfig(hidden=16, dropout=0.5), V)
    network.initialize(seed=0)
    network.native = True
    ids = torch.randint(V, (7, 5), generator=torch.Generator().manual_seed(1))
    without_dropout = network(ids, network.zero_state(5))[0]
    one, same, other = (
        network(ids, network.zero_state(5), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, without_dropout)
