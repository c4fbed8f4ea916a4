"""Several writers of one file: threads, and processes with the same id in different namespaces."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import charrnn
from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.io import atomic_io, container
from charrnn.io.container import MODEL, PROMPT_STATE, FileKind
from tests.conftest import environment

NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
SAVES = 60  # of each writer

# Arguments: the directory and the number of saves. Prints the process id, and waits for a line before it starts.
WRITER = """
import os, sys
from pathlib import Path
import charrnn.api

directory = Path(sys.argv[1])
model = charrnn.api.load(directory / "first.safetensors")
state = model.read_prompt("fox")
print(os.getpid(), flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    model.save(directory / "model.safetensors", replace=True)
    model.save_state(state, directory / "prompt.state")
"""


@pytest.fixture
def model(tiny: Checkpoint, tmp_path: Path) -> charrnn.Model:
    """A model, saved as first.safetensors, model.safetensors and prompt.state."""
    checkpoint.save(tmp_path / "first.safetensors", tiny)
    model = charrnn.load(tmp_path / "first.safetensors")
    model.save(tmp_path / "model.safetensors")
    model.save_state(model.read_prompt("fox"), tmp_path / "prompt.state")
    return model


@contextmanager
def reading(path: Path, kind: FileKind) -> Iterator[None]:
    """Read a file over and over in a thread; raise the error of a read that failed at the end of the block."""
    stopped, errors = threading.Event(), list[BaseException]()

    def read() -> None:
        while not stopped.is_set():
            try:
                container.read(kind, path)
            except BaseException as error:
                errors.append(error)
                return

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
    if errors:
        raise errors[0]


def run_in_threads(function: Callable[[], object], number: int = 3) -> list[BaseException]:
    """Call a function ``SAVES`` times in each of several threads, and return the exceptions."""
    errors: list[BaseException] = []

    def repeat() -> None:
        try:
            for _ in range(SAVES):
                function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_threads_save_a_model_to_one_path(model: charrnn.Model, tmp_path: Path) -> None:
    path, before = tmp_path / "model.safetensors", names(tmp_path)
    with reading(path, MODEL):
        assert run_in_threads(lambda: model.save(path, replace=True)) == []
    assert names(tmp_path) == before


def test_threads_save_a_prompt_state_to_one_path(model: charrnn.Model, tmp_path: Path) -> None:
    path, before, state = tmp_path / "prompt.state", names(tmp_path), model.read_prompt("dog")
    with reading(path, PROMPT_STATE):
        assert run_in_threads(lambda: model.save_state(state, path)) == []
    assert names(tmp_path) == before


def test_a_new_run_does_not_delete_the_temporary_file_of_a_living_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def start_a_run(descriptor: int) -> None:
        atomic_io.remove_leftovers(tmp_path / "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", start_a_run)
    atomic_io.write_atomic(tmp_path / "file", b"complete")
    assert (tmp_path / "file").read_bytes() == b"complete"
    assert names(tmp_path) == {"file"}


@pytest.fixture(scope="module")
def _namespaces() -> None:
    """Skip if the system does not let a user create a PID namespace."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    result = subprocess.run([*NAMESPACE, "true"], capture_output=True, timeout=60)
    if result.returncode != 0:
        pytest.skip(f"cannot create a PID namespace: {result.stderr.decode().strip()}")


@pytest.mark.usefixtures("_namespaces")
def test_processes_with_the_same_id_save_to_one_path(model: charrnn.Model, tmp_path: Path) -> None:
    before = names(tmp_path)
    command = [*NAMESPACE, sys.executable, "-c", WRITER, str(tmp_path), str(SAVES)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    writers = [subprocess.Popen(command, env=environment(), text=True, **pipes) for _ in range(2)]
    try:
        ids = {writer.stdout.readline() for writer in writers}
        assert len(ids) == 1, "the ids of the processes should be equal"
        with reading(tmp_path / "model.safetensors", MODEL), reading(tmp_path / "prompt.state", PROMPT_STATE):
            for writer in writers:  # `communicate` would wait for the first one
                writer.stdin.write("\n")
                writer.stdin.flush()
            messages = [writer.communicate(timeout=100)[1] for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
    assert messages == ["", ""]
    assert names(tmp_path) == before
