"""Memory stays bounded: endless lines, pipes and devices, files that ask for too much, networks that do not fit."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.cli import prompts
from charrnn.rnn import backend
from tests.cli.conftest import QUICK
from tests.conftest import TEXT, Charrnn, environment

MB = 10**6
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")

ENDLESS = 256 * MB  # bytes of an input that stands for one without an end
LIMIT = 200 * MB  # a process that holds the input needs more, and any other one less


@dataclass(frozen=True)
class Measured:
    """The result of a process."""

    code: int
    stdout: bytes
    stderr: str
    peak: int  # largest resident memory in bytes


# The peak of `resource.getrusage` would include that of the process that started this one.
MEASURED_PROGRAM = """
import re, sys
from pathlib import Path
from charrnn.cli.app import main
peak = Path(sys.argv.pop(1)).absolute()
try:
    code = main()
finally:
    peak.write_text(str(1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])))
sys.exit(code)
"""


def feed(stdin: IO[bytes], blocks: Iterable[bytes]) -> None:
    """Write blocks to a process until it has seen enough."""
    with suppress(BrokenPipeError), stdin:
        for block in blocks:
            stdin.write(block)


Measure = Callable[..., Measured]


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """A function that runs ``charrnn ARGUMENTS`` as a process, with blocks for its stdin, and measures its memory."""

    def run(*arguments: str | Path, blocks: Iterable[bytes]) -> Measured:
        command = [sys.executable, "-c", MEASURED_PROGRAM, "peak", *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=tmp_path, env=environment(), bufsize=0, **pipes) as process:  # type: ignore[call-overload]
            guard = threading.Timer(100, process.kill)
            guard.start()
            feeder = threading.Thread(target=feed, args=(process.stdin, blocks))
            feeder.start()
            errors: list[bytes] = []
            reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
            reader.start()
            stdout = process.stdout.read()
            for thread in (feeder, reader):
                thread.join()
            code = process.wait()
            guard.cancel()
        return Measured(code, stdout, errors[0].decode(), int((tmp_path / "peak").read_text()))

    return run


def endless(first: bytes = b"", last: bytes = b"", block: bytes = b"o" * 65536) -> Iterator[bytes]:
    yield first
    yield from [block] * (ENDLESS // len(block))
    yield last


def test_a_prompt_line_without_an_end_is_skipped_and_the_others_are_continued(
    measure: Measure, tiny_path: Path
) -> None:
    result = measure("sample", tiny_path, "--prompts", "-", blocks=endless(b"fox\n", b"\ndog\n"))

    assert result.code == 1
    assert result.stderr.splitlines() == [
        "charrnn: stdin, line 2: is longer than 1 MiB; give a shorter prompt, such as its end",
        "charrnn: stdin: 1 prompt could not be continued; see the errors above",
    ]
    assert len(result.stdout.split(b"\n")) == 4
    assert result.peak < LIMIT


def test_a_prompt_without_an_end_is_refused(measure: Measure, tiny_path: Path) -> None:
    result = measure("sample", tiny_path, "--prompt", "-", blocks=endless())

    assert result.code == 1
    assert result.stderr == "charrnn: stdin: is longer than 64 MiB; give a shorter prompt, such as its end\n"
    assert result.peak < 2 * LIMIT


@pytest.mark.parametrize(("size", "failed"), [(2000, False), (2001, True), (200_000, True)])
def test_only_a_prompt_above_the_limit_is_refused(
    charrnn: Charrnn, tiny_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, failed: bool
) -> None:
    monkeypatch.setattr(prompts, "MAX_LINE_BYTES", 2000)
    result = charrnn("sample", tiny_path, "--prompts", "-", "--count", 2, input=b"o" * size + b"\nfox\n")
    assert result.returncode == failed
    assert result.stdout.count(b"\n") == 4
    assert result.stderr.count(b"stdin, line 1: is longer than") == failed


@pytest.mark.parametrize("arguments", [("sample", "/dev/zero"), ("info", "/dev/stdin")])
def test_a_model_without_an_end_is_refused(arguments: tuple[str, ...], measure: Measure, tiny: Checkpoint) -> None:
    result = measure(*arguments, blocks=endless(checkpoint.to_bytes(tiny)))

    assert result.code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"charrnn: {arguments[1]}: is ")
    assert result.peak < LIMIT


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        (("train", "text.txt", "--hidden", 2**63 - 1), "--hidden"),
        (("train", "text.txt", "--layers", 10**9), "--layers"),
        (("train", "text.txt", "--embedding", 10**15), "--embedding"),
        (("bench", "--hidden", 2**63 - 1), "--hidden"),
    ],
)
def test_a_network_that_does_not_fit_into_memory_is_refused(
    charrnn: Charrnn, tmp_path: Path, options: tuple[Any, ...], subject: str
) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 10)
    result = charrnn(*map(str, options), "-q")

    assert result.returncode == 2
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith(f"charrnn: {subject}: a network of ")
    assert line.endswith(f" is available; give a smaller {subject}")


def test_a_run_that_does_not_fit_into_memory_is_not_resumed(
    charrnn: Charrnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 10)
    assert charrnn("train", "text.txt", *QUICK, "-q").returncode == 0
    state = tmp_path / "checkpoints" / "text.training.safetensors"
    before = state.read_bytes()
    monkeypatch.setattr("charrnn.cli.train_setup.available_memory", lambda: 1000)
    result = charrnn("train", "text.txt", "--resume", "--steps", 40, "-q")

    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("charrnn: checkpoints/text.training.safetensors: a network of 1 x 16 needs 0.")
    assert line.endswith(" MB more memory, but only 0.0 MB is available; resume it on a machine with more memory")
    assert state.read_bytes() == before


@pytest.mark.parametrize("arguments", [("sample",), ("sample", "--count", "9"), ("eval",), ("score",)])
def test_a_model_that_needs_too_much_memory_is_refused(
    charrnn: Charrnn, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.setattr(backend, "available_memory", lambda: 1000)
    command, *options = arguments
    text = () if command == "sample" else ("text.txt",)
    result = charrnn(command, "tiny.safetensors", *text, *options)

    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    numbers = "needs 0.0 MB of memory, but only 0.0 MB is available"
    assert line == f"charrnn: tiny.safetensors: reading a text with this model {numbers}; use a smaller model"


def test_more_streams_need_more_memory(
    charrnn: Charrnn, tiny_path: Path, tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "available_memory", lambda: 30_000)
    assert charrnn("sample", tiny_path, "-n", 9).returncode == 0
    assert charrnn("sample", tiny_path, "-n", 9, "--count", 200).returncode == 1


def test_a_huge_file_in_place_of_a_corpus_or_a_log_is_not_read(
    charrnn: Charrnn, tiny_path: Path, tmp_path: Path
) -> None:
    for name in ("corpora/hello.txt", "corpora/names.txt", "tiny.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with open(tmp_path / name, "wb") as file:  # a sparse file
            file.truncate(10**13)
    for name in ("hello", "names"):
        result = charrnn("corpus", "get", name)
        assert result.returncode == 1
        assert b"exists already, with another text" in result.stderr
    result = charrnn("log", tiny_path)
    assert result.returncode == 1
    assert b"tiny.jsonl: is larger than 67,108,864 bytes; " in result.stderr
