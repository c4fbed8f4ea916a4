"""Breaks runs off by the hundred, and sees whether each of them can be resumed to the very same model.

A process that has loaded everything forks a ``charrnn train`` each time, which saves two seconds per run; what is
broken off is a real process with real files. Run by ``test_crash.py``, or by hand:

    python -m tests.cli.forge kill 300      kill -9 at random instants
    python -m tests.cli.forge aim 100       kill -9 in a save: after an open, in a write, before a rename, an fsync
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
import charrnn.training.autotune  # noqa: F401  # loaded once, by the process that forks
from charrnn.cli.app import main
from tests.conftest import TEXT

CORPUS = TEXT * 30
TRAIN = ["train", "corpus.txt", "--hidden", "16", "--layers", "1", "--batch-size", "4", "--seq-length", "16",
         "--validation", "0.2", "--threads", "1", "--precision", "fp32", "--engine", "torch", "--dropout", "0.2",
         "--steps", "150", "--patience", "0", "--save-every", "0.02"]  # fmt: skip
MODES = ["kill", "aim", "signal"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
CALLS = ["open", "write", "fsync", "replace"]

Aim = Callable[[], None]


def fork(folder: Path, arguments: list[str], aim: Aim = lambda: None) -> int:
    """Starts ``charrnn`` in a process of its own; its stderr goes to a file."""
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        aim()
        os._exit(main(arguments))
    return pid


def finished(pid: int) -> int:
    """Waits for a process; its exit code, negative where a signal killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "checkpoints" / "corpus.safetensors").read_bytes()).hexdigest()


class Countdown:
    """Kills this process when it is called for the so-manieth time."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Torn:
    """A file in the midst of whose writing the process may be killed."""

    def __init__(self, file: Any, tick: Countdown) -> None:
        self._file, self._tick = file, tick

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._tick()
        self._file.write(data[half:])


def dies_at(call: str, number: int) -> Aim:
    """Kills the process in its ``number``-th call: after an open, in a write, before an fsync or a rename."""

    def aim() -> None:
        tick = Countdown(number)
        real = builtins.open if call in ("open", "write") else getattr(os, call)

        def opened(file: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
            handle = real(file, mode, *given, **more)
            if mode == "wb" and call == "write":
                return Torn(handle, tick)
            if mode == "wb":
                tick()
            return handle

        def called(*given: Any, **more: Any) -> Any:
            tick()
            return real(*given, **more)

        if call in ("open", "write"):
            builtins.open = opened
        else:
            setattr(os, call, called)

    return aim


def batter(mode: str, times: int, seed: int) -> dict[str, Any]:
    """Breaks runs off until it was done so many times.

    Returns:
        How often a run was broken off, how many runs came to their end, how many of them with another model than the
        run that nobody disturbed, and what went wrong otherwise.
    """
    dice, began = random.Random(seed), time.monotonic()
    report: dict[str, Any] = {"broken off": 0, "runs": 0, "other models": 0, "wrong": []}
    with tempfile.TemporaryDirectory() as home:

        def bench(name: str) -> Path:
            folder = Path(home, name)
            folder.mkdir()
            (folder / "corpus.txt").write_text(CORPUS)
            (folder / "stderr").touch()  # for a process that dies before it opens it
            return folder

        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # loads half of torch
        whole, broken = bench("whole"), bench("0")
        for more in ([], ["--force"]):  # the first one is slow
            started = time.monotonic()
            assert finished(fork(whole, [*TRAIN, *more])) == 0, (whole / "stderr").read_text()
        lasts, expected = time.monotonic() - started, sha256(whole)
        while True:
            enough = report["broken off"] >= times
            begun = any((broken / "checkpoints").glob("corpus.training.safetensors*"))
            how = MODES[report["broken off"] % len(MODES)] if mode == "all" else mode
            aim = dies_at(dice.choice(CALLS), dice.randint(1, 40)) if how == "aim" and not enough else lambda: None
            pid = fork(broken, [*TRAIN, *(["--resume"] if begun else [])], aim)
            number = dice.choice(SIGNALS) if how == "signal" else signal.SIGKILL
            if how != "aim" and not enough:
                time.sleep(dice.uniform(0, 0.7 * lasts))
                os.kill(pid, number)
            code, told = finished(pid), (broken / "stderr").read_text()
            report["broken off"] += not enough and (code != 0 or "saved on request" in told)
            if code == 0:
                report["runs"] += 1
                report["other models"] += sha256(broken) != expected
                if enough:
                    break
            expected_end = code in (0, -number, 128 + number) and "Traceback" not in told
            if not expected_end:
                report["wrong"].append((code, told[-500:]))
            if len(report["wrong"]) > 5:
                break
            if code == 0 or not expected_end:
                broken = bench(str(len(os.listdir(home))))
    return report | {"seconds": round(time.monotonic() - began)}


if __name__ == "__main__":
    print(json.dumps(batter(sys.argv[1], int(sys.argv[2]), seed=int((sys.argv[3:] or ["0"])[0]))))
