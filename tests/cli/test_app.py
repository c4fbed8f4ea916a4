"""The help without a command, inherited signal settings, pipes, and suggested commands."""

import fcntl
import os
import shlex
import signal
import sys
import termios
import time
from pathlib import Path

import pytest

from charrnn import checkpoint
from charrnn.cli.train_progress import resume_command
from tests.cli.conftest import CORPUS, ENDLESS, running
from tests.conftest import Charrnn


def test_without_a_command_the_help_lists_the_commands(charrnn: Charrnn) -> None:
    result = charrnn()
    assert result.returncode == 2
    assert result.stdout == b""
    assert b"Traceback" not in result.stderr
    for command in (b"train", b"sample", b"eval", b"info", b"corpus"):
        assert b"\n  " + command in result.stderr
    assert b"..." not in result.stderr.partition(b"Commands:")[2]  # no description is cut off


def test_an_ignored_sigint_stays_ignored(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # as `&` does in a script
    # Without `warm`: the client would ignore the signal and not forward it.
    with running("train", "corpus.txt", *ENDLESS, cwd=tmp_path, **ignoring) as process:
        while not process.stderr.readline().startswith(b"step"):
            pass
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith(b"step")  # training continues
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143


def test_a_model_can_be_read_from_a_pipe(charrnn: Charrnn, tiny_path: Path, tmp_path: Path) -> None:
    with open(tiny_path, "rb") as model:
        piped = charrnn("sample", "/dev/stdin", "-n", "20", "--seed", "1", stdin=model)
    assert piped.stdout == charrnn("sample", tiny_path, "-n", "20", "--seed", "1").stdout
    assert checkpoint.load(tiny_path)


def test_a_network_too_large_for_memory_is_a_one_line_error(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    result = charrnn("train", "corpus.txt", "--hidden", "4000000", "--layers", "1", "--steps", "1")
    assert result.returncode == 2
    assert result.stderr.decode().splitlines()[-1].startswith("charrnn: --hidden: a network of 1 x 4,000,000 needs ")
    assert b"Traceback" not in result.stderr


def unread_bytes(pipe: int) -> int:
    """Return the number of unread bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_writing_waits_for_a_full_nonblocking_pipe(tiny_path: Path, warm: list[str]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with running("sample", tiny_path, "-n", "200000", program=warm, stdout=writer) as process:
        os.close(writer)
        unread, previous = 0, -1
        while unread < 60_000 or unread != previous:  # until the pipe is full
            time.sleep(0.05)
            unread, previous = unread_bytes(reader), unread
        with open(reader, "rb") as pipe:
            assert len(pipe.read()) == 200_000
        assert process.wait() == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("name", ["-x", "two $HOME [red] ünï"])
def test_suggested_commands_work_for_any_name(charrnn: Charrnn, tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.txt").write_text("to be or not to be\n" * 60)
    options = ("--steps", "3", "--hidden", "16", "--threads", "1")
    suggestion = charrnn("train", *options, f"./{name}.txt").stderr.decode().splitlines()[-1]
    assert suggestion.startswith("next: charrnn sample ")
    assert len(charrnn(*shlex.split(suggestion)[2:], "-n", "5").stdout) == 5
    arguments = shlex.split(resume_command([f"{name}.txt"], Path("checkpoints", f"{name}.safetensors")))
    assert charrnn(*arguments[1:]).returncode == 0
