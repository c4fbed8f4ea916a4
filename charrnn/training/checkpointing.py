"""Save and find the files of a run.

    NAME.safetensors                the best model so far
    NAME.training.safetensors       the training state (``run_state.py``); the one before it is kept as a backup
    NAME.jsonl                      the log: one JSON object per evaluation

A run is saved before its first step, at evaluations unless that takes too much time, at least every ``--save-every``
seconds, and at its end. Each file is written atomically, by one process at a time. The training state alone is enough
to resume the run: the model and the log are written again from it.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn import checkpoint
from charrnn.checkpoint import STATE_INFIX, SUFFIX, Tensors
from charrnn.errors import DamagedFileError, ModelFileError
from charrnn.io import atomic_io, container
from charrnn.io.container import MODEL
from charrnn.io.lock import Lock
from charrnn.training import run_log, run_state
from charrnn.training.events import Evaluation, Event, Finished
from charrnn.training.run_state import Run, SavedRun

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

MAX_SAVE_SHARE = 0.015  # largest share of the time that saves at evaluations may take


class Checkpointer:
    """The files of one run.

    Args:
        model: Path of the model file.
        save_every: Maximum number of seconds between two saves.

    Attributes:
        model: Path of the model file.
        state: Path of the training state.
        log: Path of the log.
    """

    def __init__(self, model: Path, save_every: float) -> None:
        target = atomic_io.resolve(model)  # if the model is a symbolic link, the other files are next to its target
        stem = target.name.removesuffix(SUFFIX)
        self.model = model
        self.state = _display_path(target.with_name(stem + STATE_INFIX + SUFFIX), model)
        self.log = log_path(model)
        self._save_every = save_every
        self._is_new_run = True  # existing files belong to another run
        self._existing_is_valid = True  # an existing training state is not damaged
        self._last_save = time.monotonic()
        self._min_interval = 0.0  # seconds from one save to the next one at an evaluation
        self._saved_weights: Tensors | None = None  # the weights in the model file
        self._saved_entries = -1  # number of entries in the log file

    def has_state(self) -> bool:
        """Return whether a training state exists, damaged or not."""
        return self.state.exists() or atomic_io.backup_path(self.state).exists()

    def lock(self) -> Lock:
        """Lock the files of the run for this process, and remove temporary files of killed processes.

        Raises:
            FileError: If one of the files cannot be written.
            BusyError: If another process has the lock.
        """
        for path in (self.model, self.state, atomic_io.backup_path(self.state), self.log):
            atomic_io.check_writable(path)
        lock = Lock(self.model)
        for path in (self.model, self.state, self.log):
            atomic_io.remove_leftovers(path)
        return lock

    def check_existing(self) -> None:
        """Check that the model and the log, if they exist, are such files, which resuming the run replaces.

        Raises:
            ModelFileError: If one of them is another file.
        """
        for path, noun, matches in (
            (self.model, MODEL.noun, lambda path: container.looks_like(MODEL, path)),
            (self.log, "a log", run_log.looks_like),
        ):
            try:
                if not path.exists() or not path.stat().st_size or matches(path):
                    continue
            except (OSError, ValueError):
                pass
            raise ModelFileError(str(path), f"exists, but is not {noun}", "move it away; resuming would replace it")

    def find(self) -> tuple[SavedRun, str] | None:
        """Return the newest undamaged training state and a note about it, or None if there is no training state.

        The note says that the backup is used, and why. It is empty otherwise.

        Raises:
            ModelFileError: If the training state and its backup are damaged, or were written by another version.
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
            self._existing_is_valid = path == self.state  # a damaged state must not replace the backup
            note = f"{damaged.subject} {damaged.reason}; " if damaged else ""
            if path != self.state:
                note += f"resuming from the state saved before it, at step {saved.current.progress.step:,}"
            return saved, note
        if damaged:
            raise ModelFileError(damaged.subject, damaged.reason, "start again with --force")
        return None

    def save_initial(self, run: Run, trainer: "Trainer") -> None:
        """Save a new run before its first step. From then on, the existing files belong to this run.

        Raises:
            FileError: If a file cannot be written.
        """
        self._save(SavedRun.capture(run, trainer), trainer, finished=False)
        self._min_interval = 0.0

    def adopt_existing(self) -> None:
        """Mark the existing files as those of this run."""
        self._is_new_run = False

    def save_if_due(self, run: Run, trainer: "Trainer", event: Event, *, force: bool = False) -> bool:
        """Save the run if a save is due, and return whether it was saved.

        A save is due at the end of the run, when ``save_every`` seconds have passed, and at an evaluation if saves at
        evaluations take at most `MAX_SAVE_SHARE` of the time.

        Args:
            run: Plan and identity of the run.
            trainer: Trainer of the run.
            event: Last event of the trainer.
            force: Whether to save in any case.

        Raises:
            FileError: If a file cannot be written, or the corpus has changed. The existing files stay as they are.
        """
        elapsed = time.monotonic() - self._last_save
        finished = isinstance(event, Finished)
        at_evaluation = isinstance(event, Evaluation) and elapsed >= self._min_interval
        should_save = finished or force or at_evaluation or elapsed >= self._save_every
        if should_save:
            self._save(SavedRun.capture(run, trainer), trainer, finished=finished)
        return should_save

    def _save(self, saved: SavedRun, trainer: "Trainer", *, finished: bool) -> None:
        started = time.monotonic()
        trainer.corpus.check()  # first, so that nothing learned from a changed text is saved
        if self._is_new_run:  # the backup belongs to another run
            atomic_io.remove(atomic_io.backup_path(self.state))
        keep_backup = self._existing_is_valid and not self._is_new_run
        atomic_io.write_atomic(self.state, run_state.to_bytes(saved), keep_backup=keep_backup)
        self._is_new_run, self._existing_is_valid = False, True
        if finished or (trainer.best is not self._saved_weights and saved.current.progress.best_step):
            checkpoint.save(self.model, trainer.checkpoint)
            self._saved_weights = trainer.best
        entries = saved.current.progress.evaluations
        if len(entries) != self._saved_entries:
            atomic_io.write_atomic(self.log, run_log.to_bytes(entries))
            self._saved_entries = len(entries)
        self._last_save = time.monotonic()
        self._min_interval = (self._last_save - started) / MAX_SAVE_SHARE


def log_path(model: Path) -> Path:
    """Return the path of the log of a model."""
    target = atomic_io.resolve(model)
    return _display_path(target.with_name(target.name.removesuffix(SUFFIX) + ".jsonl"), model)


def _display_path(path: Path, model: Path) -> Path:
    """Return the path relative to the user's path of the model if both are in one directory, else unchanged."""
    return model.with_name(path.name) if path.parent == atomic_io.resolve(model.parent) else path
