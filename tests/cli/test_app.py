"""The first screen, and what a surrounding shell has already decided."""

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


def test_without_a_command_it_shows_what_there_is(charrnn: Charrnn) -> None:
    result = charrnn()
    assert result.returncode == 2
    assert result.stdout == b""
    assert b"Traceback" not in result.stderr
    for command in (b"train", b"sample", b"eval", b"info", b"corpus"):
        assert b"\n  " + command in result.stderr
    assert b"..." not in result.stderr.partition(b"Commands:")[2]  # each is told to the end


def test_an_interrupt_that_the_shell_ignores_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # as a script's `&` does
    # a true process: a stand-in that ignores the signal would not pass it on
    with running("train", "corpus.txt", *ENDLESS, cwd=tmp_path, **ignoring) as process:
        while not process.stderr.readline().startswith(b"step"):
            pass
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith(b"step")  # and another one: it goes on
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143


def test_a_model_can_be_read_from_a_pipe(charrnn: Charrnn, tiny_path: Path, tmp_path: Path) -> None:
    with open(tiny_path, "rb") as model:
        piped = charrnn("sample", "/dev/stdin", "-n", "20", "--seed", "1", stdin=model)
    assert piped.stdout == charrnn("sample", tiny_path, "-n", "20", "--seed", "1").stdout
    assert checkpoint.load(tiny_path)


def test_a_network_too_large_for_memory_is_one_line(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    result = charrnn("train", "corpus.txt", "--hidden", "4000000", "--layers", "1", "--steps", "1")
    assert result.returncode == 1
    assert result.stderr.decode().splitlines()[-1].startswith("charrnn: memory: there is not enough; reduce")
    assert b"Traceback" not in result.stderr


def bytes_held(pipe: int) -> int:
    """How many bytes a pipe holds that nobody has read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_full_pipe_that_does_not_block_is_waited_for(tiny_path: Path, warm: list[str]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with running("sample", tiny_path, "-n", "200000", program=warm, stdout=writer) as process:
        os.close(writer)
        held, before = 0, -1
        while held < 60_000 or held != before:  # until the pipe is full
            time.sleep(0.05)
            held, before = bytes_held(reader), held
        with open(reader, "rb") as pipe:
            assert len(pipe.read()) == 200_000
        assert process.wait() == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("name", ["-x", "two $HOME [red] ünï"])
def test_the_commands_that_are_advised_work_for_any_name(charrnn: Charrnn, tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.txt").write_text("to be or not to be\n" * 60)
    options = ("--steps", "3", "--hidden", "16", "--threads", "1")
    advice = charrnn("train", *options, f"./{name}.txt").stderr.decode().splitlines()[-1]
    assert advice.startswith("next: charrnn sample ")
    assert len(charrnn(*shlex.split(advice)[2:], "-n", "5").stdout) == 5
    words = shlex.split(resume_command([f"{name}.txt"], Path("checkpoints", f"{name}.safetensors")))
    assert charrnn(*words[1:]).returncode == 0
