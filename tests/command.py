"""Run a ``charrnn`` command inside this process, with streams, folder and environment of its own."""

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
    """Run ``charrnn ARGUMENTS`` as `subprocess.run` would, and return what it would return.

    An exception that leaves the program becomes exit code 1 with a traceback on stderr. Everything that a process
    owns is put back afterwards: descriptors, streams, folder, environment, signal handlers, torch's settings.
    """
    with contextlib.ExitStack() as stack:
        source = _source(stack, stdin, input)
        out, collected_out = _sink(stack, stdout)
        err, collected_err = (out, None) if stderr == subprocess.STDOUT else _sink(stack, stderr)
        with _settings(), _signals(), _place(cwd, env), _streams(source, out, err):
            code = call_main(arguments)
    return subprocess.CompletedProcess(
        ["charrnn", *arguments], code, _content(collected_out), _content(collected_err)
    )


def call_main(arguments: Sequence[str]) -> int:
    """Return the exit code of a command; 1 where a defect of the program would end it with a traceback."""
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
    """Make ``sys.stdin``, ``stdout`` and ``stderr`` of descriptors 0, 1 and 2, as Python does when it starts."""
    raw_in, raw_out, raw_err = (
        io.FileIO(number, mode, closefd=False) for number, mode in ((0, "rb"), (1, "wb"), (2, "wb"))
    )
    sys.stdin = io.TextIOWrapper(io.BufferedReader(raw_in), "utf-8", "strict")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw_out), "utf-8", "strict", line_buffering=os.isatty(1))
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(raw_err), "utf-8", "backslashreplace", line_buffering=True)


def _source(stack: contextlib.ExitStack, stdin: Stream, data: bytes | None) -> int:
    """Return a descriptor to read from; ``data`` comes through a pipe."""
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
    stack.callback(os.close, reader)  # called before the join: a pipe without a reader ends the thread
    return reader


def _feed(writer: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(writer, "wb", buffering=0) as pipe:
        rest = memoryview(data)
        while rest:
            rest = rest[pipe.write(rest) :]


def _sink(stack: contextlib.ExitStack, stream: Stream) -> tuple[int, IO[bytes] | None]:
    """Return a descriptor to write to, and the file that collects what is written if the caller wants it."""
    if stream == subprocess.PIPE:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # read after the stack is closed
        return file.fileno(), file
    if stream == subprocess.DEVNULL:
        return stack.enter_context(open(os.devnull, "wb")).fileno(), None
    assert stream is not None, "name the stream: what pytest shows is not checked"
    return (stream if isinstance(stream, int) else stream.fileno()), None


def _content(file: IO[bytes] | None) -> bytes | None:
    if file is None:
        return None
    with file:
        file.seek(0)
        return file.read()


@contextlib.contextmanager
def _streams(source: int, out: int, err: int) -> Iterator[None]:
    """Point descriptors 0, 1 and 2 elsewhere, and open Python's streams on them."""
    before = sys.stdin, sys.stdout, sys.stderr
    for stream in before[1:]:
        stream.flush()
    saved = [os.dup(number) for number in range(3)]
    copies = [os.dup(number) for number in (source, out, err)]  # the caller's may be 0, 1 or 2 themselves
    try:
        for number, copy in enumerate(copies):
            os.dup2(copy, number)
        open_streams()
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        with open(os.devnull, "wb") as nowhere:  # for what a stream could not get rid of
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before
        for number, descriptor in enumerate(saved):
            os.dup2(descriptor, number)
        for descriptor in (*saved, *copies):
            os.close(descriptor)


@contextlib.contextmanager
def _place(cwd: str | Path, env: Mapping[str, str]) -> Iterator[None]:
    """Change the folder and the environment."""
    before, temporary = dict(os.environ), tempfile.tempdir
    try:
        with contextlib.chdir(cwd):
            os.environ.clear()
            os.environ.update(env)
            tempfile.tempdir = None  # found anew from the environment
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        tempfile.tempdir = temporary


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Start with the handlers that Python starts with, and leave none behind."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Leave torch and tqdm as they were."""
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
