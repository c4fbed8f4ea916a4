"""Estimates the memory that training needs from the sizes of the network, before anything is allocated.

The estimates count the arrays of a run, but not the unused parts of the C library's heap, so a run can take half as
much again. ``benchmarks/memory.py`` compares the estimates with measured runs.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn.config import ModelConfig, TrainConfig
from charrnn.errors import CharrnnError, ModelFileError, SettingError
from charrnn.rnn.cells import EQUATIONS
from charrnn.rnn.stream_groups import GROUP_SIZE
from charrnn.rnn.worker_pool import usable_cores
from charrnn.units import format_bytes

if TYPE_CHECKING:
    from charrnn.training.run_state import SavedRun

TIGHT_SHARE = 0.7  # share of the available memory above which a plan has a note, and no network is chosen
SIZES = ("hidden", "layers", "embedding", "batch_size", "seq_length")  # settings on which the needed memory depends

_FLOAT_BYTES = 4
_INT_BYTES = 8
_STEP_COPIES = 5  # arrays of the size of the weights: weights, gradient, two moments of AdamW, average
_STEP_STATES = 3  # recurrent states: before the step, after it in groups, and after it joined
_LAYER_BYTES = 20_000  # Python objects of a layer
# Arrays of the size of the weights that a run has besides those of a step: weights, moments and average of the
# current step (4) and of the last evaluation (4), the best weights, the weights that are evaluated, and files (6, the
# smallest measured number). A run that saves no files needs as much.
_RUN_COPIES = 4 + 4 + 1 + 1 + 6
_RUN_STATES = 4
_RUN_LAYER_BYTES = 10_000


def step_bytes(model: ModelConfig, train: TrainConfig, vocab_size: int) -> int:
    """Return the bytes of a network, its optimizer and one training step on the CPU, or 0 for another device.

    Args:
        model: Sizes of the network.
        train: Batch size B, sequence length T, device, precision and threads.
        vocab_size: V.
    """
    if train.device not in ("auto", "cpu"):
        return 0  # torch reports it if the memory of the device is too small
    parameters, cell = model.num_parameters(vocab_size), EQUATIONS[model.cell]
    groups = -(-train.batch_size // GROUP_SIZE)
    copies = _STEP_COPIES + groups + (groups > 1)  # gradients of the groups, and their sum
    packed = 2 * model.layers * cell.gates * model.hidden**2 if train.engine != "torch" else 0
    # The activations of a group are freed after its backward pass, so each thread has the activations of one group.
    streams = min(train.batch_size, GROUP_SIZE * (train.threads or usable_cores()))
    value_bytes = _FLOAT_BYTES // 2 if train.precision == "bf16" else _FLOAT_BYTES
    # Of each layer: pre-activations, states, inputs and outputs. Of one layer: gradients and temporary copies.
    gates_and_states = model.layers * (cell.pre_activations + 5) + 3 * cell.pre_activations
    activations = train.seq_length * streams * model.hidden * gates_and_states
    logits = 3 * train.seq_length * streams * vocab_size  # logits, probabilities and gradient
    ids = 4 * train.seq_length * train.batch_size
    return (
        _FLOAT_BYTES * (copies * parameters + packed + _STEP_STATES * _state_size(model, train) + logits)
        + value_bytes * activations
        + _INT_BYTES * ids
        + _LAYER_BYTES * model.layers
    )


def training_bytes(model: ModelConfig, train: TrainConfig, vocab_size: int) -> int:
    """Return the bytes of a whole run: a step (`step_bytes`), and the arrays that are kept, evaluated and saved."""
    kept = _RUN_COPIES * model.num_parameters(vocab_size) + _RUN_STATES * _state_size(model, train)
    return step_bytes(model, train, vocab_size) + _FLOAT_BYTES * kept + _RUN_LAYER_BYTES * model.layers


def check_memory(
    model: ModelConfig,
    train: TrainConfig,
    vocab_size: int,
    available: float,
    chosen: Collection[str] = (),
    count: Callable[[ModelConfig, TrainConfig, int], int] = training_bytes,
) -> None:
    """Check that there is enough memory.

    Args:
        model: Sizes of the network.
        train: Training settings.
        vocab_size: V.
        available: Available memory in bytes.
        chosen: Names of the settings that the user chose.
        count: Function that returns the bytes that are needed.

    Raises:
        SettingError: If there is not enough, and a chosen size is at fault. The error names the chosen size whose
            default would save the most memory.
        CharrnnError: If there is not enough, and no chosen size is at fault.
    """
    needed = count(model, train, vocab_size)
    if needed <= available:
        return
    network = f"a network of {model.layers:,} x {model.hidden:,}"
    streams = f"{train.batch_size:,} streams of {train.seq_length:,} characters"
    numbers = f"needs {format_bytes(needed)} of memory, but only {format_bytes(int(available))} is available"
    with_default = {name: count(*_with_default(model, train, name), vocab_size) for name in SIZES if name in chosen}
    name = min(with_default, key=lambda name: with_default[name], default=None)
    if name is None or with_default[name] >= needed:
        advice = "free some memory, or give a smaller --hidden or --batch-size"
        raise CharrnnError("memory", f"{network} with {streams} {numbers}", advice)
    option = "--" + name.replace("_", "-")
    details = {"embedding": f" with an embedding of {model.embedding:,}"}
    details |= dict.fromkeys(("batch_size", "seq_length"), f" with {streams}")
    raise SettingError(name, f"{network}{details.get(name, '')} {numbers}", f"give a smaller {option}")


def check_resumed(saved: "SavedRun", path: Path, available: float) -> None:
    """Check that there is enough memory to continue a run.

    Args:
        saved: The run. The memory of its arrays is already allocated, so it is not needed again.
        path: Path of its training state.
        available: Available memory in bytes.

    Raises:
        ModelFileError: If there is not enough.
    """
    plan = saved.run.plan
    groups = saved.current.tensors, saved.last_good.tensors, saved.best
    loaded = sum({id(array): array.nbytes for tensors in groups for array in tensors.values()}.values())
    needed = training_bytes(plan.model_config, plan.train_config, len(saved.run.vocabulary)) - loaded
    if needed > available:
        network = f"a network of {plan.model_config.layers:,} x {plan.model_config.hidden:,}"
        numbers = f"needs {format_bytes(needed)} more memory, but only {format_bytes(int(available))} is available"
        raise ModelFileError(str(path), f"{network} {numbers}", "resume it on a machine with more memory")


def _with_default(model: ModelConfig, train: TrainConfig, name: str) -> tuple[ModelConfig, TrainConfig]:
    """Return the configs with one size at its default."""
    if hasattr(ModelConfig, name):
        return replace(model, **{name: getattr(ModelConfig, name)}), train
    return model, replace(train, **{name: getattr(TrainConfig, name)})


def _state_size(model: ModelConfig, train: TrainConfig) -> int:
    """Return the number of values in the recurrent state of all streams."""
    return train.batch_size * model.layers * EQUATIONS[model.cell].num_state_arrays * model.hidden
