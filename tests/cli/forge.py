"""Interrupt hundreds of runs, resume them, and compare their models with that of an uninterrupted run.

One process loads all modules and forks each ``charrnn train``, which saves two seconds per run. The interrupted runs
are separate processes that write files to the disk. ``test_crash.py`` runs this script, or run it by hand:

    python -m tests.cli.forge kill 300      kill -9 at random instants
    python -m tests.cli.forge aim 100       kill -9 in a save: after an open, in a write, before an fsync or rename
    python -m tests.cli.forge signal 200    SIGINT, SIGTERM, SIGHUP and SIGUSR1 at random instants
    python -m tests.cli.forge all 9         each of these in turn
"""

import builtins
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import charrnn.cli.train_progress
import charrnn.cli.train_setup
import charrnn.training.autotune  # noqa: F401  # loaded once, before forking
from charrnn.cli.app import main
from tests.conftest import TEXT

CORPUS = TEXT * 30
TRAIN = ["train", "corpus.txt", "--hidden", "16", "--layers", "1", "--batch-size", "4", "--seq-length", "16",
         "--validation", "0.2", "--threads", "1", "--precision", "fp32", "--engine", "torch", "--dropout", "0.2",
         "--steps", "150", "--patience", "0", "--save-every", "0.02"]  # fmt: skip
MODES = ["kill", "aim", "signal"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
CALLS = ["open", "write", "fsync", "replace"]

Setup = Callable[[], None]


def fork(directory: Path, arguments: list[str], setup: Setup | None = None) -> int:
    """Run ``charrnn`` in a forked process, with stdout and stderr in files, and return its process id."""
    pid = os.fork()
    if pid == 0:
        os.chdir(directory)
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if setup:
            setup()
        os._exit(main(arguments))
    return pid


def wait_for(pid: int) -> int:
    """Wait for a process and return the exit code, or the negative number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def model_digest(directory: Path) -> str:
    return hashlib.sha256((directory / "checkpoints" / "corpus.safetensors").read_bytes()).hexdigest()


class Countdown:
    """Kills this process in the ``number``-th call."""

    def __init__(self, number: int) -> None:
        self.remaining = number

    def __call__(self) -> None:
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class InterruptedFile:
    """A file that counts down in the middle of every write."""

    def __init__(self, file: Any, countdown: Countdown) -> None:
        self._file, self._countdown = file, countdown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "InterruptedFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._countdown()
        self._file.write(data[half:])


def kill_at(call: str, number: int) -> Setup:
    """Return a function that arranges for SIGKILL in the ``number``-th call of a kind.

    The signal comes after an open, in the middle of a write, or before an fsync or a rename.
    """

    def setup() -> None:
        countdown = Countdown(number)
        original = builtins.open if call in ("open", "write") else getattr(os, call)

        def open_file(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            opened = original(file, mode, *args, **kwargs)
            if mode == "wb" and call == "write":
                return InterruptedFile(opened, countdown)
            if mode == "wb":
                countdown()
            return opened

        def call_function(*args: Any, **kwargs: Any) -> Any:
            countdown()
            return original(*args, **kwargs)

        if call in ("open", "write"):
            builtins.open = open_file
        else:
            setattr(os, call, call_function)

    return setup


def interrupt_runs(mode: str, times: int, seed: int) -> dict[str, Any]:
    """Interrupt and resume runs until a number of interruptions is reached.

    Returns:
        The number of interruptions, of finished runs, and of models that differ from that of an uninterrupted run;
        the unexpected exits; and the seconds.
    """
    rng, started = random.Random(seed), time.monotonic()
    report: dict[str, Any] = {"interruptions": 0, "runs": 0, "different models": 0, "errors": []}
    with tempfile.TemporaryDirectory() as root:

        def make_directory(name: str) -> Path:
            directory = Path(root, name)
            directory.mkdir()
            (directory / "corpus.txt").write_text(CORPUS)
            (directory / "stderr").touch()  # for a process that is killed before it opens the file
            return directory

        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports a large part of torch
        reference, directory = make_directory("reference"), make_directory("0")
        for options in ([], ["--force"]):  # the first run is slow
            run_started = time.monotonic()
            assert wait_for(fork(reference, [*TRAIN, *options])) == 0, (reference / "stderr").read_text()
        run_seconds, expected = time.monotonic() - run_started, model_digest(reference)
        while True:
            enough = report["interruptions"] >= times
            has_state = any((directory / "checkpoints").glob("corpus.training.safetensors*"))
            method = MODES[report["interruptions"] % len(MODES)] if mode == "all" else mode
            setup = kill_at(rng.choice(CALLS), rng.randint(1, 40)) if method == "aim" and not enough else None
            pid = fork(directory, [*TRAIN, *(["--resume"] if has_state else [])], setup)
            number = rng.choice(SIGNALS) if method == "signal" else signal.SIGKILL
            if method != "aim" and not enough:
                time.sleep(rng.uniform(0, 0.7 * run_seconds))
                os.kill(pid, number)
            code, messages = wait_for(pid), (directory / "stderr").read_text()
            report["interruptions"] += not enough and (code != 0 or "saved on request" in messages)
            if code == 0:
                report["runs"] += 1
                report["different models"] += model_digest(directory) != expected
                if enough:
                    break
            expected_exit = code in (0, -number, 128 + number) and "Traceback" not in messages
            if not expected_exit:
                report["errors"].append((code, messages[-500:]))
            if len(report["errors"]) > 5:
                break
            if code == 0 or not expected_exit:
                directory = make_directory(str(len(os.listdir(root))))
    return report | {"seconds": round(time.monotonic() - started)}


if __name__ == "__main__":
    print(json.dumps(interrupt_runs(sys.argv[1], int(sys.argv[2]), seed=int((sys.argv[3:] or ["0"])[0]))))
