"""Choose every setting of a run from the size of the text, the speed of the machine and the budget.

The settings are decided in this order: validation text, batch size and sequence length, network size, learning rate,
steps, dropout and evaluations. Each decision uses the ones before it. A setting that the user chose replaces its
decision. The plan is made once, before the first step, and saved with the run.

This module does not import torch. The caller passes a function that times a training step: ``autotune.py`` measures
one, `typical_timing` estimates one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from charrnn.config import Engine, ModelConfig, Precision, TrainConfig
from charrnn.config.checks import Integer, Range
from charrnn.config.overrides import Overrides
from charrnn.config.settings import checked
from charrnn.training.memory import SIZES, TIGHT_SHARE, check_memory, training_bytes
from charrnn.units import format_bytes, format_count, format_duration

DEFAULT_SECONDS = 280.0  # training time without a budget; with the evaluations about five minutes
MAX_EPOCHS = 60  # limit of a run without a budget; enough to learn a small text
MIN_STEPS = 400  # steps that a run without a budget may always take; enough to memorize a tiny text
MIN_VALIDATION = 200  # characters; a shorter validation text says little about the model
MAX_VALIDATION = 500_000  # characters, unless the user chose a share; more would take too long to measure
MAX_VALIDATION_SHARE = 0.1  # of the characters that a budget in time reads; more would take longer than the training
CHARACTERS_PER_PARAMETER = 7  # the network size is chosen so that the budget reads this many characters per parameter
MAX_USEFUL_EPOCHS = 5  # beyond this, a larger network that reads the text less often learns more
# A small text may be read more often, up to this many steps and epochs.
MAX_SMALL_STEPS = 800
MAX_SMALL_EPOCHS = 8
MAX_SMALL_PARAMETERS = 3_500_000  # largest network for a text of 10,000 characters
MIN_CHUNKS_PER_STREAM = 16  # a small text is learned better from fewer and longer streams
REFERENCE_HIDDEN = 256  # units of the network that is timed first
MAX_ONE_HOT_VOCAB = 256  # characters; larger vocabularies get an embedding


@dataclass(frozen=True)
class StepTiming:
    """Measured time of a training step, and the settings with which it was measured."""

    seconds_per_step: float
    precision: Precision
    engine: Engine
    threads: int
    note: str = ""  # note for the user, such as the reason why bf16 is not used


MeasureStep = Callable[[ModelConfig, TrainConfig, int], StepTiming]  # the last argument is the vocabulary size V


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every setting of a run."""

    model_config: ModelConfig
    train_config: TrainConfig  # with device and precision decided; without a budget, with planned steps
    steps: int = checked(Integer(1))  # expected number of steps
    steps_per_epoch: int = checked(Integer(1))
    # expected duration without the evaluations
    seconds: float = checked(Range(0, math.inf, "a number of seconds above 0", exclude_low=True))
    characters: int = checked(Integer(2))  # length of the text
    validation_characters: int = checked(Integer(0))  # length of the validation text
    vocab_size: int = checked(Integer(1))  # V
    notes: tuple[str, ...]  # notes for the user, such as settings that were reduced to fit a small text

    def __post_init__(self) -> None:
        train, targets = self.train_config, self.characters - self.validation_characters - 1
        if targets < 1:
            raise ValueError("the validation text leaves nothing to train on")
        if train.batch_size > targets or train.batch_size * train.seq_length > targets + train.batch_size - 1:
            raise ValueError("the batches are larger than the text")
        if train.minutes is None and train.steps is None and train.epochs is None:
            raise ValueError("the run has no budget")

    def budget_spent(self, step: int, seconds: float) -> float:
        """Return the share of the budget that a number of steps and seconds uses. It can exceed 1."""
        train, shares = self.train_config, []
        if train.minutes is not None:
            shares.append(seconds / (60 * train.minutes))
        if (max_steps := _budget_in_steps(train, self.steps_per_epoch)) is not None:
            shares.append(step / max_steps)
        return max(shares)

    def with_budget(self, train: TrainConfig) -> "Plan":
        """Return the plan with the budget of another `TrainConfig`, at the same expected speed."""
        seconds_per_step = self.seconds / self.steps
        steps = _expected_steps(train, self.steps_per_epoch, seconds_per_step)
        return replace(self, train_config=train, steps=steps, seconds=steps * seconds_per_step)

    @property
    def epoch_seconds(self) -> float:
        """Expected duration of an epoch in seconds."""
        return self.seconds / self.steps * self.steps_per_epoch

    @property
    def summary(self) -> str:
        """Description of the plan in one line."""
        model, train = self.model_config, self.train_config
        size = model.num_parameters(self.vocab_size)
        sizes = f"{model.layers} x {model.hidden} {model.cell.upper()}, {format_count(size)} parameters"
        epochs = self.steps / self.steps_per_epoch
        budget = f"{epochs:.1f} epochs" if train.minutes is not None else f"{self.steps:,} steps, {epochs:.1f} epochs"
        return (
            f"{sizes}; {train.batch_size} streams of {train.seq_length} characters, "
            f"dropout {model.dropout:g}, learning rate {train.learning_rate:.2g}, "
            f"{train.precision} on {train.device}; {budget}, {format_duration(self.seconds)}"
        )


def make_plan(
    characters: int,
    vocab_size: int,
    overrides: Overrides,
    measure_step: MeasureStep,
    available_memory: float = math.inf,
) -> Plan:
    """Return a plan for a text.

    Args:
        characters: Length of the text, 2 or more.
        vocab_size: Number of different characters (V).
        overrides: Settings that the user chose.
        measure_step: Function that returns the time of a training step.
        available_memory: Available memory in bytes. No network that needs more is measured or planned.

    Raises:
        SettingError: If two settings exclude each other, or a chosen size needs more memory than is available.
        CharrnnError: If even the smallest network needs more memory than is available.
    """
    notes: list[str] = []
    seconds = DEFAULT_SECONDS if overrides.minutes is None else 60 * overrides.minutes
    train = overrides.apply(TrainConfig())
    if overrides.validation is None:
        train = replace(train, validation=min(train.validation, MAX_VALIDATION / characters))
    validation, validation_notes = _validation_size(characters, train.validation)
    notes += validation_notes
    targets = characters - validation - 1
    batch_size, seq_length = _fit_batch(targets, train, overrides)
    if (overrides.batch_size or batch_size) > batch_size or (overrides.seq_length or seq_length) > seq_length:
        options = f"--batch-size {batch_size} --seq-length {seq_length}"
        notes.append(f"reduced to {options}, as the text has only {characters:,} characters")
    train = replace(train, batch_size=batch_size, seq_length=seq_length)

    model = _initial_model(vocab_size, overrides)
    if overrides.hidden is None:
        candidates = _candidates(model, targets, vocab_size, has_validation=validation > 0)
        limit = TIGHT_SHARE * available_memory
        small = [network for network in candidates if training_bytes(network, train, vocab_size) <= limit]
        candidates = small or candidates[:1]
        check_memory(candidates[0], train, vocab_size, available_memory, _chosen_sizes(overrides))
        model, timing = _largest_trainable(candidates, train, targets, vocab_size, seconds, measure_step)
    else:
        check_memory(model, train, vocab_size, available_memory, _chosen_sizes(overrides))
        timing = measure_step(model, train, vocab_size)
    if overrides.learning_rate is None:
        train = replace(train, learning_rate=_learning_rate(model))
    train = replace(train, precision=timing.precision, engine=timing.engine, threads=timing.threads)
    notes += [timing.note] if timing.note else []
    if (needed := training_bytes(model, train, vocab_size)) > TIGHT_SHARE * available_memory:
        sizes = f"about {format_bytes(needed)} of memory, and {format_bytes(int(available_memory))} is available"
        notes.append(f"memory is tight: training needs {sizes}")

    steps_per_epoch = _steps_per_epoch(targets, train)
    if train.steps is None and train.epochs is None:
        steps_in_time = max(1, int(seconds / timing.seconds_per_step))
        size_is_planned = validation > 0 and overrides.hidden is None
        max_steps = (
            _max_useful_steps(steps_per_epoch) if size_is_planned else max(MIN_STEPS, MAX_EPOCHS * steps_per_epoch)
        )
        if train.minutes is None or (size_is_planned and max_steps < steps_in_time):
            train = replace(train, steps=min(steps_in_time, max_steps))
        if train.minutes is not None and train.steps is not None:
            times = f"{max_steps / steps_per_epoch:.0f} times"
            notes.append(f"training ends once the text has been read {times}, even before {format_duration(seconds)}")
    steps = _expected_steps(train, steps_per_epoch, timing.seconds_per_step)
    if overrides.validation is None and train.epochs is None and overrides.steps is None:
        max_validation = max(MIN_VALIDATION, int(MAX_VALIDATION_SHARE * steps * batch_size * seq_length))
        if validation > max_validation:  # the budget reads only a small part of the text
            train = replace(train, validation=max_validation / characters)
            validation, _ = _validation_size(characters, train.validation)
            targets = characters - validation - 1
            steps_per_epoch = _steps_per_epoch(targets, train)
    epochs = steps / steps_per_epoch
    if overrides.dropout is None:
        model = replace(model, dropout=_dropout(epochs, model.num_parameters(0) / targets))
    if overrides.evaluations is None:
        train = replace(train, evaluations=_num_evaluations(steps * batch_size * seq_length, epochs, validation))
    seconds = steps * timing.seconds_per_step
    return Plan(
        model_config=model, train_config=train, steps=steps, steps_per_epoch=steps_per_epoch, seconds=seconds,
        characters=characters, validation_characters=validation, vocab_size=vocab_size, notes=tuple(notes),
    )  # fmt: skip


def _chosen_sizes(overrides: Overrides) -> list[str]:
    """Return the names of the sizes that the user chose. With ``--from``, the sizes of the network are given."""
    from_base = () if overrides.from_model is None else tuple(name for name in SIZES if hasattr(ModelConfig, name))
    return [name for name in SIZES if getattr(overrides, name) is not None and name not in from_base]


def _expected_steps(train: TrainConfig, steps_per_epoch: int, seconds_per_step: float) -> int:
    """Return the number of steps that fit the budget."""
    max_steps = _budget_in_steps(train, steps_per_epoch)
    steps_in_time = max(1, int(60 * train.minutes / seconds_per_step)) if train.minutes is not None else max_steps
    return min(steps for steps in (max_steps, steps_in_time) if steps is not None)


def _budget_in_steps(train: TrainConfig, steps_per_epoch: int) -> int | None:
    """Return the budget in steps, or None if it is in minutes only."""
    return train.steps if train.epochs is None else max(1, min(round(train.epochs * steps_per_epoch), 2**63 - 1))


def typical_timing(model: ModelConfig, train: TrainConfig, vocab_size: int) -> StepTiming:
    """Estimate the time of a step on a laptop: 0.1 Tflop/s, six flops per parameter and character."""
    return StepTiming(
        6 * model.num_parameters(vocab_size) * train.batch_size * train.seq_length / 1e11, "fp32", "torch", 1
    )


def _max_useful_steps(steps_per_epoch: int) -> int:
    """Return the number of steps after which a network planned for the text starts to overfit."""
    return max(
        MIN_STEPS, MAX_USEFUL_EPOCHS * steps_per_epoch, min(MAX_SMALL_EPOCHS * steps_per_epoch, MAX_SMALL_STEPS)
    )


def _validation_size(characters: int, share: float) -> tuple[int, list[str]]:
    """Return the length of the validation text, and notes about it."""
    validation = characters - int(characters * (1 - share) + 1e-6)  # the split of nanoGPT
    if validation < MIN_VALIDATION and share > 0:
        few = "1 character is" if validation == 1 else f"{validation} characters are"
        return 0, [f"{few} too few for a validation text, so the network trains on all {characters:,}"]
    return validation, []


def _steps_per_epoch(targets: int, train: TrainConfig) -> int:
    """Return the number of steps in which every target is predicted once."""
    return math.ceil(math.ceil(targets / train.batch_size) / train.seq_length)


def _fit_batch(targets: int, train: TrainConfig, overrides: Overrides) -> tuple[int, int]:
    """Return the batch size B and the sequence length T, reduced until the text can fill them."""
    batch_size, seq_length = train.batch_size, train.seq_length
    if overrides.batch_size is None:
        batch_size = max(1, min(batch_size, targets // (MIN_CHUNKS_PER_STREAM * seq_length)))
    batch_size = min(batch_size, targets)
    stream_length = math.ceil(targets / batch_size)
    if overrides.seq_length is None:
        num_chunks = math.ceil(stream_length / seq_length)
        seq_length = math.ceil(stream_length / num_chunks)  # equal chunks need hardly any padding
    return batch_size, min(seq_length, stream_length)


def _initial_model(vocab_size: int, overrides: Overrides) -> ModelConfig:
    """Return the configuration of the network before its size and dropout are decided."""
    model = overrides.apply(ModelConfig())
    if overrides.embedding is None:
        model = replace(model, embedding=0 if vocab_size <= MAX_ONE_HOT_VOCAB else 128)
    if overrides.dropout is None:
        model = replace(model, dropout=0.2)  # for the timing; the final value is decided last
    return model


def _candidates(model: ModelConfig, targets: int, vocab_size: int, *, has_validation: bool) -> list[ModelConfig]:
    """Return networks of increasing size that suit the length of the text."""
    # With a validation text, training stops before a network overfits. So a small text can have a large network.
    max_parameters = (
        max(min(MAX_SMALL_PARAMETERS, 350 * targets), 900_000 + 8 * targets)
        if has_validation
        else 20_000 + 4 * targets
    )
    models = [replace(model, hidden=hidden) for hidden in range(64, 1025, 32)]
    return [model for model in models if model.num_parameters(vocab_size) <= max_parameters] or models[:1]


def _largest_trainable(
    candidates: Sequence[ModelConfig],
    train: TrainConfig,
    targets: int,
    vocab_size: int,
    seconds: float,
    measure_step: MeasureStep,
) -> tuple[ModelConfig, StepTiming]:
    """Return the largest of the candidates that the budget can train, and its timing."""
    chunk_size = train.batch_size * train.seq_length
    max_characters = _max_useful_steps(math.ceil(targets / chunk_size)) * chunk_size

    def largest(products: float) -> ModelConfig:
        """Return the largest network that can be trained with this many products of a parameter and a character."""
        for model in reversed(candidates):
            characters = products / _multiplied_parameters(model, vocab_size)
            # Parameters per vocabulary entry are left out: most of them belong to rare characters.
            parameters = model.num_parameters(0)
            if characters >= min(CHARACTERS_PER_PARAMETER * parameters, max_characters):
                return model
        return candidates[0]

    model = replace(candidates[0], hidden=min(REFERENCE_HIDDEN, candidates[-1].hidden))
    timing = measure_step(model, train, vocab_size)
    for _ in range(2):  # larger networks reach more flop/s, so the second timing corrects the first
        products_per_step = chunk_size * _multiplied_parameters(model, vocab_size)
        better = largest(seconds / timing.seconds_per_step * products_per_step)
        if better == model:
            break
        model, timing = better, measure_step(better, train, vocab_size)
    return model, timing


def _multiplied_parameters(model: ModelConfig, vocab_size: int) -> int:
    """Return the number of parameters in matrix products: all but the input vectors of the vocabulary."""
    return model.num_parameters(0) + model.hidden * vocab_size


def _learning_rate(model: ModelConfig) -> float:
    """Return the peak learning rate. It is lower for wider networks, and for cells with fewer gates."""
    rate = min(0.015, 2.5 / model.hidden)
    return {"lstm": rate, "gru": rate / 2, "rnn": rate / 4}[model.cell]


def _dropout(epochs: float, parameters_per_character: float) -> float:
    """Return the dropout probability. It rises with the risk of overfitting: more epochs, or more parameters."""
    risk = epochs * parameters_per_character**0.25
    limits = ((2, 0.0), (4, 0.1), (7.5, 0.2), (15, 0.3), (40, 0.4))
    return next((dropout for max_risk, dropout in limits if risk <= max_risk), 0.5)


def _num_evaluations(characters: int, epochs: float, validation: int) -> int:
    """Return the number of evaluations that costs a few per cent of the training time.

    A forward pass is a third of the work of a training step. Many epochs get more evaluations, because a network that
    reads a small text often overfits early.
    """
    max_evaluations = max(25, min(100, round(epochs))) if validation else 20  # without validation, for the log only
    return max(5, min(max_evaluations, characters // (8 * max(1, validation))))


def schedule(fraction: float, warmup: float) -> float:
    """Return the value of the learning-rate schedule, as a share of its peak: linear warmup times cosine decay to 0.

    The cosine decay is that of Loshchilov & Hutter (2017).

    Args:
        fraction: Share of the budget that is spent, 0 to 1.
        warmup: Share of the budget in which the learning rate rises to its peak.
    """
    rise = min(1.0, (fraction + 1e-3) / (warmup + 1e-3))  # not 0 at the first step
    return rise * 0.5 * (1 + math.cos(math.pi * fraction))
