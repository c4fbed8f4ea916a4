"""A server that loads all modules once and forks a ``charrnn`` process for every request.

A forked process starts in milliseconds; loading torch takes seconds. A client, `warm_client.py`, takes the place of
the program: it sends its arguments, working directory, environment and descriptors, forwards signals, and exits with
the status of the command. Only the startup of the program differs from that of a real process.

    python -m tests.warm SOCKET
"""

import contextlib
import importlib
import importlib.abc
import io
import json
import os
import pkgutil
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.command import call_main, open_streams

PYTHON = "warm-python"  # as first argument: run the rest like python; in the directory of the socket: such a python
ROOT = Path(__file__).parent.parent
CLIENT = Path(__file__).with_name("warm_client.py")
_TORCHLESS = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.warm import run_torchless; run_torchless()"


@contextlib.contextmanager
def serving(*, torch: bool = True) -> Iterator[list[str]]:
    """Run the server, and yield the command that starts ``charrnn`` through it.

    Without ``torch``, a command that imports it fails with a traceback.
    """
    from tests.conftest import environment

    if not hasattr(os, "pidfd_open"):  # only on Linux; elsewhere each process loads what it needs
        yield [sys.executable, "-m", "charrnn"] if torch else [sys.executable, "-c", _TORCHLESS]
        return
    with tempfile.TemporaryDirectory() as directory:
        address = os.path.join(directory, "socket")
        program = [sys.executable, "-I", "-S", str(CLIENT), address]
        python = Path(directory, PYTHON)
        python.write_text(f'#!/bin/sh\nexec {shlex.join(program)} {PYTHON} "$@"\n')
        python.chmod(0o755)
        command = [sys.executable, "-m", "tests.warm", address, *([] if torch else ["without-torch"])]
        server = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        with server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield program
            server.terminate()


def serve(address: str) -> None:
    """Answer requests until the process is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leave no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                os._exit(_supervise(connection))
            connection.close()


def load() -> None:
    """Import everything that commands import when they run."""
    import torch

    _import_all()
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports a large part of torch


class TorchImported(BaseException):
    """Raised when torch is imported; no program catches it as an `Exception`."""


class _Forbidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name.partition(".")[0] == "torch":
            raise TorchImported(name)


def _forbid_torch() -> None:
    """Make every command that imports torch fail with a traceback."""
    sys.meta_path.insert(0, _Forbidden())
    _import_all()


def run_torchless() -> None:
    """Run the command of ``sys.argv`` without torch, and exit."""
    _forbid_torch()
    sys.exit(call_main(sys.argv[1:]))


def _import_all() -> None:
    """Import every module of the package, except those that need torch if torch is forbidden."""
    import rich.console  # noqa: F401
    import tqdm  # noqa: F401

    import charrnn
    import charrnn.cli.app

    for module in pkgutil.walk_packages(charrnn.__path__, "charrnn.", onerror=lambda name: None):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(TorchImported):
                importlib.import_module(module.name)
    with contextlib.suppress(Exception):  # Typer imports pydantic when it reads the first argument
        charrnn.cli.app.app(["corpus", "get", "nothing"], standalone_mode=False)


def _supervise(connection: socket.socket) -> int:
    """Fork the command, forward signals to it, and report the exit status; return 0."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    size = int.from_bytes(head, "little")
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    request = json.loads(data)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    pidfd = os.pidfd_open(pid)
    while True:
        ready, _, _ = select.select([connection, pidfd], [], [])
        if pidfd in ready:
            break
        number = connection.recv(1)
        os.kill(pid, number[0] if number else signal.SIGKILL)  # no data: the client was killed
    with contextlib.suppress(OSError):
        connection.sendall(os.waitpid(pid, 0)[1].to_bytes(4, "little"))
    return 0


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Turn this process into the command."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, 64)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        number = getattr(signal, name)
        default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    open_streams()
    arguments = request["arguments"]
    code = _run_python(arguments[1:]) if arguments[:1] == [PYTHON] else call_main(arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            stream.flush()
    os._exit(code)


def _run_python(arguments: list[str]) -> int:
    """Run ``-m charrnn``, ``-c CODE`` or a script as ``python ARGUMENTS`` would; return the exit code."""
    if arguments[:2] == ["-m", "charrnn"]:
        return call_main(arguments[2:])
    sys.executable = str(Path(sys.argv[1]).with_name(PYTHON))  # for processes that the script starts
    sys.orig_argv = [sys.executable, *arguments]
    try:
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(compile(arguments[1], "-c", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            sys.path.insert(0, os.path.dirname(arguments[0]))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    if "without-torch" in sys.argv:
        _forbid_torch()
    else:
        load()
    serve(sys.argv[1])
