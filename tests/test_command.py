"""Commands that run in this process leave it as it was, and fail as a process would."""

import os
import signal
import sys
from pathlib import Path

import pytest

from charrnn.cli import app
from tests.conftest import Charrnn


def test_nothing_of_a_run_is_left(charrnn: Charrnn, tmp_path: Path) -> None:
    def owned() -> tuple[object, ...]:
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        return os.getcwd(), dict(os.environ), handlers, sys.stdin, sys.stdout, sys.stderr, len(os.listdir("/dev/fd"))

    before = owned()
    assert charrnn("corpus", "check", "-", input=b"some text\n" * 10_000, env={"NO_COLOR": "1"}).returncode == 0
    assert charrnn("sample", "nobody").returncode == 1
    assert owned() == before


def test_a_defect_is_a_traceback(charrnn: Charrnn, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(app, "_run", broken)
    result = charrnn("--help")
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.startswith(b"Traceback ")
    assert result.stderr.endswith(b"ZeroDivisionError\n")


def test_a_reader_that_is_gone_does_no_harm_to_the_tests(charrnn: Charrnn, tiny_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as stdout:
        for command in (("--help",), ("sample", tiny_path, "-n", "0")):
            assert (charrnn(*command, stdout=stdout).returncode, charrnn("--version").stdout[:7]) == (0, b"charrnn")
