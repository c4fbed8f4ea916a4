"""What all tests share: one tiny model, and a way to run the program as a shell would."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.config import Cell, ModelConfig, TrainConfig
from charrnn.data.vocabulary import Vocabulary

# No deadline, because machines are busy at times; the same examples in CI each time, new ones at a developer's desk.
settings.register_profile("charrnn", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("charrnn")

TEXT = "The quick brown fox jumps over the lazy dog.\nPack my box with five dozen liquor jugs!\n"


def make_checkpoint(*, cell: Cell = "lstm", layers: int = 1, embedding: int = 0, text: str = TEXT) -> Checkpoint:
    """An untrained model of 16 units, seed 0."""
    from dataclasses import asdict

    from charrnn.rnn.torch_rnn import CharRNN

    config = ModelConfig(cell=cell, layers=layers, hidden=16, embedding=embedding)
    vocabulary = Vocabulary.of(text)
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
    """Runs ``charrnn ARGUMENTS`` in ``tmp_path`` as a process, with an empty stdin unless ``input`` is given.

    ``env`` adds to the environment; other keywords go to `subprocess.run`.
    """

    def run(*arguments: str | Path, env: dict[str, str] | None = None, **options: Any) -> Any:
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        options.setdefault("cwd", tmp_path)
        command = [sys.executable, "-m", "charrnn", *map(str, arguments)]
        return subprocess.run(command, env=environment(**(env or {})), timeout=120, check=False, **options)

    return run


def one_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """stderr of a run, which must be a single line in our form and no traceback."""
    text = result.stderr.decode()
    assert text.startswith("charrnn: "), text
    assert text.count("\n") == 1, text
    assert text.endswith("\n"), text
    return text
