"""What all tests share: one tiny model, and a way to run the program as a shell would."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.config import Cell, ModelConfig, TrainConfig
from charrnn.data.vocabulary import Vocabulary
from tests import command
from tests.warm import serving

# No deadline, because machines are busy at times; the same examples in CI each time, new ones at a developer's desk.
settings.register_profile("charrnn", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("charrnn")

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")
if sys.platform == "win32":  # these tests use signals, named pipes, terminals and shells as POSIX has them
    collect_ignore = ["cli", "test_command.py", "test_readme.py"]

TEXT = "The quick brown fox jumps over the lazy dog.\nPack my box with five dozen liquor jugs!\n"


def make_checkpoint(*, cell: Cell = "lstm", layers: int = 1, embedding: int = 0, text: str = TEXT) -> Checkpoint:
    """An untrained model of 16 units, seed 0."""
    from dataclasses import asdict

    from charrnn.rnn.torch_rnn import CharRNN

    config = ModelConfig(cell=cell, layers=layers, hidden=16, embedding=embedding)
    vocabulary = Vocabulary.from_text(text)
    network = CharRNN(config, len(vocabulary))
    network.initialize(seed=0)
    record = {
        "corpus": {"name": "tiny", "sha256": "0" * 64, "characters": len(text), "validation_characters": 0},
        "settings": asdict(TrainConfig(steps=1)),
        "steps": 0,
        "ended": "done",
        "best_step": 0,
        "validation_nats": None,
        "charrnn": "0",
        "torch": "0",
    }
    return Checkpoint(config, vocabulary, network.tensors(), record)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what this machine's user has measured and compiled out of the tests, and the other way round."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("LOCALAPPDATA", None)


@pytest.fixture(scope="session")
def tiny() -> Checkpoint:
    return make_checkpoint()


@pytest.fixture
def tiny_path(tiny: Checkpoint, tmp_path: Path) -> Path:
    """The tiny model as a file, in a folder of its own."""
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, tiny)
    return path


def environment(**changes: str) -> dict[str, str]:
    """An environment in which nothing of the caller's taste in colours or buffers counts."""
    dropped = {"NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED", "COLUMNS", "TQDM_DISABLE", "PYTHONIOENCODING"}
    return {name: value for name, value in os.environ.items() if name not in dropped} | changes


Charrnn = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def charrnn(tmp_path: Path) -> Charrnn:
    """Runs ``charrnn ARGUMENTS`` in ``tmp_path``, within this process, with an empty stdin unless ``input`` is given.

    ``env`` adds to the environment; the other keywords are those of `command.run`, which mean what they mean to
    `subprocess.run`.
    """

    return within(tmp_path)


def within(folder: Path) -> Charrnn:
    """A function that runs ``charrnn ARGUMENTS`` in a folder, within this process."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None, **options: Any) -> Any:
        options.setdefault("cwd", folder)
        return command.run([*map(str, arguments)], env=environment(**(env or {})), **options)

    return run


@pytest.fixture
def charrnn_process(tmp_path: Path) -> Charrnn:
    """Runs ``charrnn ARGUMENTS`` as a process, for what only a process shows; otherwise like `charrnn`.

    Takes a second where torch is loaded; `warm` does not.
    """

    return started([sys.executable, "-m", "charrnn"], tmp_path)


@pytest.fixture
def without_torch(torchless: list[str], tmp_path: Path) -> Charrnn:
    """Runs ``charrnn ARGUMENTS`` as a process that fails when it imports torch."""
    return started(torchless, tmp_path)


def started(program: list[str], folder: Path) -> Charrnn:
    """A function that runs a program as a process in a folder, with an empty stdin unless ``input`` is given."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None, **options: Any) -> Any:
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": folder} | options
        words = [*program, *map(str, arguments)]
        return subprocess.run(words, env=environment(**(env or {})), timeout=120, check=False, **options)

    return run


@pytest.fixture(scope="session")
def warm() -> Iterator[list[str]]:
    """The words that start a real process which need not load torch first."""
    with serving() as words:
        yield words


@pytest.fixture(scope="session")
def torchless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The words that start a real process in which torch cannot be imported."""
    folder = tmp_path_factory.mktemp("torchless")
    (folder / "corpus.txt").write_text(TEXT * 9)
    with serving(torch=False) as words:
        attempt = started(words, folder)("train", "corpus.txt", "--steps", "1")
        assert attempt.returncode == 1
        assert attempt.stderr.endswith(b"TorchImported: torch\n"), attempt.stderr
        yield words


def one_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """stderr of a run, which must be a single line in our form and no traceback."""
    text = result.stderr.decode()
    assert text.startswith("charrnn: "), text
    assert text.count("\n") == 1, text
    assert text.endswith("\n"), text
    return text
