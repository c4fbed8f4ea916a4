"""Fixtures for all tests: a tiny model, and functions that run the program as a shell would."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint, CorpusRecord, TrainingRecord
from charrnn.config import Cell, ModelConfig, TrainConfig
from charrnn.data.vocabulary import Vocabulary
from tests import command
from tests.warm import serving

# No deadline, because machines are busy at times. CI uses the same examples in every run; elsewhere they vary.
settings.register_profile("charrnn", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("charrnn")

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")
if sys.platform == "win32":  # these tests use signals, named pipes, terminals and shells as POSIX has them
    collect_ignore = ["cli", "test_command.py", "test_docs.py"]

TEXT = "The quick brown fox jumps over the lazy dog.\nPack my box with five dozen liquor jugs!\n"


def make_checkpoint(*, cell: Cell = "lstm", layers: int = 1, embedding: int = 0, text: str = TEXT) -> Checkpoint:
    """Return an untrained model of 16 units, initialized with seed 0."""
    from charrnn.rnn.torch_rnn import CharRNN

    config = ModelConfig(cell=cell, layers=layers, hidden=16, embedding=embedding)
    vocabulary = Vocabulary.from_text(text)
    network = CharRNN(config, len(vocabulary))
    network.initialize(seed=0)
    corpus = CorpusRecord(
        name="tiny", sha256="0" * 64, characters=len(text), validation_characters=0, split=0, num_documents=0,
        longest_document=0,
    )  # fmt: skip
    record = TrainingRecord(
        corpus=corpus, settings=TrainConfig(steps=1), from_=None, changed=(), steps=0, outcome="done", best_step=0,
        validation_nats=None, charrnn="0", torch="0",
    )  # fmt: skip
    return Checkpoint(config, vocabulary, network.tensors(), record)


@pytest.fixture(scope="session", autouse=True)
def _isolated_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use a temporary cache, so that the tests and the user's cache do not affect each other."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("LOCALAPPDATA", None)


@pytest.fixture(scope="session")
def tiny() -> Checkpoint:
    return make_checkpoint()


@pytest.fixture
def tiny_path(tiny: Checkpoint, tmp_path: Path) -> Path:
    """The tiny model, saved in ``tmp_path``."""
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, tiny)
    return path


def environment(**changes: str) -> dict[str, str]:
    """Return the environment with changes, without the variables that affect colours, buffers or progress bars."""
    removed = {"NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED", "COLUMNS", "TQDM_DISABLE", "PYTHONIOENCODING"}
    return {name: value for name, value in os.environ.items() if name not in removed} | changes


Charrnn = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def charrnn(tmp_path: Path) -> Charrnn:
    """A function that runs ``charrnn ARGUMENTS`` in ``tmp_path``, in this process, with an empty stdin by default.

    ``env`` adds to the environment. The other keywords are those of `command.run`, with the same meaning as for
    `subprocess.run`.
    """

    return within(tmp_path)


def within(directory: Path) -> Charrnn:
    """Return a function that runs ``charrnn ARGUMENTS`` in a directory, in this process."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None, **options: Any) -> Any:
        options.setdefault("cwd", directory)
        return command.run([*map(str, arguments)], env=environment(**(env or {})), **options)

    return run


@pytest.fixture
def charrnn_process(tmp_path: Path) -> Charrnn:
    """A function that runs ``charrnn ARGUMENTS`` as a separate process; otherwise like `charrnn`.

    For tests of the process itself. Commands that load torch take a second; with `warm` they do not.
    """

    return started([sys.executable, "-m", "charrnn"], tmp_path)


@pytest.fixture
def without_torch(torchless: list[str], tmp_path: Path) -> Charrnn:
    """A function that runs ``charrnn ARGUMENTS`` as a process that fails if it imports torch."""
    return started(torchless, tmp_path)


def started(program: list[str], directory: Path) -> Charrnn:
    """Return a function that runs a program as a process in a directory, with an empty stdin by default."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None, **options: Any) -> Any:
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": directory} | options
        command_line = [*program, *map(str, arguments)]
        return subprocess.run(command_line, env=environment(**(env or {})), timeout=120, check=False, **options)

    return run


@pytest.fixture(scope="session")
def warm() -> Iterator[list[str]]:
    """The command that starts a separate process in which torch is already loaded."""
    with serving() as program:
        yield program


@pytest.fixture(scope="session")
def torchless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command that starts a separate process in which torch cannot be imported."""
    directory = tmp_path_factory.mktemp("torchless")
    (directory / "corpus.txt").write_text(TEXT * 9)
    with serving(torch=False) as program:
        result = started(program, directory)("train", "corpus.txt", "--steps", "1")
        assert result.returncode == 1
        assert result.stderr.endswith(b"TorchImported: torch\n"), result.stderr
        yield program


def one_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """Return stderr of a run. Check that it is one line of the form ``charrnn: ...``."""
    text = result.stderr.decode()
    assert text.startswith("charrnn: "), text
    assert text.count("\n") == 1, text
    assert text.endswith("\n"), text
    return text
