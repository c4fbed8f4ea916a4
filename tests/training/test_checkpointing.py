"""The files of a run: they can be loaded after damage, kills and failed writes."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charrnn import checkpoint
from charrnn.errors import BusyError, FileError, ModelFileError
from charrnn.io import atomic_io
from charrnn.io.container import RUN_STATE
from charrnn.training.checkpointing import Checkpointer
from charrnn.training.events import Evaluation, Finished, Step
from charrnn.training.trainer import Trainer
from tests.training.test_run_state import corpus, outcome, plan, run_of


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def saved_run_in(
    folder: Path, at: int = 20, saves: tuple[int, ...] = (), **settings: Any
) -> tuple[Checkpointer, Trainer]:
    """Train and save after each step of ``saves``; stop and save after step ``at``."""
    run_plan = plan(**settings)
    trainer, checkpointer = Trainer(corpus(), run_plan), Checkpointer(folder / "m.safetensors", save_every=1e9)
    for event in trainer.run():
        trainer.stop = isinstance(event, Step) and event.step == at
        checkpointer.save_if_due(
            run_of(run_plan), trainer, event, force=isinstance(event, Step) and event.step in saves
        )
    return checkpointer, trainer


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_stopped_run_writes_model_state_and_log(tmp_path: Path) -> None:
    saved_run_in(tmp_path)
    assert names(tmp_path) >= {"m.safetensors", "m.training.safetensors", "m.jsonl"}
    assert checkpoint.load(tmp_path / "m.safetensors").training.best_step == 15


def test_the_newest_state_is_loaded(tmp_path: Path) -> None:
    checkpointer, _ = saved_run_in(tmp_path, saves=(5, 10, 17))
    saved, note = checkpointer.find()
    assert (saved.current.progress.step, note) == (20, "")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_the_previous_state_replaces_a_damaged_one_with_a_note(tmp_path: Path, damage: str) -> None:
    checkpointer, _ = saved_run_in(tmp_path, saves=(5, 17))
    data = bytearray(checkpointer.state.read_bytes())
    if damage == "gone":
        checkpointer.state.unlink()
    else:
        data[len(data) // 2] ^= 1
        checkpointer.state.write_bytes({"flip": data, "cut": data[:-7], "empty": b""}[damage])
    saved, note = checkpointer.find()
    assert saved.current.progress.step == 17
    assert note.endswith("resuming from the state saved before it, at step 17")
    assert (damage == "gone") != ("m.training.safetensors is " in note)


def test_a_damaged_state_does_not_replace_the_backup(tmp_path: Path) -> None:
    checkpointer, _ = saved_run_in(tmp_path, saves=(17,))
    checkpointer.state.write_bytes(b"")
    resumed = Checkpointer(checkpointer.model, 60)
    saved, _ = resumed.find()
    resumed.adopt_existing()
    trainer = saved.trainer(corpus())
    resumed.save_if_due(saved.run, trainer, next(trainer.run()), force=True)
    checkpointer.state.write_bytes(b"")
    assert resumed.find()[0].current.progress.step == 17


def test_a_state_of_another_format_is_an_error_without_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer, _ = saved_run_in(tmp_path, saves=(17,))
    monkeypatch.setattr("charrnn.training.run_state.RUN_STATE", replace(RUN_STATE, format=RUN_STATE.format + 1))
    with pytest.raises(
        ModelFileError, match=r"has file format (\d+), but this charrnn reads format \d+; install the version"
    ):
        checkpointer.find()


def test_a_new_run_is_saved_before_the_first_step(tmp_path: Path) -> None:
    saved_run_in(tmp_path, saves=(5, 17), seed=1)
    run_plan = plan()
    checkpointer, trainer = Checkpointer(tmp_path / "m.safetensors", 60), Trainer(corpus(), run_plan)
    checkpointer.save_initial(run_of(run_plan), trainer)
    saved, note = checkpointer.find()
    assert (saved.run.plan.train_config.seed, saved.current.progress.step, note) == (0, 0, "")
    assert checkpointer.log.read_bytes() == b""
    assert outcome(saved.trainer(corpus())) == outcome(trainer)


def test_run_files_are_next_to_the_target_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    saved_run_in(tmp_path / "store")
    (tmp_path / "ln.safetensors").symlink_to(tmp_path / "store" / "m.safetensors")
    checkpointer = Checkpointer(tmp_path / "ln.safetensors", 60)
    assert checkpointer.find()[0].current.progress.step == 20
    assert (checkpointer.state, checkpointer.log) == tuple(
        tmp_path / "store" / f"m.{end}" for end in ("training.safetensors", "jsonl")
    )


def test_two_damaged_states_are_an_error_with_advice(tmp_path: Path) -> None:
    checkpointer, _ = saved_run_in(tmp_path, saves=(17,))
    for path in (checkpointer.state, atomic_io.backup_path(checkpointer.state)):
        path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="is empty; start again with --force"):
        checkpointer.find()


def test_there_is_no_state_without_files(tmp_path: Path) -> None:
    assert Checkpointer(tmp_path / "m.safetensors", 60).find() is None


def test_the_state_of_another_run_is_not_kept_as_backup(tmp_path: Path) -> None:
    saved_run_in(tmp_path, saves=(5, 17), seed=1)
    checkpointer, _ = saved_run_in(tmp_path, at=3)
    assert not atomic_io.backup_path(checkpointer.state).exists()
    assert checkpointer.find()[0].run.plan.train_config.seed == 0


def test_a_resumed_run_keeps_the_previous_state(tmp_path: Path) -> None:
    checkpointer, _ = saved_run_in(tmp_path)
    saved, _ = checkpointer.find()
    resumed = Checkpointer(checkpointer.model, 60)
    resumed.adopt_existing()
    trainer = saved.trainer(corpus())
    resumed.save_if_due(saved.run, trainer, next(trainer.run()), force=True)
    assert [resumed.find()[0].current.progress.step, 20] == [21, 20]
    checkpointer.state.unlink()
    assert resumed.find()[0].current.progress.step == 20


def test_a_damaged_model_is_written_again_from_the_state(tmp_path: Path) -> None:
    checkpointer, _ = saved_run_in(tmp_path)
    checkpointer.model.write_bytes(b"torn off")
    saved, _ = checkpointer.find()
    resumed = Checkpointer(checkpointer.model, 60)
    resumed.adopt_existing()
    trainer = saved.trainer(corpus())
    resumed.save_if_due(saved.run, trainer, next(trainer.run()), force=True)
    np.testing.assert_equal(checkpoint.load(checkpointer.model).tensors, dict(saved.best))


def test_the_log_has_exactly_one_line_per_evaluation(tmp_path: Path) -> None:
    checkpointer, _ = saved_run_in(tmp_path)
    checkpointer.log.write_text(
        checkpointer.log.read_text() + '{"step": 99, "ep'
    )  # as if a later state had been lost
    saved, _ = checkpointer.find()
    resumed = Checkpointer(checkpointer.model, 60)
    resumed.adopt_existing()
    trainer = saved.trainer(corpus())
    for event in trainer.run():
        resumed.save_if_due(saved.run, trainer, event)
    steps = [json.loads(line)["step"] for line in checkpointer.log.read_text().splitlines()]
    assert steps == [8, 15, 22, 29, 36, 43, 50]
    assert checkpointer.log.read_text().endswith("}\n")


def test_without_an_evaluation_the_latest_weights_are_saved(tmp_path: Path) -> None:
    checkpointer, trainer = saved_run_in(tmp_path, at=3)
    np.testing.assert_equal(checkpoint.load(checkpointer.model).tensors, trainer.latest()[1])
    saved, _ = checkpointer.find()
    assert outcome(saved.trainer(corpus())) == outcome(Trainer(corpus(), plan()))


def test_saving_is_due_after_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("charrnn.training.checkpointing.time.monotonic", lambda: now[0])
    run_plan = plan()
    trainer, checkpointer = Trainer(corpus(), run_plan), Checkpointer(tmp_path / "m.safetensors", save_every=30)
    events = trainer.run()
    for seconds, due in ((29.0, False), (1.5, True), (29.0, False), (2.0, True)):
        now[0] += seconds
        assert checkpointer.save_if_due(run_of(run_plan), trainer, next(events)) == due


def test_saves_at_evaluations_are_limited_by_their_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("charrnn.training.checkpointing.time.monotonic", lambda: now[0])
    write = atomic_io.write_atomic
    monkeypatch.setattr(
        atomic_io, "write_atomic", lambda *args, **kwargs: (write(*args, **kwargs), now.__setitem__(0, now[0] + 0.1))
    )
    run_plan = plan(steps=100, evaluations=100)
    trainer, checkpointer = Trainer(corpus(), run_plan), Checkpointer(tmp_path / "m.safetensors", save_every=1e9)
    saves = []
    for event in trainer.run():
        now[0] += 0.5
        if checkpointer.save_if_due(run_of(run_plan), trainer, event):
            saves.append(event)
    assert isinstance(saves[0], Evaluation)  # the first evaluation is saved at once
    assert isinstance(saves[-1], Finished)
    assert 3 <= len(saves) <= 9  # each save takes 0.3 s for three files, in 100 s


def test_a_run_can_be_locked_only_once(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path / "m.safetensors", 60)
    lock = checkpointer.lock()
    with pytest.raises(BusyError, match="another charrnn process is writing it"):
        Checkpointer(tmp_path / "m.safetensors", 60).lock()
    Checkpointer(tmp_path / "other.safetensors", 60).lock().release()
    lock.release()
    lock.release()
    checkpointer.lock().release()
    assert names(tmp_path) == set()


def test_releasing_a_lock_removes_an_empty_directory(tmp_path: Path) -> None:
    Checkpointer(tmp_path / "new" / "m.safetensors", 60).lock().release()
    assert names(tmp_path) == set()


def test_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    for name in (
        ".m.safetensors.123.tmp",
        ".m.training.safetensors.77.tmp",
        ".m.jsonl.5.tmp",
        ".n.safetensors.1.tmp",
    ):
        (tmp_path / name).touch()
    Checkpointer(tmp_path / "m.safetensors", 60).lock().release()
    assert names(tmp_path) == {".n.safetensors.1.tmp"}


AnyFunction = Callable[..., Any]


def save_error(save: Callable[[], object]) -> str | None:
    """Return the message of a failed save, or None."""
    try:
        save()
    except FileError as error:
        return str(error)
    return None


@pytest.mark.parametrize("error", [28, 5], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_failed_save_leaves_the_previous_files(
    tmp_path: Path, call: str, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    saved_run_in(origin, saves=(5, 17))
    failed, uninterrupted = 0, outcome(Trainer(corpus(), plan()))
    for number in range(1, 100):
        folder = tmp_path / str(number)
        shutil.copytree(origin, folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        checkpointer = Checkpointer(folder / "m.safetensors", 60)
        saved, _ = checkpointer.find()
        checkpointer.adopt_existing()
        trainer = saved.trainer(corpus())
        events = trainer.run()
        while not isinstance(event := next(events), Evaluation):
            pass
        with monkeypatch.context() as patch:
            break_call(patch, call, number, error)
            message = save_error(partial(checkpointer.save_if_due, saved.run, trainer, event, force=True))
        if message is None:
            break
        failed += 1
        assert "cannot be written (" in message
        assert not [name for name in names(folder) if name.endswith(".tmp")]
        loaded, _ = Checkpointer(folder / "m.safetensors", 60).find()
        assert loaded.current.progress.step in (20, 22)
        for name in ("m.safetensors", "m.jsonl"):
            assert (folder / name).read_bytes() == before[name] or loaded.current.progress.step == 22
        checkpoint.load(folder / "m.safetensors")
        assert outcome(loaded.trainer(corpus())) == uninterrupted
    assert failed >= 3


def break_call(patch: pytest.MonkeyPatch, call: str, number: int, error: int) -> None:
    """Make the ``number``-th call of a kind fail."""
    remaining = [number]

    def fails() -> bool:
        remaining[0] -= 1
        return remaining[0] == 0

    def failing(original: AnyFunction) -> AnyFunction:
        def instead(*args: Any, **kwargs: Any) -> Any:
            if fails():
                raise OSError(error, os.strerror(error))
            return original(*args, **kwargs)

        return instead

    if call == "write":
        fdopen = os.fdopen
        patch.setattr(os, "fdopen", lambda *args, **kwargs: FailingFile(fdopen(*args, **kwargs), fails, error))
    elif call == "open":
        patch.setattr("builtins.open", failing(open))
        patch.setattr(os, "open", failing(os.open))
    else:
        patch.setattr(os, call, failing(getattr(os, call)))


class FailingFile:
    """A file that fails after writing half of the data."""

    def __init__(self, file: Any, fails: Callable[[], bool], error: int) -> None:
        self._file, self._fails, self._error = file, fails, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "FailingFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        if self._fails():
            self._file.write(data[: len(data) // 2])
            raise OSError(self._error, os.strerror(self._error))
        return int(self._file.write(data))
