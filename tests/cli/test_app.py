"""The first screen, and what a surrounding shell has already decided."""

import signal
from pathlib import Path

from charrnn import checkpoint
from tests.cli.conftest import CORPUS, ENDLESS, running
from tests.conftest import Charrnn


def test_without_a_command_it_shows_what_there_is(charrnn: Charrnn) -> None:
    result = charrnn()
    assert result.returncode == 2
    assert result.stdout == b""
    assert b"Traceback" not in result.stderr
    for command in (b"train", b"sample", b"eval", b"info", b"corpus"):
        assert b"\n  " + command in result.stderr


def test_an_interrupt_that_the_shell_ignores_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(CORPUS)
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # as a script's `&` does
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
