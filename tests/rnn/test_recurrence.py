"""Our kernels against torch's layers: the same function, the same gradients, whatever the shapes."""

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
UNITS = 32  # of one tile or two


def layer(cell: Cell, inputs: int, hidden: int, dtype: torch.dtype) -> RecurrentLayer:
    """A layer with weights large enough to be felt, and too small for rounding errors to explode."""
    made = RecurrentLayer(cell, inputs, hidden).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=min(0.5, 1.5 * hidden**-0.5), generator=generator)
    return made


def random(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def state_of(made: RecurrentLayer, batch: int, dtype: torch.dtype) -> LayerState:
    parts, hidden = EQUATIONS[made.cell].num_state_arrays, made.layer.hidden_size
    return tuple(random(batch, hidden, dtype=dtype, seed=5 + part) for part in range(parts))


def zeros(made: RecurrentLayer, batch: int) -> LayerState:
    return tuple(torch.zeros_like(part) for part in state_of(made, batch, torch.float32))


def results(made: RecurrentLayer, native: bool, inputs: Tensor, state: LayerState, *more: Tensor) -> list[Tensor]:
    """Outputs, last state, and the gradient of a mixture of them with respect to everything that has one."""
    made.native = native
    outputs, after = made(inputs, state, *more)
    mixture = sum(
        (part * random(*part.shape, dtype=made.layer.weight_hh_l0.dtype, seed=20 + place).detach()).sum()
        for place, part in enumerate((outputs, *after))
    )
    given_ones = [inputs] if inputs.is_floating_point() else []
    grads = torch.autograd.grad(mixture, [*given_ones, *state, *more, *made.parameters()])  # type: ignore[arg-type]
    return [outputs, *after, *grads]


def assert_close(ours: list[Tensor], theirs: list[Tensor], relative: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other).detach().norm().item() <= relative * max(
            1.0, other.detach().norm().item()
        )  # a sum may cancel out


@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=12)
@given(
    steps=st.integers(1, 6),
    batch=st.sampled_from([1, 2, TILE_ROWS - 1, TILE_ROWS, TILE_ROWS + 3]),
    hidden=st.one_of(st.integers(1, 13), st.sampled_from([UNITS - 1, UNITS, UNITS + 1, 2 * UNITS])),
    inputs=st.integers(1, 5),
)
def test_the_kernels_compute_what_torch_computes(
    cell: Cell, steps: int, batch: int, hidden: int, inputs: int
) -> None:
    made = layer(cell, inputs, hidden, torch.float32)
    x, state = random(steps, batch, inputs, dtype=torch.float32, seed=1), state_of(made, batch, torch.float32)
    assert_close(results(made, True, x, state), results(made, False, x, state), 1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("embedding", [False, True])
@pytest.mark.parametrize(
    ("steps", "batch"), [(1, 1), (4, 3), (5, TILE_ROWS + 1)]
)  # fewer ids than the table, and more
def test_ids_are_looked_up_as_torch_multiplies_them(cell: Cell, embedding: bool, steps: int, batch: int) -> None:
    made = layer(cell, 4 if embedding else V, 6, torch.float32)
    ids = torch.randint(V, (steps, batch), generator=torch.Generator().manual_seed(2))
    vectors = [random(V, 4, dtype=torch.float32, seed=3)] if embedding else []
    state = state_of(made, batch, torch.float32)
    assert_close(results(made, True, ids, state, *vectors), results(made, False, ids, state, *vectors), 1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("looked_up", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_lie_in_rows_and_in_memory_of_their_own(cell: Cell, looked_up: bool, dtype: torch.dtype) -> None:
    made = layer(cell, 4, 6, torch.float32)  # AdamW and clipping, which write into them, look at neither
    made.native = True
    inputs = torch.tensor([[0, 1], [2, 1]]) if looked_up else random(2, 2, 4, dtype=torch.float32, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs, _ = made(inputs, zeros(made, 2))
    grads = torch.autograd.grad(outputs.float().sum(), list(made.parameters()))
    assert all(grad.is_contiguous() for grad in grads)
    assert len({grad.untyped_storage().data_ptr() for grad in grads}) == len(grads)


@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_of_the_last_state_may_lie_in_columns(cell: Cell) -> None:
    made = layer(cell, 3, 5, torch.float32)
    x, state = random(2, 4, 3, dtype=torch.float32, seed=1), state_of(made, 4, torch.float32)
    of_state = []
    for native in (True, False):
        made.native = native
        _, after = made(x, state)
        columns = [random(5, 4, dtype=torch.float32, seed=7 + place).detach().t() for place in range(len(after))]
        of_state.append(list(torch.autograd.grad(after, state, columns)))
    assert_close(of_state[0], of_state[1], 1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("looked_up", [False, True])
def test_the_gradients_are_those_of_the_function(cell: Cell, looked_up: bool) -> None:
    made = layer(cell, 3, 5, torch.float64)
    made.native = True
    state = state_of(made, 2, torch.float64)
    ids = torch.tensor([[0, 1], [2, 1], [1, 0]])
    names = [name for name, _ in made.named_parameters()]
    x = random(3, 2, 3, dtype=torch.float64, seed=1)

    def function(inputs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        before, parameters = rest[: len(state)], dict(zip(names, rest[len(state) :], strict=True))
        source = ids if looked_up else inputs
        outputs, after = torch.func.functional_call(made, parameters, (source, before))
        return outputs, *after

    assert torch.autograd.gradcheck(
        function, (x, *state, *made.parameters()), eps=1e-6, atol=1e-8, rtol=1e-8, fast_mode=True
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("batch", "hidden"), [(3, 24), (TILE_ROWS + 1, UNITS), (2, UNITS + 5)])
def test_bfloat16_is_near_float32(cell: Cell, batch: int, hidden: int) -> None:
    made = layer(cell, 7, hidden, torch.float32)
    for parameter in made.parameters():
        parameter.data *= 0.4
    x, state = random(6, batch, 7, dtype=torch.float32, seed=1), state_of(made, batch, torch.float32)
    exact = results(made, True, x, state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = results(made, True, x, state)
    assert rough[0].dtype == torch.bfloat16  # what the layer above multiplies
    assert all(part.dtype == torch.float32 for part in rough[1 : 1 + len(state)])  # what is carried
    assert_close([part.float() for part in rough], exact, 0.02)
    assert any(not torch.equal(one.float(), other) for one, other in zip(rough, exact, strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("batch", "hidden"), [(3, 24), (TILE_ROWS + 1, UNITS), (2, UNITS + 5), (UNITS, 8 * UNITS)])
@pytest.mark.parametrize("loud", [0.4, 1])  # weights, against those of the other tests
def test_bfloat16_is_as_exact_as_torch_s(cell: Cell, batch: int, hidden: int, loud: float) -> None:
    made = layer(cell, 7, hidden, torch.float32)
    for parameter in made.parameters():
        parameter.data *= loud
    x, state = random(6, batch, 7, dtype=torch.float32, seed=1), state_of(made, batch, torch.float32)
    exact = results(made, False, x, state)

    def errors(native: bool) -> list[float]:
        """Relative, of outputs, last state and gradients."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = results(made, native, x, state)
        return [((one.float() - other).norm() / other.norm()).item() for one, other in zip(rough, exact, strict=True)]

    try:
        theirs = errors(False)
    except RuntimeError as error:
        pytest.skip(f"torch cannot train this layer in bf16 here: {error}")
    ours = errors(True)
    assert sum(ours) < 1.05 * sum(theirs)
    assert all(one < 1.3 * other for one, other in zip(ours, theirs, strict=True))  # roundings fall this way or that


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_run_that_diverges_is_seen_to_diverge(cell: Cell, bad: float) -> None:
    made = layer(cell, 3, 4, torch.float32)
    made.native = True
    x = torch.zeros(3, 2, 3)
    state = tuple(torch.full((2, 4), bad) for _ in zeros(made, 2))
    outputs, _ = made(x, state)
    if bad != bad:
        assert outputs.isnan().any()
    else:
        torch.testing.assert_close(outputs, layer_of_torch(made, x, state), equal_nan=True)


def layer_of_torch(made: RecurrentLayer, x: Tensor, state: LayerState) -> Tensor:
    made.native = False
    outputs: Tensor = made(x, state)[0]
    return outputs


@pytest.mark.parametrize("cell", CELLS)
def test_chunks_one_after_another_are_the_whole(cell: Cell) -> None:
    made = layer(cell, 3, 20, torch.float32)
    made.native = True
    x, state = random(9, 5, 3, dtype=torch.float32, seed=1), state_of(made, 5, torch.float32)
    whole, end = made(x, state)
    parts = []
    for chunk in (x[:4], x[4:5], x[5:]):
        outputs, state = made(chunk, state)
        parts.append(outputs)
    assert_close([torch.cat(parts), *state], [whole, *end], 1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_a_stream_alone_is_the_same_stream_among_others(cell: Cell) -> None:
    made = layer(cell, 3, 6, torch.float32)
    made.native = True
    x, state = random(4, TILE_ROWS + 2, 3, dtype=torch.float32, seed=1), state_of(made, TILE_ROWS + 2, torch.float32)
    together, _ = made(x, state)
    for stream in (0, TILE_ROWS - 1, TILE_ROWS + 1):
        alone, _ = made(x[:, stream : stream + 1], tuple(part[stream : stream + 1] for part in state))
        torch.testing.assert_close(alone, together[:, stream : stream + 1], rtol=1e-6, atol=1e-6)


def test_the_kept_graph_may_be_run_twice() -> None:
    made = layer("lstm", 3, 4, torch.float32)
    made.native = True
    x, state = random(3, 2, 3, dtype=torch.float32, seed=1), state_of(made, 2, torch.float32)
    outputs, _ = made(x, state)
    once = torch.autograd.grad(outputs.sum(), [x], retain_graph=True)[0]
    assert torch.equal(once, torch.autograd.grad(outputs.sum(), [x])[0])


@pytest.mark.parametrize("config", [
    ModelConfig(cell="lstm", hidden=24, dropout=0.3), ModelConfig(cell="gru", hidden=24, embedding=5, layers=3),
    ModelConfig(cell="rnn", hidden=24, layers=1),
], ids=str)  # fmt: skip
def test_a_network_computes_the_same_by_either_engine(config: ModelConfig) -> None:
    network = CharRNN(config, V)
    network.initialize(seed=0)
    ids = torch.randint(V, (7, 5), generator=torch.Generator().manual_seed(1))
    both: list[Any] = []
    for native in (True, False):
        network.native = native
        assert network.native is native
        logits, state = network(ids, network.zero_state(5))
        grads = torch.autograd.grad(logits.square().sum(), list(network.parameters()))
        both.append([logits, *(part for _, part in state.named()), *grads])
    assert_close(*both, 1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden", [UNITS + 2, 5])  # bfloat16 comes in pairs, of which the latter lacks a half
@pytest.mark.parametrize("rough", [False, True])
def test_weights_may_be_packed_beforehand(cell: Cell, hidden: int, rough: bool) -> None:
    network, other = (CharRNN(ModelConfig(cell=cell, hidden=hidden), V) for _ in range(2))
    for seed, each in enumerate((network, other)):
        each.initialize(seed)
        each.native = True
    ids = torch.randint(V, (7, 5), generator=torch.Generator().manual_seed(1))
    every = []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=rough):
        for packed in ([], [pack() for pack in network.packing()], [pack() for pack in other.packing()]):
            outputs, _ = network.read(ids, network.zero_state(5), packed=packed)
            every.append([outputs, *torch.autograd.grad(outputs.square().sum(), list(network.layers.parameters()))])
    assert all(torch.equal(one, two) for one, two in zip(every[0], every[1], strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(every[0], every[2], strict=True))


def test_dropout_acts_on_what_the_kernels_give() -> None:
    network = CharRNN(ModelConfig(hidden=16, dropout=0.5), V)
    network.initialize(seed=0)
    network.native = True
    ids = torch.randint(V, (7, 5), generator=torch.Generator().manual_seed(1))
    calm = network(ids, network.zero_state(5))[0]
    one, same, other = (
        network(ids, network.zero_state(5), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, calm)
