"""The loop: truncated backpropagation through time, with the state carried from chunk to chunk.

`Trainer.run` yields what happens and leaves the rest (bars, lines, files) to whoever listens. Evaluations touch
neither the training state nor its random numbers. Knows no terminal and no file.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from charrnn.checkpoint import Checkpoint, Tensors
from charrnn.config import ModelConfig, TrainConfig
from charrnn.errors import TrainingError
from charrnn.evaluation.bits import carried_nats
from charrnn.model.network import CharRNN
from charrnn.text.corpus import Corpus
from charrnn.text.streams import Streams
from charrnn.training.learner import Learner, autocast
from charrnn.training.plan import Plan
from charrnn.version import __version__

LEARNED = 0.01  # nats by which the training loss falls while the validation loss doesn't: learning by heart

Reason = Literal["done", "overfitting", "stuck", "stopped"]


@dataclass(frozen=True)
class Step:
    """One optimizer step was taken."""

    step: int  # 1 for the first
    fraction: float  # of the budget spent, 0 to 1
    nats: float  # training loss of this step
    characters: int  # read so far


@dataclass(frozen=True)
class Evaluation:
    """The validation text was measured."""

    step: int
    epoch: float
    fraction: float
    train_nats: float  # mean since the evaluation before, dropout included
    validation_nats: float | None  # None without a validation text
    best: bool  # the best so far; `Trainer.checkpoint` holds it


@dataclass(frozen=True)
class Finished:
    """The run is over; `Trainer.checkpoint` holds the best model."""

    reason: Reason
    step: int
    best_step: int
    best_epoch: float
    validation_nats: float | None  # of the best model in fp32, as `charrnn eval` gives it
    late_gain: float  # nats by which the last fifth of the run bettered the validation loss
    seconds: float


Event = Step | Evaluation | Finished


class Trainer:
    """Trains one network on one corpus as a plan says.

    Args:
        corpus: the text.
        plan: every setting, decided.

    Attributes:
        stop: set it to True and the run ends after the step at hand, with an evaluation, as if it had been done.
    """

    def __init__(self, corpus: Corpus, plan: Plan) -> None:
        self.stop = False
        self._corpus = corpus
        self._plan = plan
        self._config: TrainConfig = plan.train
        training, self._validation = corpus.split(plan.validation_characters)
        self._streams = Streams(training, self._config.batch_size, self._config.seq_length)
        self._network = CharRNN(plan.model, len(corpus.vocabulary))
        self._network.initialize(self._config.seed)
        self._learner = Learner(self._network, self._config)
        self._best: Tensors = self._network.tensors()
        self._best_nats = math.inf
        self._best_step = 0
        self._step = 0  # optimizer steps taken
        self._reason: Reason | None = None  # why the run ended; None while it goes on
        self._early_nats = math.inf  # the best before the last fifth of the run
        self._closing_nats: float | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        """The best model so far, with its record."""
        return Checkpoint(self._plan.model, self._corpus.vocabulary, self._best, self._record())

    def latest(self) -> tuple[ModelConfig, Tensors]:
        """The network as it is now, for a look at what it writes."""
        return self._plan.model, self._network.tensors()

    def run(self) -> Iterator[Event]:
        """Trains until the budget is spent, the validation loss stops falling, or `stop` is set.

        Raises:
            TrainingError: the loss is no finite number any more.
        """
        torch.set_flush_denormal(True)  # averages that fade to nothing must not slow the processor down
        try:
            yield from self._run()
        finally:
            torch.set_flush_denormal(False)

    def _run(self) -> Iterator[Event]:
        config, streams = self._config, self._streams
        started = time.monotonic()
        step, evaluations, losses, since_best, train_nats = 0, 0, [], 0, math.inf
        reason: Reason | None = None
        state = self._network.zero_state(config.batch_size)
        while reason is None:
            cursor = step % streams.chunks
            if cursor == 0:  # every stream starts again
                state = self._network.zero_state(config.batch_size)
            rate = config.learning_rate * schedule(self._fraction(step, started), config.warmup)
            nats, state = self._learner.step(step, *streams.chunk(cursor), state, rate)
            if not math.isfinite(nats):
                advice = f"give a --lr below {config.learning_rate:g}"
                raise TrainingError("training", f"the loss is {nats} at step {step + 1}", advice)
            self._step = step = step + 1
            losses.append(nats)
            fraction = self._fraction(step, started)
            yield Step(step, fraction, nats, step * config.batch_size * config.seq_length)
            if fraction >= 1:
                reason = "done"
            elif self.stop:
                reason = "stopped"
            if reason or fraction * config.evaluations >= evaluations + 1:
                evaluations = int(fraction * config.evaluations)
                evaluation = self._evaluate(step, fraction, sum(losses) / len(losses))
                losses.clear()
                if evaluation.best:
                    since_best, train_nats = 0, evaluation.train_nats
                else:
                    since_best += 1
                yield evaluation
                if config.patience and since_best >= config.patience and reason is None:
                    reason = "overfitting" if evaluation.train_nats < train_nats - LEARNED else "stuck"
        self._reason = reason
        yield self._finish(reason, step, time.monotonic() - started)

    def _fraction(self, step: int, started: float) -> float:
        """How much of the budget is spent."""
        if self._config.minutes is not None:
            return min(1.0, (time.monotonic() - started) / (60 * self._config.minutes))
        return step / self._plan.steps

    def _evaluate(self, step: int, fraction: float, train_nats: float) -> Evaluation:
        nats = None
        if len(self._validation):
            with autocast(self._config.device, self._config.precision):
                nats = carried_nats(self._network, self._validation, math.inf)  # near enough to rank models
        tensors = self._network.tensors()
        sound = all(np.isfinite(array).all() for array in tensors.values())
        best = sound and (nats is None or nats < self._best_nats)  # unmeasured, the latest is the best we know
        if best:
            self._best, self._best_step = tensors, step
            self._best_nats = math.inf if nats is None else nats
            self._closing_nats = nats
            if fraction <= 0.8:
                self._early_nats = self._best_nats
        return Evaluation(step, self._epoch(step), fraction, train_nats, nats, best)

    def _finish(self, reason: Reason, step: int, seconds: float) -> Finished:
        if len(self._validation):
            network = CharRNN(self._plan.model, len(self._corpus.vocabulary)).to(self._config.device)
            network.load_tensors(self._best)
            self._closing_nats = carried_nats(network, self._validation)
        gain = self._early_nats - self._best_nats if math.isfinite(self._early_nats) else 0.0
        epoch = self._epoch(self._best_step)
        return Finished(reason, step, self._best_step, epoch, self._closing_nats, gain, seconds)

    def _epoch(self, step: int) -> float:
        return step / self._streams.chunks

    def _record(self) -> Mapping[str, Any]:
        return {
            "corpus": {
                "name": self._corpus.name,
                "sha256": self._corpus.sha256,
                "characters": len(self._corpus.ids),
                "validation_characters": len(self._validation),
            },
            "settings": asdict(self._config),
            "steps": self._step,
            "ended": self._reason,
            "best_step": self._best_step,
            "validation_nats": self._closing_nats,
            "charrnn": __version__,
            "torch": torch.__version__,
        }


def schedule(fraction: float, warmup: float) -> float:
    """The learning rate's share of its peak: half a cosine to 0 (Loshchilov & Hutter 2017), times a linear rise.

    Args:
        fraction: of the budget spent, 0 to 1.
        warmup: share of the budget in which the rate rises.
    """
    rise = min(1.0, (fraction + 1e-3) / (warmup + 1e-3))  # the first step moves, too
    return rise * 0.5 * (1 + math.cos(math.pi * fraction))
