"""A command that runs in this process restores its state, and fails as a separate process does."""

import os
import signal
import sys
from pathlib import Path

import pytest

from charrnn.cli import app
from tests.conftest import Charrnn


def test_a_command_restores_the_state_of_the_process(charrnn: Charrnn, tmp_path: Path) -> None:
    def process_state() -> tuple[object, ...]:
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        return os.getcwd(), dict(os.environ), handlers, sys.stdin, sys.stdout, sys.stderr, len(os.listdir("/dev/fd"))

    before = process_state()
    assert charrnn("corpus", "check", "-", input=b"some text\n" * 10_000, env={"NO_COLOR": "1"}).returncode == 0
    assert charrnn("sample", "missing").returncode == 1
    assert process_state() == before


def test_an_unexpected_error_prints_a_traceback(charrnn: Charrnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app, "_run", fail)
    result = charrnn("--help")
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.startswith(b"Traceback ")
    assert result.stderr.endswith(b"ZeroDivisionError\n")


def test_a_closed_pipe_does_not_affect_the_next_command(charrnn: Charrnn, tiny_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:
        for command in (("--help",), ("sample", tiny_path, "-n", "0")):
            assert (charrnn(*command, stdout=stdout).returncode, charrnn("--version").stdout[:7]) == (0, b"charrnn")
