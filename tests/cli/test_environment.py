"""The environment of the process: variables, locale, working directory, limits of the system, early signals."""

import errno
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from charrnn import checkpoint
from charrnn.errors import CacheWarning, CharrnnError, shortage
from tests.cli.conftest import NETWORK, WIDE, running
from tests.conftest import Charrnn, environment, make_checkpoint, one_line

FOREIGN = {  # a value that its reader does not accept, or that changes what Python or a library does
    "PYTHONWARNINGS": "error", "NPY_PROMOTION_STATE": "abc",  # NumPy warns about this one
    "PYTHONOPTIMIZE": "2", "PYTHONUNBUFFERED": "1", "PYTHONINSPECT": "1", "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "7", "PYTHONNOUSERSITE": "1", "PYTHONTRACEMALLOC": "2", "PYTHONFAULTHANDLER": "1",
    "PYTHONDEVMODE": "1", "PYTHONIOENCODING": "utf-16", "PYTHONINTMAXSTRDIGITS": "640", "PYTHONBREAKPOINT": "abc",
    "PYTHONUTF8": "0", "LC_ALL": "C", "LANG": "abc",
    "OMP_NUM_THREADS": "2,abc", "MKL_NUM_THREADS": "abc", "OPENBLAS_NUM_THREADS": "abc", "KMP_AFFINITY": "abc",
    "DNNL_MAX_CPU_ISA": "abc", "TORCH_HOME": "/proc/x", "TORCHINDUCTOR_CACHE_DIR": "/proc/x",
    "COLUMNS": "abc", "LINES": "0", "TERM": "abc", "TTY_COMPATIBLE": "1", "FORCE_COLOR": "abc",
    "TMPDIR": "/nonexistent", "HOME": "/nonexistent", "XDG_CACHE_HOME": "/proc", "XDG_CONFIG_HOME": "relative",
    "CHARRNN_CACHE": "/dev/null", "TQDM_MININTERVAL": "abc", "TYPER_USE_RICH": "abc", "TERMINAL_WIDTH": "abc",
    "_CHARRNN_COMPLETE": "", "MPLBACKEND": "abc", "MPLCONFIGDIR": "/proc", "CUDA_VISIBLE_DEVICES": "abc",
}  # fmt: skip
SLOW = {"PYTHONOPTIMIZE", "PYTHONTRACEMALLOC", "PYTHONDEVMODE", "PYTHONDONTWRITEBYTECODE"}
COMMANDS = ["sample wide -n 200 --seed 1", "eval wide corpus.txt", "corpus check corpus.txt", "--help"]
# What Python itself, a C library, or a request of the user for another output says before or beside charrnn.
SAYS_MORE = {"PYTHONDEVMODE", "PYTHONOPTIMIZE", "COLUMNS"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a model of wide characters and a text."""
    (tmp_path / "checkpoints").mkdir()
    checkpoint.save(tmp_path / "checkpoints/wide.safetensors", make_checkpoint(text=WIDE))
    (tmp_path / "corpus.txt").write_text(WIDE * 50, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS[:2])
def test_foreign_variables_do_not_change_a_command(
    charrnn: Charrnn, charrnn_process: Charrnn, folder: Path, command: str
) -> None:
    env = {name: value for name, value in FOREIGN.items() if name not in SLOW}
    result = charrnn_process(*command.split(), env=env)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == charrnn(*command.split()).stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", [*COMMANDS, "train corpus.txt --steps 2 --force -q --hidden 16"])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_variable_does_not_change_a_command(
    charrnn_process: Charrnn, folder: Path, name: str, command: str
) -> None:
    result, plain = (charrnn_process(*command.split(), env=env) for env in ({name: FOREIGN[name]}, {}))
    assert (result.returncode, b"Traceback" in result.stderr) == (0, False)
    assert name in SAYS_MORE or result.stdout == plain.stdout


def test_inspection_does_not_print_an_exit_as_an_error(charrnn_process: Charrnn, folder: Path) -> None:
    result = charrnn_process("sample", "missing", env={"PYTHONINSPECT": "1"})
    assert result.returncode == 1
    assert b"no such file" in one_line(result).encode()


def test_arguments_and_file_names_are_utf8_under_any_locale(
    charrnn: Charrnn, charrnn_process: Charrnn, folder: Path
) -> None:
    (folder / "corpus.txt").rename(folder / "корпус €.txt")
    ascii_only = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    sample = ("sample", "wide", "--prompt", "é€", "--echo", "--stop", "𝄞", "--forbid", "ц", "--seed", "3")
    for arguments in (("corpus", "check", "корпус €.txt"), sample):
        foreign, plain = charrnn_process(*arguments, env=ascii_only), charrnn(*arguments)
        assert (foreign.returncode, foreign.stdout, foreign.stderr) == (0, plain.stdout, plain.stderr)


def test_a_file_with_the_name_of_a_library_is_not_imported(charrnn_process: Charrnn, folder: Path) -> None:
    for name in ("numpy", "torch", "json", "random", "typer", "rich", "queue"):
        (folder / f"{name}.py").write_text("raise SystemExit('imported')")
    result = charrnn_process("sample", "wide", "-n", "20")
    assert (result.returncode, result.stderr) == (0, b"")


def test_help_is_utf8_even_if_python_writes_another_encoding(charrnn_process: Charrnn) -> None:
    result = charrnn_process("--help", env={"PYTHONIOENCODING": "utf-16"})
    assert result.stdout.decode().startswith("Usage: charrnn")


def _log(folder: Path) -> None:
    entry = '{"step": 1, "epoch": 1.0, "fraction": 1.0, "train_nats": 1.0, "validation_nats": 2.0, "best": true, '
    entry += '"learning_rate": 0.1, "seconds": 1.0}\n'
    (folder / "checkpoints/wide.jsonl").write_text(entry)


def test_a_picture_needs_no_configuration_of_matplotlib(charrnn_process: Charrnn, folder: Path) -> None:
    _log(folder)
    foreign = {"MPLBACKEND": "abc", "MPLCONFIGDIR": "/proc", "HOME": "/nonexistent", "PYTHONWARNINGS": "error"}
    result = charrnn_process("log", "wide", "-o", "curve.png", env=foreign)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_broken_configuration_of_matplotlib_is_a_one_line_error(charrnn_process: Charrnn, folder: Path) -> None:
    _log(folder)
    (folder / "matplotlibrc").write_bytes(b"\xff\xfe")
    result = charrnn_process("log", "wide", "-o", "curve.png")
    assert result.returncode == 1
    assert one_line(result).startswith("charrnn: matplotlib: cannot draw the picture (")
    assert not (folder / "curve.png").exists()


def test_only_warnings_about_caches_are_shown(
    charrnn: Charrnn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = checkpoint.load

    def warning_load(path: Path) -> checkpoint.Checkpoint:
        for _ in range(2):
            warnings.warn("cache/x: is damaged; it is made again", CacheWarning, stacklevel=1)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        return load(path)

    monkeypatch.setattr(checkpoint, "load", warning_load)
    result = charrnn("sample", "wide", "-n", "5")
    assert result.returncode == 0
    assert result.stderr == b"charrnn: cache/x: is damaged; it is made again\n" * 2


# Shortage


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (RuntimeError("Resource temporarily unavailable"), "threads"),
        (OSError(errno.EMFILE, "Too many open files"), "open files"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), None),
        (CharrnnError("a", "out of memory", "b"), "memory"),
        (ImportError("No module named 'x'"), None),
    ],
    ids=repr,
)
def test_an_error_says_what_has_run_out(error: Exception, what: str | None) -> None:
    assert shortage(error) == what
    wrapped = RuntimeError("cannot compile")
    wrapped.__cause__ = error
    assert shortage(wrapped) == what


def _limit(**limits: int) -> Callable[[], None]:
    def set_limits() -> None:
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

    return set_limits


# A thread needs memory for its stack, which is as large as the limit allows.
NO_THREADS = _limit(STACK=1 << 36, AS=1 << 33)


@pytest.mark.skipif(sys.platform != "linux", reason="the limits work in another way")
@pytest.mark.parametrize(
    ("arguments", "limit", "what"),
    [
        (("score", "wide", "corpus.txt"), NO_THREADS, "threads"),
        pytest.param(
            ("train", "corpus.txt", *NETWORK, "--steps", "1", "-q"), NO_THREADS, "threads", marks=pytest.mark.slow
        ),
        (("train", "corpus.txt", *NETWORK, "--steps", "1", "-q"), _limit(AS=300 << 20), "memory"),
    ],
    ids=["score without threads", "train without threads", "train without memory for torch"],
)
def test_shortage_is_a_one_line_error(
    charrnn_process: Charrnn, folder: Path, arguments: tuple[str, ...], limit: Any, what: str
) -> None:
    result = charrnn_process(*arguments, preexec_fn=limit, env={"OPENBLAS_NUM_THREADS": "2"})
    assert result.returncode == 1
    assert one_line(result).startswith(f"charrnn: {what}: ")


@pytest.mark.parametrize("command", ["sample wide --prompts corpus.txt", "train corpus.txt -q --steps 1"])
def test_a_thread_that_cannot_start_is_named(
    charrnn: Charrnn, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def fail(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", fail)
    result = charrnn(*command.split())
    assert result.returncode == 1
    assert one_line(result).startswith("charrnn: threads: no more can be started; ")


def test_the_program_starts_in_a_directory_that_was_deleted(tmp_path: Path) -> None:
    directory = tmp_path / "deleted"
    directory.mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "charrnn", "--version"], cwd=directory, env=environment(),
        preexec_fn=directory.rmdir, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, b"")


# Interrupts


@pytest.mark.parametrize("imported", ["inspect", "typer.core", "charrnn.config", "numpy"])
def test_an_interrupt_during_the_start_ends_it_silently(folder: Path, imported: str) -> None:
    program = [sys.executable, "-v", "-m", "charrnn"]  # -v reports each import on stderr
    with running("sample", "wide", "-n", "0", program=program, cwd=folder) as process:
        seen = b""
        while f"import '{imported}'".encode() not in seen:
            seen = process.stderr.readline()
            assert seen
        process.send_signal(signal.SIGINT)
        stderr = process.communicate()[1]
    assert (process.returncode, b"KeyboardInterrupt" in stderr) == (130, False)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["--help", "sample wide -n 0", "train corpus.txt --minutes 1 --hidden 16 -q"])
def test_an_interrupt_at_any_time_ends_the_command_silently(folder: Path, command: str) -> None:
    ready = (
        "import os, runpy, sys, charrnn; sys.argv[0] = 'charrnn'; import charrnn.__main__ as m; print(flush=True);"
    )
    program = [sys.executable, "-c", ready + "m.main()"]
    for milliseconds in range(0, 400, 5):
        with running(*command.split(), program=program, cwd=folder) as process:
            process.stdout.readline()  # charrnn is imported; from here on an interrupt is handled
            try:
                process.wait(milliseconds / 1000)
            except Exception:
                process.send_signal(signal.SIGINT)
            stderr = process.communicate()[1]
        assert process.returncode in (0, 130)
        assert b"KeyboardInterrupt" not in stderr


def test_samples_without_end_stop_with_their_reader_or_with_ctrl_c(folder: Path, warm: list[str]) -> None:
    for interrupt in (False, True):
        endless = ("sample", "wide", "--count", str(2**63 - 1), "-n", "3")
        with running(*endless, program=warm, cwd=folder) as process:
            for _ in range(500):
                process.stdout.readline()
            if interrupt:
                process.send_signal(signal.SIGINT)
                while process.stdout.read(1 << 16):  # otherwise it could end because of its reader
                    pass
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() in ((130,) if interrupt else (0,))
