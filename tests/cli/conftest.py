"""What the tests of the command line share: processes to talk to while they run, and one training run for all."""

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
           "--engine", "torch")  # fmt: skip  # nothing raced: two runs are the same
QUICK = (*NETWORK, "--steps", "20")
ENDLESS = (*NETWORK, "--steps", "20000", "--patience", "0")  # with the first evaluation after 200 steps
CORPUS = TEXT * 40
WIDE = "йцуé€𝄞\n"  # the alphabet of a model whose characters take one to four bytes


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """So that no test but that of the message is the first one ever to compile."""
    made = make_checkpoint()
    CompiledRNN(made.model_config, made.tensors)


@dataclass(frozen=True)
class Run:
    """A run that is over."""

    folder: Path  # where it ran
    code: int
    stdout: bytes
    stderr: bytes
    stdin_taken: int = 0  # bytes that it read from stdin

    @property
    def model(self) -> Path:
        """The model that it says it wrote."""
        return self.folder / self.stdout.decode().removesuffix("\n")


@contextmanager
def running(
    *arguments: str | Path, program: Sequence[str] = PROGRAM, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A ``charrnn`` at work, on pipes unless ``options`` say otherwise; killed at the end, or when it hangs."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # where pytest ignores it, so would its children
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
    """No file of this process can grow beyond a size, as if its disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(folder: Path) -> dict[str, bytes]:
    """Everything under a folder: paths and contents, the latter empty for what is no regular file."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``charrnn train corpus.txt`` without a terminal, with a stdin to steal from and homes of its own to litter."""
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
    """An untrained model that writes characters of one to four bytes, all of them often."""
    path = tmp_path / "wide.safetensors"
    checkpoint.save(path, make_checkpoint(text=WIDE))
    return path
