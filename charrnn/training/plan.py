"""What the tool does when told nothing: from a text's size, a machine's pace and a budget to every setting.

The decisions are made in one order, each from those before it: split, budget, size, batch, chunk, learning rate,
steps, dropout, evaluations. A setting that is given replaces its own decision and the later ones follow from it.
The plan is made once, before the first step, and written into the model file. Needs no torch: the pace of the machine
is a function that the caller hands in (``autotune.py`` measures it; `typical_timing` is a guess for looking ahead).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from charrnn.config import Engine, ModelConfig, Precision, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.units import format_count, format_duration

DEFAULT_SECONDS = 280.0  # of training without a budget: with the evaluations about five minutes
MAX_EPOCHS = 60  # without a budget; a small text is learned by then
MIN_STEPS = 400  # without a budget; a tiny text needs that many to be learned by heart
MIN_VALIDATION = 200  # characters; fewer say nothing about the model
MAX_VALIDATION = 500_000  # characters, unless a share is given
MAX_VALIDATION_SHARE = (
    0.1  # of what a budget in time reads, at most; more would be measured for longer than trained on
)
CHARACTERS_PER_PARAMETER = 7  # a network is as large as the budget can show it this many characters per parameter
MAX_USEFUL_EPOCHS = 5  # and larger where it would read the text more often: larger and less often learns more
MAX_SMALL_STEPS = 800  # but of a small text up to so many,
MAX_SMALL_EPOCHS = 8  # and up to these
MAX_SMALL_PARAMETERS = 3_500_000  # parameters that a network may have for a text of 10,000 characters
MIN_CHUNKS_PER_STREAM = 16  # at least, of a stream: fewer and longer ones learn more from a small text
REFERENCE_HIDDEN = 256  # units of the network whose pace first tells how large a one the budget allows
MAX_ONE_HOT_VOCAB = 256  # characters; larger vocabularies get an embedding


@dataclass(frozen=True)
class StepTiming:
    """How a network trains on a machine."""

    seconds_per_step: float
    precision: Precision
    engine: Engine
    threads: int
    note: str = ""  # anything that a person should know, such as why bf16 is not used


MeasureStep = Callable[[ModelConfig, TrainConfig, int], StepTiming]  # the last one is V, the size of the vocabulary


@dataclass(frozen=True)
class Plan:
    """Every setting of a run, decided."""

    model_config: ModelConfig
    train_config: TrainConfig  # device and precision resolved; without a budget, `steps` says how many
    steps: int  # what the budget is expected to buy
    steps_per_epoch: int  # steps of one epoch
    seconds: float  # expected, evaluations left out
    characters: int  # of the text
    validation_characters: int
    vocab_size: int  # V
    notes: tuple[str, ...]  # what a person should know: settings that were cut to fit a small text

    def budget_spent(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent after so many steps and seconds, 0 to 1 and beyond."""
        train, shares = self.train_config, []
        if train.minutes is not None:
            shares.append(seconds / (60 * train.minutes))
        if (most := _budget_in_steps(train, self.steps_per_epoch)) is not None:
            shares.append(step / most)
        return max(shares)

    def with_budget(self, train: TrainConfig) -> "Plan":
        """The same with other settings of the training, at the pace that it expects."""
        pace = self.seconds / self.steps
        steps = _expected_steps(train, self.steps_per_epoch, pace)
        return replace(self, train_config=train, steps=steps, seconds=steps * pace)

    @property
    def epoch_seconds(self) -> float:
        """What one epoch is expected to take."""
        return self.seconds / self.steps * self.steps_per_epoch

    @property
    def summary(self) -> str:
        """A description in one line."""
        model, train = self.model_config, self.train_config
        size = model.num_parameters(self.vocab_size)
        sizes = f"{model.layers} x {model.hidden} {model.cell.upper()}, {format_count(size)} parameters"
        epochs = self.steps / self.steps_per_epoch
        budget = f"{epochs:.1f} epochs" if train.minutes is not None else f"{self.steps:,} steps, {epochs:.1f} epochs"
        return (
            f"{sizes}; {train.batch_size} streams of {train.seq_length} characters a step, "
            f"dropout {model.dropout:g}, learning rate {train.learning_rate:.2g}, "
            f"{train.precision} on {train.device}; {budget}, {format_duration(self.seconds)}"
        )


def make_plan(characters: int, vocab_size: int, overrides: Overrides, measure_step: MeasureStep) -> Plan:
    """Decide every setting.

    Args:
        characters: length of the text, 2 or more.
        vocab_size: number of different characters (V).
        overrides: the settings that the user chose.
        measure_step: times a training step on this machine.

    Raises:
        SettingError: two settings exclude each other.
    """
    notes: list[str] = []
    seconds = DEFAULT_SECONDS if overrides.minutes is None else 60 * overrides.minutes
    train = overrides.apply(TrainConfig())
    if overrides.validation is None:  # a tenth of a large text would take longer to measure than to train on
        train = replace(train, validation=min(train.validation, MAX_VALIDATION / characters))
    validation, note = _validation_size(characters, train.validation)
    notes += note
    targets = characters - validation - 1
    batch, length = _fit_batch(targets, train, overrides)
    if (overrides.batch_size or batch) > batch or (overrides.seq_length or length) > length:
        notes.append(
            f"reduced to --batch-size {batch} --seq-length {length}, as the text has only {characters:,} characters"
        )
    train = replace(train, batch_size=batch, seq_length=length)

    model = _initial_model(vocab_size, overrides)
    if overrides.hidden is None:
        sizes = _candidates(model, targets, vocab_size, measured=validation > 0)
        model, timing = _largest(sizes, train, targets, vocab_size, seconds, measure_step)
    else:
        timing = measure_step(model, train, vocab_size)
    if overrides.learning_rate is None:
        train = replace(train, learning_rate=_learning_rate(model))
    train = replace(train, precision=timing.precision, engine=timing.engine, threads=timing.threads)
    notes += [timing.note] if timing.note else []

    steps_per_epoch = _steps_per_epoch(targets, train)
    if train.steps is None and train.epochs is None:
        in_time = max(1, int(seconds / timing.seconds_per_step))
        chosen = validation > 0 and overrides.hidden is None
        enough = _max_useful_steps(steps_per_epoch) if chosen else max(MIN_STEPS, MAX_EPOCHS * steps_per_epoch)
        if train.minutes is None or (chosen and enough < in_time):
            train = replace(train, steps=min(in_time, enough))
        if train.minutes is not None and train.steps is not None:
            times = f"{enough / steps_per_epoch:.0f} times"
            notes.append(f"ends once the text is read {times}, even if {format_duration(seconds)} are not over")
    steps = _expected_steps(train, steps_per_epoch, timing.seconds_per_step)
    if overrides.validation is None and train.epochs is None and overrides.steps is None:
        most = max(MIN_VALIDATION, int(MAX_VALIDATION_SHARE * steps * batch * length))
        if validation > most:  # a large text, of which little is read, or a large vocabulary, which is slow
            train = replace(train, validation=most / characters)
            validation, _ = _validation_size(characters, train.validation)
            targets = characters - validation - 1
            steps_per_epoch = _steps_per_epoch(targets, train)
    epochs = steps / steps_per_epoch
    if overrides.dropout is None:
        model = replace(model, dropout=_dropout(epochs, model.num_parameters(0) / targets))
    if overrides.evaluations is None:
        train = replace(train, evaluations=_evaluations(steps * batch * length, epochs, validation))
    seconds = steps * timing.seconds_per_step
    return Plan(model, train, steps, steps_per_epoch, seconds, characters, validation, vocab_size, tuple(notes))


def _expected_steps(train: TrainConfig, steps_per_epoch: int, seconds_per_step: float) -> int:
    """The steps that a budget is expected to buy; an epoch has ``steps_per_epoch``."""
    most = _budget_in_steps(train, steps_per_epoch)
    in_time = max(1, int(60 * train.minutes / seconds_per_step)) if train.minutes is not None else most
    return min(steps for steps in (most, in_time) if steps is not None)


def _budget_in_steps(train: TrainConfig, steps_per_epoch: int) -> int | None:
    """The budget in steps, where there is one in steps or epochs."""
    return train.steps if train.epochs is None else max(1, round(train.epochs * steps_per_epoch))


def typical_timing(model: ModelConfig, train: TrainConfig, vocab_size: int) -> StepTiming:
    """A laptop's pace, for looking ahead without torch: 0.1 Tflop/s, six flops per parameter and character."""
    return StepTiming(
        6 * model.num_parameters(vocab_size) * train.batch_size * train.seq_length / 1e11, "fp32", "torch", 1
    )


def _max_useful_steps(steps_per_epoch: int) -> int:
    """Steps after which a network that fits the text only learns it by heart."""
    return max(
        MIN_STEPS, MAX_USEFUL_EPOCHS * steps_per_epoch, min(MAX_SMALL_EPOCHS * steps_per_epoch, MAX_SMALL_STEPS)
    )


def _validation_size(characters: int, share: float) -> tuple[int, list[str]]:
    """Characters to measure on, and what to say about it."""
    validation = characters - int(characters * (1 - share) + 1e-6)  # as nanoGPT splits
    if validation < MIN_VALIDATION and share > 0:
        few = "1 character is" if validation == 1 else f"{validation} characters are"
        return 0, [f"{few} too few to measure on, so all {characters:,} are trained on"]
    return validation, []


def _steps_per_epoch(targets: int, train: TrainConfig) -> int:
    """The steps in which so many characters are predicted once."""
    return math.ceil(math.ceil(targets / train.batch_size) / train.seq_length)


def _fit_batch(targets: int, train: TrainConfig, overrides: Overrides) -> tuple[int, int]:
    """B and T that the text can fill."""
    batch, length = train.batch_size, train.seq_length
    if overrides.batch_size is None:
        batch = max(1, min(batch, targets // (MIN_CHUNKS_PER_STREAM * length)))
    batch = min(batch, targets)
    stream = math.ceil(targets / batch)
    if overrides.seq_length is None:
        length = math.ceil(stream / math.ceil(stream / length))  # equal chunks, hardly any padding
    return batch, min(length, stream)


def _initial_model(vocab_size: int, overrides: Overrides) -> ModelConfig:
    """The network before its size and dropout are decided."""
    model = overrides.apply(ModelConfig())
    if overrides.embedding is None:
        model = replace(model, embedding=0 if vocab_size <= MAX_ONE_HOT_VOCAB else 128)
    if overrides.dropout is None:
        model = replace(model, dropout=0.2)  # which takes its time, and is decided last
    return model


def _candidates(model: ModelConfig, targets: int, vocab_size: int, *, measured: bool) -> list[ModelConfig]:
    """Networks that the text can fill, the smallest first."""
    # Where the end of the text tells when to stop, a large network is better on a small text, too.
    most = max(min(MAX_SMALL_PARAMETERS, 350 * targets), 900_000 + 8 * targets) if measured else 20_000 + 4 * targets
    sizes = [replace(model, hidden=hidden) for hidden in range(64, 1025, 32)]
    return [size for size in sizes if size.num_parameters(vocab_size) <= most] or sizes[:1]


def _largest(
    sizes: Sequence[ModelConfig],
    train: TrainConfig,
    targets: int,
    vocab_size: int,
    seconds: float,
    measure_step: MeasureStep,
) -> tuple[ModelConfig, StepTiming]:
    """The largest network that the budget can train, and its timing."""
    chunk = train.batch_size * train.seq_length
    enough = _max_useful_steps(math.ceil(targets / chunk)) * chunk

    def largest(work: float) -> ModelConfig:
        """The largest network that so much work can train."""
        for size in reversed(sizes):
            characters = work / _multiplied_parameters(size, vocab_size)  # that the budget reads with it
            learned = size.num_parameters(
                0
            )  # a rare character's own would say nothing about how much there is to learn
            if characters >= min(CHARACTERS_PER_PARAMETER * learned, enough):
                return size
        return sizes[0]

    size = replace(sizes[0], hidden=min(REFERENCE_HIDDEN, sizes[-1].hidden))
    timing = measure_step(size, train, vocab_size)
    for _ in range(2):  # a larger network does more work in a second than the first one did
        better = largest(seconds / timing.seconds_per_step * chunk * _multiplied_parameters(size, vocab_size))
        if better == size:
            break
        size, timing = better, measure_step(better, train, vocab_size)
    return size, timing


def _multiplied_parameters(model: ModelConfig, vocab_size: int) -> int:
    """Parameters by which a character is multiplied: all but the vectors of the characters, which are looked up."""
    return model.num_parameters(0) + model.hidden * vocab_size


def _learning_rate(model: ModelConfig) -> float:
    """Smaller for wider networks; the plain RNN, with no gates to tame it, gets a quarter."""
    rate = min(0.015, 2.5 / model.hidden)
    return {"lstm": rate, "gru": rate / 2, "rnn": rate / 4}[model.cell]


def _dropout(epochs: float, parameters_per_character: float) -> float:
    """The more often a text is read, and the larger the network, the more it must be kept from learning by heart."""
    risk = epochs * parameters_per_character**0.25
    return next(
        (share for most, share in ((2, 0.0), (4, 0.1), (7.5, 0.2), (15, 0.3), (40, 0.4)) if risk <= most), 0.5
    )


def _evaluations(characters: int, epochs: float, validation: int) -> int:
    """As many as cost a few per cent of the training, forward passes being a third of its work.

    A small text that is read often is learned by heart early, so that the best model is to be caught in time.
    """
    often = max(25, min(100, round(epochs))) if validation else 20  # which only tell how it goes
    return max(5, min(often, characters // (8 * max(1, validation))))


def schedule(fraction: float, warmup: float) -> float:
    """The learning rate's share of its peak: half a cosine to 0 (Loshchilov & Hutter 2017), times a linear rise.

    Args:
        fraction: of the budget spent, 0 to 1.
        warmup: share of the budget in which the rate rises.
    """
    rise = min(1.0, (fraction + 1e-3) / (warmup + 1e-3))  # the first step moves, too
    return rise * 0.5 * (1 + math.cos(math.pi * fraction))
