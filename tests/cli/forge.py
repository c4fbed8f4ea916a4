"""Interrupt hundreds of runs, resume them, and compare their files with those of an uninterrupted run.

One process loads all modules and forks each ``charrnn train``, which saves two seconds per run. The interrupted runs
are separate processes that write files to the disk. ``test_crash.py`` runs this script, or run it by hand:

    python -m tests.cli.forge kill 300               kill -9 at random instants
    python -m tests.cli.forge aim 100                kill -9 before an open, a sync, a rename..., or in a write
    python -m tests.cli.forge signal 200             SIGINT, SIGTERM, SIGHUP and SIGUSR1 at random instants
    python -m tests.cli.forge all 30                 each of these in turn
    python -m tests.cli.forge all 30 7               with another seed
    python -m tests.cli.forge all 30 7 bytes cache   only some of the COMBINATIONS; 30 interruptions for each

All files at the end are compared: model, log, training state and cached ids (``run_files.py`` lists what may differ).
The report is one JSON object per combination.
"""

import json
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import charrnn.training.autotune as autotune
from charrnn.cli.app import main
from tests.cli.run_files import read_files
from tests.cli.system_calls import intercept
from tests.conftest import TEXT
from tests.warm import load

MODES = ["kill", "aim", "signal"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
MAX_CALLS = 80  # a kill that is aimed comes in one of this many calls that open or change files; a run makes 100
MAX_ERRORS = 5  # errors after which a combination is given up
WIDE_TEXT = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\n€uro, naïve, 東京\n"


@dataclass(frozen=True)
class Combination:
    """Options of ``charrnn train`` that are tested together."""

    options: str
    corpus: str = TEXT * 30
    base: str = ""  # the text of a model named base, for --from
    # Whether the options leave the precision, engine and threads to the autotuner, which may choose others in each
    # run. The interrupted run is then compared with one that repeats its stored plan with explicit options.
    autotuned: bool = False

    @property
    def command(self) -> list[str]:
        """The command that starts the run."""
        return ["train", "corpus.txt", *self.options.split()]


_SMALL = "--hidden 16 --layers 1 --batch-size 4 --seq-length 16 --validation 0.2 --steps 100 --patience 0"
_SMALL += " --save-every 0.03"
_TORCH = f"{_SMALL} --threads 1 --precision fp32 --engine torch"
_NATIVE = f"{_SMALL} --threads 1 --precision fp32 --engine native"
_TWO_GROUPS = f"{_SMALL.replace('--batch-size 4', '--batch-size 16')} --threads 2 --precision fp32"
_TWICE = f"{_NATIVE.replace('--layers 1', '--layers 2')}"

COMBINATIONS = {
    "lstm torch": Combination(f"{_TORCH} --cell lstm"),
    "lstm native": Combination(f"{_NATIVE} --cell lstm"),
    "gru native": Combination(f"{_NATIVE} --cell gru"),
    "gru torch": Combination(f"{_TORCH} --cell gru"),
    "rnn torch": Combination(f"{_TORCH} --cell rnn"),
    "rnn native": Combination(f"{_NATIVE} --cell rnn"),
    "embedding": Combination(f"{_NATIVE} --embedding 8 --min-count 40"),
    "threads native": Combination(f"{_TWO_GROUPS} --engine native"),
    "threads torch": Combination(f"{_TWO_GROUPS} --engine torch"),
    "bf16": Combination(_SMALL + " --threads 1 --precision bf16 --engine native"),
    "lines": Combination(f"{_NATIVE} --lines --dropout 0.2"),
    "separated": Combination(f"{_TORCH} --documents jugs --cell gru"),
    "bytes": Combination(f"{_NATIVE} --unit byte", WIDE_TEXT * 25),
    "dropout native": Combination(f"{_TWICE} --dropout 0.4"),
    "dropout torch": Combination(f"{_TORCH} --dropout 0.4"),
    "from": Combination(f"{_TORCH.replace('--hidden 16 --layers 1', '')} --from base", WIDE_TEXT * 25, base=TEXT * 9),
    "cache": Combination(f"{_NATIVE} --cache ids --lines"),
    "typed": Combination("--steps 150 --hidden 32 --save-every 0.02 --patience 0", autotuned=True),
    "typed lines": Combination(
        "--lines --cell gru --epochs 4 --hidden 32 --save-every 0.02 --patience 0", autotuned=True
    ),
}

Setup = Callable[[], None]


def fork(directory: Path, arguments: list[str], setup: Setup | None = None) -> int:
    """Run ``charrnn`` in a forked process, with stdout and stderr in files, and return its process id."""
    pid = os.fork()
    if pid == 0:
        os.chdir(directory)
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(_beside(directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        if setup:
            setup()
        os._exit(main(arguments))
    return pid


def _beside(directory: Path, stream: str) -> Path:
    return directory.with_name(f"{directory.name}.{stream}")


def wait_for(pid: int) -> int:
    """Wait for a process and return the exit code, or the negative number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(directory: Path, number: int) -> Setup:
    """Return a function that arranges for SIGKILL in the ``number``-th call that opens or changes a file."""

    def setup() -> None:
        remaining = number

        def before(call: str, path: str) -> None:
            nonlocal remaining
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        intercept(directory, before)

    return setup


class Forge:
    """Runs one combination of options.

    Args:
        combination: The options.
        root: An empty directory.
    """

    def __init__(self, combination: Combination, root: Path) -> None:
        self._combination, self._root = combination, root
        self._references: dict[str, Any] = {}  # the files of uninterrupted runs, by command

    def make_directory(self) -> Path:
        """Return a new directory with the text, and the model for ``--from``."""
        directory = self._root / str(len(os.listdir(self._root)))
        directory.mkdir()
        (directory / "corpus.txt").write_text(self._combination.corpus, encoding="utf-8")
        _beside(directory, "stderr").touch()  # for a process that is killed before it opens the file
        if self._combination.base:
            (directory / "base.txt").write_text(self._combination.base)
            self.run(directory, ["train", "base.txt", *_TORCH.split(), "--steps", "10"])
        return directory

    def run(self, directory: Path, arguments: list[str]) -> float:
        """Run a command without interruptions, and return the seconds."""
        started = time.monotonic()
        assert wait_for(fork(directory, arguments)) == 0, _beside(directory, "stderr").read_text()
        return time.monotonic() - started

    def expected_files(self, directory: Path) -> dict[str, Any]:
        """Return the files of an uninterrupted run with the options, or the plan, of a finished one."""
        command = self._combination.command
        if self._combination.autotuned:
            self.run(directory, ["info", "corpus"])
            facts = _beside(directory, "stdout").read_text().splitlines()
            repeat = next(line for line in facts if line.startswith("repeat"))
            command = shlex.split(repeat.partition("charrnn ")[2].replace("CORPUS", "corpus.txt"))
        if (key := shlex.join(command)) not in self._references:
            reference = self.make_directory()
            self.run(reference, command)
            self._references[key] = self.read(reference)
        return self._references[key]  # type: ignore[no-any-return]

    def read(self, directory: Path) -> dict[str, Any]:
        """Return the files of a finished run. Not those of the text, and without times."""
        return read_files(directory, same_overrides=not self._combination.autotuned)


def interrupt_runs(combination: Combination, mode: str, times: int, rng: random.Random) -> dict[str, Any]:
    """Interrupt and resume runs until a number of interruptions is reached.

    Returns:
        The number of interruptions, of resumed and of finished runs; the files that differ from those of an
        uninterrupted run; the unexpected exits; and the seconds.
    """
    started = time.monotonic()
    report: dict[str, Any] = {"interruptions": 0, "resumed": 0, "finished": 0, "different": [], "errors": []}
    with tempfile.TemporaryDirectory() as root:
        forge = Forge(combination, Path(root))
        run_seconds = forge.run(forge.make_directory(), combination.command)
        directory = forge.make_directory()
        while True:
            enough = report["interruptions"] >= times
            has_state = any((directory / "checkpoints").glob("corpus.training.safetensors*"))
            method = MODES[report["interruptions"] % len(MODES)] if mode == "all" else mode
            setup = kill_at(directory, rng.randint(1, MAX_CALLS)) if method == "aim" and not enough else None
            pid = fork(directory, [*combination.command, *(["--resume"] if has_state else [])], setup)
            number = rng.choice(SIGNALS) if method == "signal" else signal.SIGKILL
            if method != "aim" and not enough:
                time.sleep(rng.uniform(0, 0.9 * run_seconds))
                os.kill(pid, number)
            code, messages = wait_for(pid), _beside(directory, "stderr").read_text()
            report["interruptions"] += not enough and (code != 0 or "saved on request" in messages)
            report["resumed"] += "resuming at step" in messages
            if code == 0:
                report["finished"] += 1
                actual, expected = forge.read(directory), forge.expected_files(directory)
                names = sorted(expected.keys() | actual.keys())
                report["different"] += [name for name in names if expected.get(name) != actual.get(name)]
                if enough:
                    break
            expected_exit = code in (0, -number, 128 + number) and "Traceback" not in messages
            if not expected_exit:
                report["errors"].append((code, messages[-500:]))
            if len(report["errors"]) > MAX_ERRORS:
                break
            if code == 0 or not expected_exit:
                directory = forge.make_directory()
    return report | {"seconds": round(time.monotonic() - started, 1)}


def forge_all(mode: str, times: int, seed: int, names: list[str]) -> None:
    """Print the report of each of the named combinations."""
    load()
    autotune.TRIAL_SECONDS = 0.02  # shorter measurements vary more, so plans do too
    with tempfile.TemporaryDirectory() as root:  # the first run is slow
        combination = COMBINATIONS[names[0]]
        forge = Forge(combination, Path(root))
        forge.run(forge.make_directory(), combination.command)
    for name in names:
        report = interrupt_runs(COMBINATIONS[name], mode, times, random.Random(f"{seed} {name}"))
        print(json.dumps({"combination": name, **report}), flush=True)


if __name__ == "__main__":
    forge_all(sys.argv[1], int(sys.argv[2]), int((sys.argv[3:] or ["0"])[0]), sys.argv[4:] or list(COMBINATIONS))
