"""The loop: truncated backpropagation through time, with the state carried from chunk to chunk.

`Trainer.run` yields what happens and leaves the rest (bars, lines, files) to whoever listens. Evaluations touch
neither the training state nor its random numbers. Knows no terminal and no file.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from charrnn.checkpoint import Checkpoint, Tensors
from charrnn.config import ModelConfig, TrainConfig
from charrnn.data.corpus import Corpus
from charrnn.data.dataloader import Streams
from charrnn.errors import TrainingError
from charrnn.evaluation.metrics import carried_nats
from charrnn.rnn.torch_reader import TorchReader
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.training.events import Evaluation, Event, Finished, RolledBack, Step
from charrnn.training.plan import Plan, schedule
from charrnn.training.train_step import TrainStep
from charrnn.training.trainer_state import Progress, TrainerState
from charrnn.version import __version__

LEARNED = 0.01  # nats by which the training loss falls while the validation loss doesn't: learning by heart
MOST_ROLLBACKS = 5  # of a run, each of them at half the learning rate of the one before


class _Stopped(Exception):
    """Raised in the middle of an evaluation to break it off."""


class Trainer:
    """Trains one network on one corpus as a plan says.

    Args:
        corpus: the text.
        plan: every setting, decided.
        history: what else belongs into the record (`run_state.Run`).

    Attributes:
        stop: set it to True and the run ends at once, after the step at hand or in the midst of an evaluation, where
            it can be resumed.
        best: the weights of the best model so far.
        good: the run as it was after the last evaluation, or at its start; where it rolls back to.
        rollbacks: how often it did.
    """

    def __init__(self, corpus: Corpus, plan: Plan, history: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.stop = False
        self.rollbacks = 0
        self.corpus = corpus
        self._plan = plan
        self._history = history
        self._config: TrainConfig = plan.train
        training, self._validation = corpus.split(plan.validation_characters)
        self._streams = Streams(training, self._config.batch_size, self._config.seq_length, self._config.seed)
        self._network = self._new_network()
        self._network.initialize(self._config.seed)
        self._train_step = TrainStep(self._network, self._config)
        self._state = self._network.zero_state(self._config.batch_size)
        self._now = Progress()
        self._began: float | None = None  # on the clock, such that the run has lasted since, breaks left out
        self._stopped = False
        self._copied: tuple[int, Tensors] | None = None  # the tensors after so many steps
        self.good = self.snapshot()
        self.best: Tensors = self.good.part("average")

    @property
    def checkpoint(self) -> Checkpoint:
        """The best model so far, with its record; the latest, as long as none was measured."""
        latest = self.snapshot().part("average")
        tensors = self.best if self._now.best_step or not _sound(latest) else latest
        return Checkpoint(self._plan.model, self.corpus.vocabulary, tensors, self._record(), self.corpus.config)

    def latest(self) -> tuple[ModelConfig, Tensors]:
        """The network as it is now, for a look at what it writes."""
        return self._plan.model, self.snapshot().part("average")

    def start_from(self, tensors: Tensors) -> None:
        """Takes other first weights than random ones; before the first step."""
        self._network.load_tensors(tensors)
        self._train_step.start_average()
        self._copied = None
        self.good = self.snapshot()
        self.best = self.good.part("average")

    def snapshot(self) -> TrainerState:
        """The run as it is now, between two steps."""
        if self._copied is None or self._copied[0] != self._now.step:
            tensors = {f"weights.{name}": array for name, array in self._network.tensors().items()}
            tensors |= self._train_step.averages()
            tensors |= {name: part.cpu().numpy().copy() for name, part in self._state.named()}
            self._copied = self._now.step, tensors
        return TrainerState(replace(self._now, seconds=self._seconds()), self._copied[1])

    def resume(self, now: TrainerState, good: TrainerState, best: Tensors, rollbacks: int) -> None:
        """Goes on where another trainer of the same corpus and plan was; before `run`.

        Args:
            now: what its `snapshot` gave.
            good: its attribute, as are the other two.
            best: the weights of the best model so far.
            rollbacks: how often it went back.
        """
        self.good, self.best, self.rollbacks = good, best, rollbacks
        self._go_to(now)

    def run(self) -> Iterator[Event]:
        """Trains until the budget is spent, the validation loss stops falling, or `stop` is set.

        Raises:
            TrainingError: the loss is no finite number, whatever the learning rate.
        """
        self._began = time.monotonic() - self._now.seconds
        try:
            while not (self._now.finished or self.stop):
                if (event := self._advance()) is not None:
                    yield event
        except _Stopped:
            pass
        self._stopped = not self._now.finished
        yield self._finished()

    def _advance(self) -> Event | None:
        """Does the next thing."""
        if self._now.due:
            return self._evaluate()
        if self._now.reason:
            self._close()
            return None
        return self._step()

    def _step(self) -> Event:
        config, streams, now = self._config, self._streams, self._now
        if now.step % streams.chunks == 0:  # every stream starts again
            self._state = self._network.zero_state(config.batch_size)
        peak = config.learning_rate * 0.5**self.rollbacks
        rate = peak * schedule(self._fraction(now.step), config.warmup)
        nats, state = self._train_step.step(now.step, *streams.chunk(now.step), self._state, rate)
        if not math.isfinite(nats):
            return self._roll_back(nats)
        self._state = state
        step, fraction = now.step + 1, self._fraction(now.step + 1)
        over = fraction >= 1
        marks = [int(share * config.evaluations + 1e-9) for share in (now.fraction, fraction)]
        self._now = replace(
            now, step=step, fraction=fraction, nats_sum=now.nats_sum + nats, nats_count=now.nats_count + 1,
            due=over or marks[0] < marks[1], reason="done" if over else None,
        )  # fmt: skip
        return Step(step, fraction, nats, step * config.batch_size * config.seq_length)

    def _fraction(self, step: int) -> float:
        """How much of the budget is spent after so many steps."""
        return min(1.0, self._plan.spent(step, self._seconds()))

    def _roll_back(self, nats: float) -> Event:
        """Returns to the last sound state, which isn't far, with half the learning rate."""
        failed, rate = self._now.step + 1, self._config.learning_rate * 0.5**self.rollbacks
        if self.rollbacks >= MOST_ROLLBACKS:
            reason = f"the loss is {nats} at step {failed}, down to a learning rate of {rate:.2g}"
            raise TrainingError("training", reason, f"start again with --force and --lr below {rate:.2g}")
        self.rollbacks += 1
        self._go_to(self.good)
        return RolledBack(failed, nats, self._now.step, rate / 2)

    def _go_to(self, snapshot: TrainerState) -> None:
        device = self._config.device
        self._now = snapshot.progress
        self._network.load_tensors(snapshot.part("weights"))
        self._train_step.restore(snapshot.tensors, snapshot.progress.step)
        saved = self._state.from_named(snapshot.tensors)
        self._state = saved.map(lambda part: torch.tensor(part, device=device))
        self._copied = snapshot.progress.step, snapshot.tensors

    def _evaluate(self) -> Event:
        config, now = self._config, self._now
        train_nats = now.nats_sum / now.nats_count
        tensors = self.snapshot().part("average")
        nats = self._measure(tensors, roughly=True)
        sound = _sound(self.snapshot().tensors) and math.isfinite(nats or 0)
        best = sound and (nats is None or now.best_nats is None or nats < now.best_nats)  # unmeasured, the latest is
        now = replace(now, due=False, nats_sum=0.0, nats_count=0, since_best=0 if best else now.since_best + 1)
        if best:
            self.best = tensors
            now = replace(
                now, best_step=now.step, best_nats=nats, best_train_nats=train_nats, closing_nats=nats,
                early_nats=nats if now.fraction <= 0.8 else now.early_nats,
            )  # fmt: skip
        if config.patience and now.since_best >= config.patience and now.reason is None:
            by_heart = now.best_train_nats is not None and train_nats < now.best_train_nats - LEARNED
            now = replace(now, reason="overfitting" if by_heart else "stuck")
        event = Evaluation(now.step, self._epoch(now.step), now.fraction, train_nats, nats, best)
        rate = config.learning_rate * 0.5**self.rollbacks * schedule(now.fraction, config.warmup)
        line = {**asdict(event), "learning_rate": rate, "seconds": round(self._seconds(), 3)}
        line["validation_nats"] = nats if math.isfinite(nats or 0) else None  # JSON knows no other numbers
        self._now = replace(now, evaluations=(*now.evaluations, line))
        if sound:
            self.good = self.snapshot()
        return event

    def _close(self) -> None:
        """Measures the best model once more, as `charrnn eval` would."""
        nats = self._measure(self.best, roughly=False)
        self._now = replace(self._now, finished=True, closing_nats=nats, seconds=self._seconds())

    def _measure(self, tensors: Tensors, *, roughly: bool) -> float | None:
        """The validation loss of these weights, near enough to rank models or as `charrnn eval` has it; or None."""
        if not len(self._validation):
            return None
        network = self._new_network().to(self._config.device)
        network.load_tensors(tensors)
        network.native = self._network.native
        if not roughly:
            reader = TorchReader(network, self._config.threads)
            return carried_nats(reader, self._validation, heartbeat=self._look)
        reader = TorchReader(network, self._config.threads, self._config.precision)
        return carried_nats(reader, self._validation, math.inf, self._look)

    def _new_network(self) -> CharRNN:
        vocabulary = self.corpus.vocabulary
        return CharRNN(self._plan.model, len(vocabulary), vocabulary.boundary)

    def _finished(self) -> Finished:
        now = self._now
        gain = now.early_nats - now.best_nats if now.early_nats is not None and now.best_nats is not None else 0.0
        reason = now.reason if now.finished and now.reason else "stopped"
        epoch = self._epoch(now.best_step)
        return Finished(reason, now.step, now.best_step, epoch, now.closing_nats, gain, self._seconds())

    def _look(self, _: int = 0) -> None:
        if self.stop:
            raise _Stopped

    def _seconds(self) -> float:
        """Of the run so far."""
        return self._now.seconds if self._began is None or self._now.finished else time.monotonic() - self._began

    def _epoch(self, step: int) -> float:
        return step / self._streams.chunks

    def _record(self) -> Mapping[str, Any]:
        now = self._now
        return {
            "corpus": {
                "name": self.corpus.name,
                "sha256": self.corpus.sha256,
                "characters": self.corpus.characters,
                "validation_characters": len(self._validation),
                "split": self._plan.validation_characters,
                "documents": self.corpus.documents,
                "longest": self.corpus.longest,
            },
            "settings": asdict(self._config),
            **self._history,
            "steps": now.step,
            "ended": "stopped" if self._stopped else now.reason,
            "best_step": now.best_step,
            "validation_nats": now.closing_nats,
            "charrnn": __version__,
            "torch": torch.__version__,
        }


def _sound(tensors: Tensors) -> bool:
    return all(np.isfinite(array).all() for array in tensors.values())
