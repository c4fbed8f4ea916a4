"""Fixtures for the tests of the command line: running processes, and one training run for all tests."""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from charrnn import checkpoint
from charrnn.rnn.compiled_rnn import CompiledRNN
from tests.conftest import TEXT, environment, make_checkpoint

PROGRAM = [sys.executable, "-m", "charrnn"]
NETWORK = ("--hidden", "16", "--layers", "1", "--validation", "0.2", "--threads", "1", "--precision", "fp32",
           "--engine", "torch")  # fmt: skip  # nothing is timed: two runs are equal
QUICK = (*NETWORK, "--steps", "20")
ENDLESS = (*NETWORK, "--steps", "20000", "--patience", "0")  # the first evaluation is after 200 steps
CORPUS = TEXT * 40
WIDE = "йцуé€𝄞\n"  # characters of one to four bytes in UTF-8


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Compile the kernels, so that only the test of the message compiles with an empty cache."""
    model = make_checkpoint()
    CompiledRNN(model.model_config, model.tensors)


@dataclass(frozen=True)
class Run:
    """The result of a finished run."""

    folder: Path  # the working directory
    code: int
    stdout: bytes
    stderr: bytes
    stdin_taken: int = 0  # bytes read from stdin

    @property
    def model(self) -> Path:
        """The path of the model, as printed."""
        return self.folder / self.stdout.decode().removesuffix("\n")


@contextmanager
def running(
    *arguments: str | Path, program: Sequence[str] = PROGRAM, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a ``charrnn`` process with pipes by default; kill it at the end of the block or after 100 seconds."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    # A child would inherit an ignored SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen([*program, *map(str, arguments)], env=environment(), **options)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        guard = threading.Timer(100, process.kill)
        guard.start()
        try:
            yield process
        finally:
            guard.cancel()
            process.kill()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the size of files that this process writes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(directory: Path) -> dict[str, bytes]:
    """Return the paths under a directory and the contents of regular files (empty for other paths)."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in directory.rglob("*")
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of ``charrnn train corpus.txt`` without a terminal, with data on stdin and temporary home directories."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "corpus.txt").write_text(CORPUS)
    homes = {name: str(folder / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for home in homes.values():
        os.mkdir(home)
    with open(folder / "corpus.txt") as stdin:
        result = subprocess.run(
            [*PROGRAM, "train", "corpus.txt", *QUICK],
            cwd=folder, env=environment(**homes), stdin=stdin, capture_output=True, timeout=100, check=False,
        )  # fmt: skip
        taken = os.lseek(stdin.fileno(), 0, os.SEEK_CUR)
    return Run(folder, result.returncode, result.stdout, result.stderr, taken)


@pytest.fixture
def wide_path(tmp_path: Path) -> Path:
    """An untrained model that often generates characters of one, two, three and four bytes."""
    path = tmp_path / "wide.safetensors"
    checkpoint.save(path, make_checkpoint(text=WIDE))
    return path
