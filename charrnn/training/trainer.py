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
from charrnn.data.dataloader import StreamLoader
from charrnn.errors import TrainingError
from charrnn.evaluation.metrics import mean_nats
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.torch_scorer import TorchScorer
from charrnn.training.events import Evaluation, Event, Finished, RolledBack, Step
from charrnn.training.plan import Plan, schedule
from charrnn.training.train_step import TrainStep
from charrnn.training.trainer_state import Progress, TrainerState
from charrnn.version import __version__

OVERFITTING_NATS = 0.01  # nats by which the training loss falls while the validation loss doesn't: learning by heart
MAX_ROLLBACKS = 5  # of a run, each of them at half the learning rate of the one before


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
        last_good: the run as it was after the last evaluation, or at its start; where it rolls back to.
        rollbacks: how often it did.
    """

    def __init__(self, corpus: Corpus, plan: Plan, history: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.stop = False
        self.rollbacks = 0
        self.corpus = corpus
        self._plan = plan
        self._history = history
        self._config: TrainConfig = plan.train_config
        training, self._validation = corpus.split(plan.validation_characters)
        self._loader = StreamLoader(training, self._config.batch_size, self._config.seq_length, self._config.seed)
        self._network = self._new_network()
        self._network.initialize(self._config.seed)
        self._train_step = TrainStep(self._network, self._config)
        self._state = self._network.zero_state(self._config.batch_size)
        self._progress = Progress()
        self._started: float | None = None  # on the clock, such that the run has lasted since, breaks left out
        self._stopped = False
        self._snapshot_tensors: tuple[int, Tensors] | None = None  # the tensors after so many steps
        self.last_good = self.snapshot()
        self.best: Tensors = self.last_good.part("average")

    @property
    def checkpoint(self) -> Checkpoint:
        """The best model so far, with its record; the latest, as long as none was measured."""
        latest = self.snapshot().part("average")
        tensors = self.best if self._progress.best_step or not _all_finite(latest) else latest
        return Checkpoint(
            self._plan.model_config, self.corpus.vocabulary, tensors, self._record(), self.corpus.read_config
        )

    def latest(self) -> tuple[ModelConfig, Tensors]:
        """The network as it is progress, for a look at what it writes."""
        return self._plan.model_config, self.snapshot().part("average")

    def load_weights(self, tensors: Tensors) -> None:
        """Takes other first weights than random ones; before the first step."""
        self._network.load_tensors(tensors)
        self._train_step.init_average()
        self._snapshot_tensors = None
        self.last_good = self.snapshot()
        self.best = self.last_good.part("average")

    def snapshot(self) -> TrainerState:
        """The run as it is progress, between two steps."""
        if self._snapshot_tensors is None or self._snapshot_tensors[0] != self._progress.step:
            tensors = {f"weights.{name}": array for name, array in self._network.tensors().items()}
            tensors |= self._train_step.averages()
            tensors |= {name: part.cpu().numpy().copy() for name, part in self._state.named()}
            self._snapshot_tensors = self._progress.step, tensors
        return TrainerState(replace(self._progress, seconds=self._seconds()), self._snapshot_tensors[1])

    def resume(self, current: TrainerState, last_good: TrainerState, best: Tensors, rollbacks: int) -> None:
        """Goes on where another trainer of the same corpus and plan was; before `run`.

        Args:
            current: what its `snapshot` gave.
            last_good: its attribute, as are the other two.
            best: the weights of the best model so far.
            rollbacks: how often it went back.
        """
        self.last_good, self.best, self.rollbacks = last_good, best, rollbacks
        self._restore(current)

    def run(self) -> Iterator[Event]:
        """Trains until the budget is spent, the validation loss stops falling, or `stop` is set.

        Raises:
            TrainingError: the loss is no finite number, whatever the learning rate.
        """
        self._started = time.monotonic() - self._progress.seconds
        try:
            while not (self._progress.finished or self.stop):
                if (event := self._advance()) is not None:
                    yield event
        except _Stopped:
            pass
        self._stopped = not self._progress.finished
        yield self._finished()

    def _advance(self) -> Event | None:
        """Does the next thing."""
        if self._progress.evaluation_due:
            return self._evaluate()
        if self._progress.outcome:
            self._close()
            return None
        return self._step()

    def _step(self) -> Event:
        config, loader, progress = self._config, self._loader, self._progress
        if progress.step % loader.steps_per_epoch == 0:  # every stream starts again
            self._state = self._network.zero_state(config.batch_size)
        peak = config.learning_rate * 0.5**self.rollbacks
        rate = peak * schedule(self._fraction(progress.step), config.warmup)
        nats, state = self._train_step.step(progress.step, *loader.get_batch(progress.step), self._state, rate)
        if not math.isfinite(nats):
            return self._roll_back(nats)
        self._state = state
        step, fraction = progress.step + 1, self._fraction(progress.step + 1)
        over = fraction >= 1
        marks = [int(share * config.evaluations + 1e-9) for share in (progress.fraction, fraction)]
        self._progress = replace(
            progress,
            step=step,
            fraction=fraction,
            nats_sum=progress.nats_sum + nats,
            nats_count=progress.nats_count + 1,
            evaluation_due=over or marks[0] < marks[1],
            outcome="done" if over else None,
        )
        return Step(step, fraction, nats, step * config.batch_size * config.seq_length)

    def _fraction(self, step: int) -> float:
        """How much of the budget is spent after so many steps."""
        return min(1.0, self._plan.budget_spent(step, self._seconds()))

    def _roll_back(self, nats: float) -> Event:
        """Returns to the last finite state, which isn't far, with half the learning rate."""
        failed, rate = self._progress.step + 1, self._config.learning_rate * 0.5**self.rollbacks
        if self.rollbacks >= MAX_ROLLBACKS:
            reason = f"the loss is {nats} at step {failed}, down to a learning rate of {rate:.2g}"
            raise TrainingError("training", reason, f"start again with --force and --lr below {rate:.2g}")
        self.rollbacks += 1
        self._restore(self.last_good)
        return RolledBack(failed, nats, self._progress.step, rate / 2)

    def _restore(self, snapshot: TrainerState) -> None:
        device = self._config.device
        self._progress = snapshot.progress
        self._network.load_tensors(snapshot.part("weights"))
        self._train_step.load_averages(snapshot.tensors, snapshot.progress.step)
        saved = self._state.from_named(snapshot.tensors)
        self._state = saved.map(lambda part: torch.tensor(part, device=device))
        self._snapshot_tensors = snapshot.progress.step, snapshot.tensors

    def _evaluate(self) -> Event:
        config, progress = self._config, self._progress
        train_nats = progress.nats_sum / progress.nats_count
        tensors = self.snapshot().part("average")
        nats = self._measure(tensors, approximate=True)
        finite = _all_finite(self.snapshot().tensors) and math.isfinite(nats or 0)
        best = finite and (
            nats is None or progress.best_nats is None or nats < progress.best_nats
        )  # unmeasured, the latest is
        progress = replace(
            progress,
            evaluation_due=False,
            nats_sum=0.0,
            nats_count=0,
            evaluations_since_best=0 if best else progress.evaluations_since_best + 1,
        )
        if best:
            self.best = tensors
            progress = replace(
                progress, best_step=progress.step, best_nats=nats, best_train_nats=train_nats, final_nats=nats,
                early_best_nats=nats if progress.fraction <= 0.8 else progress.early_best_nats,
            )  # fmt: skip
        if config.patience and progress.evaluations_since_best >= config.patience and progress.outcome is None:
            overfitting = (
                progress.best_train_nats is not None and train_nats < progress.best_train_nats - OVERFITTING_NATS
            )
            progress = replace(progress, outcome="overfitting" if overfitting else "stuck")
        event = Evaluation(progress.step, self._epoch(progress.step), progress.fraction, train_nats, nats, best)
        rate = config.learning_rate * 0.5**self.rollbacks * schedule(progress.fraction, config.warmup)
        line = {**asdict(event), "learning_rate": rate, "seconds": round(self._seconds(), 3)}
        line["validation_nats"] = nats if math.isfinite(nats or 0) else None  # JSON knows no other numbers
        self._progress = replace(progress, evaluations=(*progress.evaluations, line))
        if finite:
            self.last_good = self.snapshot()
        return event

    def _close(self) -> None:
        """Measures the best model once more, as `charrnn eval` would."""
        nats = self._measure(self.best, approximate=False)
        self._progress = replace(self._progress, finished=True, final_nats=nats, seconds=self._seconds())

    def _measure(self, tensors: Tensors, *, approximate: bool) -> float | None:
        """The validation loss of these weights, near enough to rank models or as `charrnn eval` has it; or None."""
        if not len(self._validation):
            return None
        network = self._new_network().to(self._config.device)
        network.load_tensors(tensors)
        network.native = self._network.native
        if not approximate:
            scorer = TorchScorer(network, self._config.threads)
            return mean_nats(scorer, self._validation, on_progress=self._check_stop)
        scorer = TorchScorer(network, self._config.threads, self._config.precision)
        return mean_nats(scorer, self._validation, math.inf, self._check_stop)

    def _new_network(self) -> CharRNN:
        vocabulary = self.corpus.vocabulary
        return CharRNN(self._plan.model_config, len(vocabulary), vocabulary.boundary_id)

    def _finished(self) -> Finished:
        progress = self._progress
        gain = (
            progress.early_best_nats - progress.best_nats
            if progress.early_best_nats is not None and progress.best_nats is not None
            else 0.0
        )
        outcome = progress.outcome if progress.finished and progress.outcome else "stopped"
        epoch = self._epoch(progress.best_step)
        return Finished(outcome, progress.step, progress.best_step, epoch, progress.final_nats, gain, self._seconds())

    def _check_stop(self, _: int = 0) -> None:
        if self.stop:
            raise _Stopped

    def _seconds(self) -> float:
        """Of the run so far."""
        return (
            self._progress.seconds
            if self._started is None or self._progress.finished
            else time.monotonic() - self._started
        )

    def _epoch(self, step: int) -> float:
        return step / self._loader.steps_per_epoch

    def _record(self) -> Mapping[str, Any]:
        progress = self._progress
        return {
            "corpus": {
                "name": self.corpus.name,
                "sha256": self.corpus.sha256,
                "characters": self.corpus.characters,
                "validation_characters": len(self._validation),
                "split": self._plan.validation_characters,
                "num_documents": self.corpus.num_documents,
                "longest_document": self.corpus.longest_document,
            },
            "settings": asdict(self._config),
            **self._history,
            "steps": progress.step,
            "outcome": "stopped" if self._stopped else progress.outcome,
            "best_step": progress.best_step,
            "validation_nats": progress.final_nats,
            "charrnn": __version__,
            "torch": torch.__version__,
        }


def _all_finite(tensors: Tensors) -> bool:
    return all(np.isfinite(array).all() for array in tensors.values())
