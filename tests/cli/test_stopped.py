"""A process that is stopped for a while, as by Ctrl-Z or with its machine, loses nothing of its budget."""

import json
import os
import signal
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from tests.cli.conftest import CORPUS, NETWORK, running


def _processes(directory: Path) -> list[int]:
    """Return the processes with this working directory."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(entry / "cwd") == str(directory.resolve()):
                pids.append(int(entry.name))
    return pids


def test_a_stop_takes_no_time_of_the_budget(tmp_path: Path, warm: list[str]) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    with running("train", "corpus.txt", *NETWORK, "--minutes", "0.02", program=warm, cwd=tmp_path) as process:
        while not (line := process.stderr.readline()).startswith(b"step"):
            assert line
        pids = _processes(tmp_path) or [process.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5)  # longer than the budget
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        process.communicate()
    assert process.returncode == 0
    entries = [json.loads(line) for line in (tmp_path / "checkpoints/corpus.jsonl").read_text().splitlines()]
    fractions = [entry["fraction"] for entry in entries]
    assert max(b - a for a, b in pairwise(fractions)) < 0.5  # the evaluations after the stop are in their places
