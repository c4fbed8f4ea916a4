"""The training loop: truncated backpropagation through time (TBPTT).

The recurrent state is carried from chunk to chunk, without its gradient.

`Trainer.run` yields events. It prints nothing and writes no files. Evaluations change neither the recurrent state nor
the random numbers of the training.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from charrnn.checkpoint import Checkpoint, CorpusRecord, Tensors, TrainingRecord, are_finite
from charrnn.config import ModelConfig, TrainConfig
from charrnn.data.corpus import Corpus
from charrnn.data.dataloader import StreamLoader
from charrnn.errors import TrainingError
from charrnn.evaluation.metrics import mean_nats
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.torch_scorer import TorchScorer
from charrnn.training.events import Evaluation, Event, Finished, RolledBack, Step
from charrnn.training.plan import Plan, schedule
from charrnn.training.run_clock import RunClock
from charrnn.training.run_log import LogEntry
from charrnn.training.run_state import NO_HISTORY, History
from charrnn.training.train_step import TrainStep
from charrnn.training.trainer_state import Progress, TrainerState
from charrnn.version import __version__

# If the training loss decreases by this much and the validation loss does not, the network is overfitting.
OVERFITTING_NATS = 0.01
MAX_ROLLBACKS = 5  # rollbacks of a run; each one halves the learning rate


class _Stopped(Exception):
    """Interrupts an evaluation."""


class Trainer:
    """Trains one network on one corpus.

    Args:
        corpus: Training and validation text.
        plan: Every setting of the run.
        history: What the run started from, for the training record.

    Attributes:
        stop: Whether the run should stop. It stops after the current step, or within an evaluation, and can be
            resumed.
        best: Averaged weights of the best model so far.
        last_good: State after the last evaluation, or at the start of the run. The run rolls back to it.
        rollbacks: Number of rollbacks so far.
    """

    def __init__(self, corpus: Corpus, plan: Plan, history: History = NO_HISTORY) -> None:
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
        self._clock = RunClock()
        self._stopped = False
        self._snapshot_cache: tuple[int, Tensors] | None = None  # step, and the tensors after it
        self.last_good = self.snapshot()
        self.best: Tensors = self.last_good.part("average")

    @property
    def checkpoint(self) -> Checkpoint:
        """Best model so far, or the latest model before the first evaluation, with its training record."""
        latest = self.snapshot().part("average")
        use_best = self._progress.best_step or not are_finite(latest)
        tensors = self.best if use_best else latest
        return Checkpoint(
            self._plan.model_config, self.corpus.vocabulary, tensors, self._record(), self.corpus.read_config
        )

    @property
    def seconds(self) -> float:
        """Duration of the run so far, without breaks."""
        return self._progress.seconds if self._progress.finished else self._clock.seconds

    def latest(self) -> tuple[ModelConfig, Tensors]:
        """Return configuration and averaged weights of the current network, to preview its text."""
        return self._plan.model_config, self.snapshot().part("average")

    def try_layers(self) -> None:
        """Check that this machine can compute the network; see `TrainStep.try_layers`."""
        self._train_step.try_layers()

    def load_weights(self, tensors: Tensors) -> None:
        """Replace the random initial weights, before the first step."""
        self._network.load_tensors(tensors)
        self._train_step.init_average()
        self._snapshot_cache = None
        self.last_good = self.snapshot()
        self.best = self.last_good.part("average")

    def snapshot(self) -> TrainerState:
        """Return the current state of the run, between two steps."""
        if self._snapshot_cache is None or self._snapshot_cache[0] != self._progress.step:
            tensors = {f"weights.{name}": array for name, array in self._network.tensors().items()}
            tensors |= self._train_step.averages()
            tensors |= {name: part.cpu().numpy().copy() for name, part in self._state.named()}
            self._snapshot_cache = self._progress.step, tensors
        return TrainerState(replace(self._progress, seconds=self.seconds), self._snapshot_cache[1])

    def resume(self, current: TrainerState, last_good: TrainerState, best: Tensors, rollbacks: int) -> None:
        """Restore the state of another trainer of the same corpus and plan, before `run`.

        Args:
            current: Result of `snapshot` of the other trainer.
            last_good: Attribute ``last_good`` of the other trainer.
            best: Attribute ``best`` of the other trainer.
            rollbacks: Attribute ``rollbacks`` of the other trainer.
        """
        self.last_good, self.best, self.rollbacks = last_good, best, rollbacks
        self._restore(current)
        self._clock = RunClock(current.progress.seconds)

    def run(self) -> Iterator[Event]:
        """Train until the budget is spent, the validation loss stops falling, or `stop` is set.

        Yields:
            Events. The last one is `Finished`.

        Raises:
            TrainingError: If the loss is infinite or NaN again after `MAX_ROLLBACKS` rollbacks.
        """
        with self._clock:
            try:
                while not (self._progress.finished or self.stop):
                    if (event := self._advance()) is not None:
                        yield event
            except _Stopped:
                pass
            self._stopped = not self._progress.finished
            yield self._finished_event()

    def _advance(self) -> Event | None:
        """Evaluate, take a step, or finish the run, whichever is next."""
        if self._progress.evaluation_due:
            return self._evaluate()
        if self._progress.outcome:
            self._measure_best()
            return None
        return self._step()

    def _step(self) -> Event:
        config, loader, progress = self._config, self._loader, self._progress
        if progress.step % loader.steps_per_epoch == 0:  # a new epoch, in which the streams start at new positions
            self._state = self._network.zero_state(config.batch_size)
        learning_rate = self._peak_learning_rate * schedule(self._fraction(progress.step), config.warmup)
        batch = loader.get_batch(progress.step)
        nats, state = self._train_step.step(progress.step, *batch, self._state, learning_rate)
        if not math.isfinite(nats):
            return self._roll_back(nats)
        self._state = state  # carried to the next chunk
        step, fraction = progress.step + 1, self._fraction(progress.step + 1)
        is_last = fraction >= 1
        evaluations_before, evaluations_after = (
            int(share * config.evaluations + 1e-9) for share in (progress.fraction, fraction)
        )
        self._progress = replace(
            progress,
            step=step,
            fraction=fraction,
            nats_sum=progress.nats_sum + nats,
            nats_count=progress.nats_count + 1,
            evaluation_due=is_last or evaluations_before < evaluations_after,
            outcome="done" if is_last else None,
        )
        return Step(step, fraction, nats, step * config.batch_size * config.seq_length)

    @property
    def _peak_learning_rate(self) -> float:
        """Peak of the schedule, halved by every rollback."""
        return self._config.learning_rate * 0.5**self.rollbacks

    def _fraction(self, step: int) -> float:
        """Return the share of the budget that is spent after a number of steps."""
        return min(1.0, self._plan.budget_spent(step, self.seconds))

    def _roll_back(self, nats: float) -> Event:
        """Restore the last good state, and halve the learning rate."""
        failed_step = self._progress.step + 1
        if self.rollbacks >= MAX_ROLLBACKS:
            peak = f"{self._peak_learning_rate:.2g}"
            reason = f"the loss is {nats} at step {failed_step}, even with a learning rate of {peak}"
            raise TrainingError("training", reason, f"start again with --force and --lr below {peak}")
        self.rollbacks += 1
        self._restore(self.last_good)
        return RolledBack(failed_step, nats, self._progress.step, self._peak_learning_rate)

    def _restore(self, snapshot: TrainerState) -> None:
        device = self._config.device
        self._progress = snapshot.progress
        self._network.load_tensors(snapshot.part("weights"))
        self._train_step.load_averages(snapshot.tensors, snapshot.progress.step)
        saved = self._state.from_named(snapshot.tensors)
        self._state = saved.map(lambda part: torch.tensor(part, device=device))
        self._snapshot_cache = snapshot.progress.step, snapshot.tensors

    def _evaluate(self) -> Event:
        config, progress = self._config, self._progress
        train_nats = progress.nats_sum / progress.nats_count
        tensors = self.snapshot().part("average")
        nats = self._measure(tensors, approximate=True)
        finite = are_finite(self.snapshot().tensors) and math.isfinite(nats or 0)
        # without a validation text, the latest model is the best one
        best = finite and (nats is None or progress.best_nats is None or nats < progress.best_nats)
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
        learning_rate = self._peak_learning_rate * schedule(progress.fraction, config.warmup)
        entry = LogEntry(
            step=event.step, epoch=event.epoch, fraction=event.fraction, train_nats=train_nats,
            validation_nats=nats if math.isfinite(nats or 0) else None, best=best,  # JSON has no infinity or NaN
            learning_rate=learning_rate, seconds=round(self.seconds, 3),
        )  # fmt: skip
        self._progress = replace(progress, evaluations=(*progress.evaluations, entry))
        if finite:
            self.last_good = self.snapshot()
        return event

    def _measure_best(self) -> None:
        """Measure the best model in fp32, as ``charrnn eval`` does, and finish the run."""
        nats = self._measure(self.best, approximate=False)
        self._progress = replace(self._progress, finished=True, final_nats=nats, seconds=self.seconds)

    def _measure(self, tensors: Tensors, *, approximate: bool) -> float | None:
        """Return the validation loss of a network, or None without a validation text.

        Args:
            tensors: Weights of the network.
            approximate: Whether to measure faster, but accurately enough to rank models. Otherwise the result is that
                of ``charrnn eval``.
        """
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

    def _finished_event(self) -> Finished:
        progress = self._progress
        late_gain = (
            progress.early_best_nats - progress.best_nats
            if progress.early_best_nats is not None and progress.best_nats is not None
            else 0.0
        )
        outcome = progress.outcome if progress.finished and progress.outcome else "stopped"
        epoch = self._epoch(progress.best_step)
        return Finished(
            outcome, progress.step, progress.best_step, epoch, progress.final_nats, late_gain, self.seconds
        )

    def _check_stop(self, _: int = 0) -> None:
        if self.stop:
            raise _Stopped

    def _epoch(self, step: int) -> float:
        """Return the number of epochs in a number of steps."""
        return step / self._loader.steps_per_epoch

    def _record(self) -> TrainingRecord:
        """Return the training record of the model file."""
        progress, corpus = self._progress, self.corpus
        return TrainingRecord(
            corpus=CorpusRecord(
                name=corpus.name, sha256=corpus.sha256, characters=corpus.characters,
                validation_characters=len(self._validation), split=self._plan.validation_characters,
                num_documents=corpus.num_documents, longest_document=corpus.longest_document,
            ),
            settings=self._config, from_=self._history.from_, changed=self._history.changed, steps=progress.step,
            outcome="stopped" if self._stopped else progress.outcome, best_step=progress.best_step,
            validation_nats=progress.final_nats, charrnn=__version__, torch=torch.__version__,
        )  # fmt: skip
