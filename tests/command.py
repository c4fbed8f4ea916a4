"""Run a ``charrnn`` command in this process, with separate streams, working directory and environment."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

Stream = int | IO[Any] | None
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]


def run(
    arguments: Sequence[str],
    *,
    cwd: str | Path,
    env: Mapping[str, str],
    input: bytes | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.PIPE,
    stderr: Stream = subprocess.PIPE,
) -> subprocess.CompletedProcess[bytes]:
    """Run ``charrnn ARGUMENTS`` and return the same result as `subprocess.run`.

    An uncaught exception becomes exit code 1 with a traceback on stderr. The state of this process is restored
    afterwards: descriptors, streams, working directory, environment, signal handlers and torch's settings.
    """
    with contextlib.ExitStack() as stack:
        source = _open_input(stack, stdin, input)
        out, captured_out = _open_output(stack, stdout)
        err, captured_err = (out, None) if stderr == subprocess.STDOUT else _open_output(stack, stderr)
        with _torch_settings(), _signals(), _directory(cwd, env), _streams(source, out, err):
            code = call_main(arguments)
    return subprocess.CompletedProcess(["charrnn", *arguments], code, _read(captured_out), _read(captured_err))


def call_main(arguments: Sequence[str]) -> int:
    """Run a command and return the exit code: 1, with a traceback, after an uncaught exception."""
    from charrnn.cli.app import main

    argv, sys.argv = sys.argv, ["charrnn", *arguments]
    try:
        return int(main(list(arguments)))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.argv = argv


def open_streams() -> None:
    """Open ``sys.stdin``, ``stdout`` and ``stderr`` on descriptors 0, 1 and 2, as Python does at startup."""
    raw_in, raw_out, raw_err = (
        io.FileIO(number, mode, closefd=False) for number, mode in ((0, "rb"), (1, "wb"), (2, "wb"))
    )
    sys.stdin = io.TextIOWrapper(io.BufferedReader(raw_in), "utf-8", "strict")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw_out), "utf-8", "strict", line_buffering=os.isatty(1))
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(raw_err), "utf-8", "backslashreplace", line_buffering=True)


def _open_input(stack: contextlib.ExitStack, stdin: Stream, data: bytes | None) -> int:
    """Return a descriptor to read from. ``data`` is sent through a pipe."""
    if data is None:
        if stdin is None:
            return 0
        if stdin == subprocess.DEVNULL:
            return stack.enter_context(open(os.devnull, "rb")).fileno()
        return stdin if isinstance(stdin, int) else stdin.fileno()
    reader, writer = os.pipe()
    thread = threading.Thread(target=_feed, args=(writer, data), daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(os.close, reader)  # runs before the join: closing the reader ends the thread
    return reader


def _feed(writer: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(writer, "wb", buffering=0) as pipe:
        rest = memoryview(data)
        while rest:
            rest = rest[pipe.write(rest) :]


def _open_output(stack: contextlib.ExitStack, stream: Stream) -> tuple[int, IO[bytes] | None]:
    """Return a descriptor to write to, and the file that captures the output if ``stream`` is `PIPE`."""
    if stream == subprocess.PIPE:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # read after the stack is closed
        return file.fileno(), file
    if stream == subprocess.DEVNULL:
        return stack.enter_context(open(os.devnull, "wb")).fileno(), None
    assert stream is not None, "pass a stream: output that pytest captures is not checked"
    return (stream if isinstance(stream, int) else stream.fileno()), None


def _read(file: IO[bytes] | None) -> bytes | None:
    if file is None:
        return None
    with file:
        file.seek(0)
        return file.read()


@contextlib.contextmanager
def _streams(source: int, out: int, err: int) -> Iterator[None]:
    """Redirect descriptors 0, 1 and 2, and open Python's streams on them."""
    before = sys.stdin, sys.stdout, sys.stderr
    for stream in before[1:]:
        stream.flush()
    saved = [os.dup(number) for number in range(3)]
    copies = [os.dup(number) for number in (source, out, err)]  # the arguments may be 0, 1 or 2
    try:
        for number, copy in enumerate(copies):
            os.dup2(copy, number)
        open_streams()
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        with open(os.devnull, "wb") as devnull:  # receives output that could not be written
            for number in (1, 2):
                os.dup2(devnull.fileno(), number)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number)
        for descriptor in (*saved, *copies):
            os.close(descriptor)


@contextlib.contextmanager
def _directory(cwd: str | Path, env: Mapping[str, str]) -> Iterator[None]:
    """Change the working directory and the environment."""
    before, temporary = dict(os.environ), tempfile.tempdir
    try:
        with contextlib.chdir(cwd):
            os.environ.clear()
            os.environ.update(env)
            tempfile.tempdir = None  # determined again from the environment
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        tempfile.tempdir = temporary


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Set Python's default signal handlers, and restore the previous ones afterwards."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _torch_settings() -> Iterator[None]:
    """Restore the settings of torch and tqdm afterwards."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
        if (tqdm := sys.modules.get("tqdm")) and tqdm.tqdm.monitor is not None:
            tqdm.tqdm.monitor.exit()
            tqdm.tqdm.monitor = None
