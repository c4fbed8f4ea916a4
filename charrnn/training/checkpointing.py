"""A run on disk: the model, the state that it goes on from, and the log; saved whole, one writer at a time.

    NAME.safetensors                the best model so far, for whoever samples
    NAME.training.safetensors       the state of the run (``run_state.py``); the one before it is kept beside it
    NAME.jsonl                      the log: one JSON object per evaluation

Each is complete alone, so there is no pair that could tear: the log and the model are written again from the state.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn import checkpoint
from charrnn.checkpoint import STATE_INFIX, SUFFIX, Tensors
from charrnn.errors import DamagedFileError, ModelFileError
from charrnn.io import atomic_io
from charrnn.io.lock import Lock
from charrnn.training import run_state
from charrnn.training.events import Evaluation, Event, Finished
from charrnn.training.run_state import Run, SavedRun

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

MAX_SAVE_SHARE = 0.015  # of the time, at most, goes into saving at evaluations


class Checkpointer:
    """Finds and saves a run.

    Args:
        model: the path of its model.
        save_every: seconds from one save to the next at most.
    """

    def __init__(self, model: Path, save_every: float) -> None:
        real = model.resolve()  # what belongs to a model lies beside it, not beside a link to it
        stem = real.name.removesuffix(SUFFIX)
        self.model = model
        self.state = _display_path(real.with_name(stem + STATE_INFIX + SUFFIX), model)
        self.log = log_path(model)
        self._save_every = save_every
        self._is_new_run = True  # what lies there is of another run
        self._keep_old = True  # what lies there is sound
        self._last_save = time.monotonic()
        self._save_interval = 0.0  # seconds after a save before it was worth its time
        self._model_saved: Tensors | None = None  # the weights in the model's file
        self._lines_saved = -1

    def has_state(self) -> bool:
        """Whether there is a run, sound or not."""
        return self.state.exists() or atomic_io.backup_path(self.state).exists()

    def lock(self) -> Lock:
        """Makes this process the only writer, and clears away what a killed one left.

        Raises:
            FileError: the run can't be saved here, which is better known before hours are spent.
            BusyError: another process is writing.
        """
        for path in (self.model, self.state, atomic_io.backup_path(self.state), self.log):
            atomic_io.check_writable(path)
        lock = Lock(self.model)
        for path in (self.model, self.state, self.log):
            atomic_io.remove_leftovers(path)
        return lock

    def find(self) -> tuple[SavedRun, str] | None:
        """The newest state that is sound, and what to say about it; None if there is none.

        Raises:
            ModelFileError: there are states, but all of them are damaged, or the newest is not for this charrnn.
        """
        damaged: DamagedFileError | None = None
        for path in (self.state, atomic_io.backup_path(self.state)):
            if not path.exists():
                continue
            try:
                saved = run_state.read(path)
            except DamagedFileError as error:
                damaged = damaged or error
                continue
            self._keep_old = path == self.state  # never a damaged one in place of a sound one
            note = f"{damaged.subject} {damaged.reason}; " if damaged else ""
            if path != self.state:
                note += f"going on from the state before it, at step {saved.current.progress.step:,}"
            return saved, note
        if damaged:
            raise ModelFileError(damaged.subject, damaged.reason, "start again with --force")
        return None

    def save_initial(self, run: Run, trainer: "Trainer") -> None:
        """Saves a new run before its first step: from here on, what lies there is of this run and no other.

        Raises:
            FileError: a file cannot be written.
        """
        self._save(SavedRun.capture(run, trainer), trainer, over=False)
        self._save_interval = 0.0

    def adopt_existing(self) -> None:
        """Says that what lies there is of the run that will be saved."""
        self._is_new_run = False

    def save_if_due(self, run: Run, trainer: "Trainer", event: Event, *, force: bool = False) -> bool:
        """Saves if it is time to: at evaluations, where it costs little, every so many seconds, and at the end.

        Args:
            run: what the run is.
            trainer: how far it came.
            event: what happened last.
            force: save in any case.

        Raises:
            FileError: a file cannot be written, or the text's was changed; what was there before is untouched.
        """
        since = time.monotonic() - self._last_save
        over = isinstance(event, Finished)
        worth = isinstance(event, Evaluation) and since >= self._save_interval
        due = over or force or worth or since >= self._save_every
        if due:
            self._save(SavedRun.capture(run, trainer), trainer, over=over)
        return due

    def _save(self, saved: SavedRun, trainer: "Trainer", *, over: bool) -> None:
        started = time.monotonic()
        trainer.corpus.check()  # before anything that was learned of another text is kept
        if self._is_new_run:  # or the state before this one would be another run's
            atomic_io.remove(atomic_io.backup_path(self.state))
        atomic_io.write_atomic(
            self.state, run_state.to_bytes(saved), keep_backup=self._keep_old and not self._is_new_run
        )
        self._is_new_run, self._keep_old = False, True
        if over or (trainer.best is not self._model_saved and saved.current.progress.best_step):
            checkpoint.save(self.model, trainer.checkpoint)
            self._model_saved = trainer.best
        lines = saved.current.progress.evaluations
        if len(lines) != self._lines_saved:
            atomic_io.write_atomic(self.log, "".join(json.dumps(line) + "\n" for line in lines).encode())
            self._lines_saved = len(lines)
        self._last_save = time.monotonic()
        self._save_interval = (self._last_save - started) / MAX_SAVE_SHARE


def log_path(model: Path) -> Path:
    """Where the log of a model lies."""
    real = model.resolve()
    return _display_path(real.with_name(real.name.removesuffix(SUFFIX) + ".jsonl"), model)


def _display_path(path: Path, model: Path) -> Path:
    """The path as the user would write it, if it lies beside the model."""
    return model.with_name(path.name) if path.parent == model.parent.resolve() else path
