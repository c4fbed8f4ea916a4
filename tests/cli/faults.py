"""Let the N-th call that opens, changes or locks a file fail, for every N, in every command that writes files.

After each failed call the command must have ended with code 1 and one line, or with code 0 if it could do all its
work. No file may be lost or torn, no temporary file or lock may be left, and the same command must work afterwards.
``test_faults.py`` runs this script, or run it by hand:

    python -m tests.cli.faults                      every call of every command with every error
    python -m tests.cli.faults --sample 40 7        40 of them, chosen with seed 7
    python -m tests.cli.faults --only "log svg"     one of the CASES

The report is one JSON object per case.
"""

import argparse
import errno
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import charrnn.training.autotune as autotune
import charrnn.training.bench as bench
from charrnn import checkpoint
from charrnn.cli.app import main
from charrnn.cli.log import _image
from charrnn.data import datasets
from charrnn.rnn import backend
from charrnn.rnn.compiled_rnn import CompiledRNN
from charrnn.rnn.costs import TYPICAL
from charrnn.rnn.kernels import jit, object_cache
from charrnn.rnn.kernels.decode import decoding_kernel
from tests.cli.run_files import read_file, read_files, relative_name
from tests.cli.system_calls import intercept
from tests.conftest import TEXT, make_checkpoint
from tests.loopback import serving, whole
from tests.warm import load

# The errors that each call can report. Those in PERSISTENT are reported by all later calls as well.
ERRORS = {
    "open": ["EACCES", "EMFILE", "ENOSPC", "EROFS", "EIO"],
    "open-read": ["EACCES", "EMFILE", "EIO"],
    "write": ["ENOSPC", "EDQUOT", "EIO", "EFBIG"],
    "fsync": ["EIO", "ENOSPC"],
    "fdatasync": ["EIO"],
    "replace": ["EACCES", "EIO", "ENOSPC", "EROFS"],
    "rename": ["EACCES", "EIO", "ENOSPC", "EROFS"],
    "link": ["EPERM", "EMLINK", "ENOSPC"],
    "symlink": ["EPERM"],
    "mkdir": ["EACCES", "ENOSPC", "EROFS"],
    "rmdir": ["EBUSY"],
    "unlink": ["EACCES", "EIO", "EROFS"],
    "remove": ["EACCES", "EIO", "EROFS"],
    "truncate": ["EIO", "ENOSPC"],
    "ftruncate": ["EIO", "ENOSPC"],
    "posix_fallocate": ["ENOSPC", "EOPNOTSUPP"],
    "chmod": ["EPERM"],
    "fchmod": ["EPERM"],
    "utime": ["EPERM"],
    "flock": ["ENOLCK", "EIO", "ENOSYS"],
    "lockf": ["ENOLCK"],
    "close": ["EIO", "ENOSPC"],
    "mmap": ["ENOMEM", "EACCES"],
}
PERSISTENT = {"ENOSPC", "EDQUOT", "EROFS", "EMFILE"}

EXACT = "--threads 1 --precision fp32 --engine torch"
NOTICE = "charrnn: compiling for this processor; .*|charrnn: .*, so .* again"  # lines that are not errors
NETWORK = f"--hidden 16 --layers 1 --batch-size 4 --seq-length 16 --validation 0.2 {EXACT}"
TRAIN = f"train corpus.txt {NETWORK} --steps 1"
PLAY = "To be, or not to be: that is the question.\n" * 20


@dataclass(frozen=True)
class Case:
    """A command that writes files."""

    command: str
    before: Sequence[str] = ()  # commands that are run before
    files: dict[str, str] = field(default_factory=dict)  # texts of files, besides the corpus and a model
    stdin: str = os.devnull
    optional: tuple[str, ...] = ()  # directories of files without which the command goes on
    prepare: Callable[[], object] = lambda: None  # called once in the parent process
    setup: Callable[[], object] = lambda: None  # called in the process of the command


def _serve() -> None:
    """Serve the only corpus in this process."""
    data = PLAY.encode()
    _SERVERS.append(serving(whole(data)))
    server = _SERVERS[-1].__enter__()
    digest = hashlib.sha256(data).hexdigest()
    datasets.DATASETS = (datasets.Remote("play", "one line", "none", server.url, len(data), digest),)


def _measure_nothing() -> None:
    autotune.measure_costs = lambda: TYPICAL
    result = bench.BenchResult("lstm", 1, 16, 1, "fp32", "torch", 1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, "")
    bench.Bench.speed = lambda self, model: result  # type: ignore[method-assign]


def _favour_compiling() -> None:
    """Choose compiled code for every sample, and load it from the disk."""
    decoding_kernel.cache_clear()
    backend.load_costs = lambda: replace(TYPICAL, compile=0, load_compiled=0)


def _compile_once() -> None:
    """Compile the decoder, and let later compilations return the same code without building it."""
    compile_module, load_code, code = object_cache._compile, jit.load, list[bytes]()

    def remember(module: Any, target: Any) -> bytes:
        if not code:
            code.append(compile_module(module, target))
        return code[0]

    object_cache._compile = remember
    model = make_checkpoint()
    with tempfile.TemporaryDirectory() as directory:
        os.environ[object_cache.CACHE_VARIABLE] = directory
        CompiledRNN(model.model_config, model.tensors)
    jit.load = lambda name, build, target: load_code(name, lambda: None, target)


def _draw_once() -> None:
    """Draw a curve, which loads parts of matplotlib and fonts."""
    for suffix in (".png", ".svg"):
        _image({"train": ([1, 2], [2.0, 1.0])}, "curve", suffix)


_SERVERS: list[Any] = []  # those that run until the process ends
CASES = {
    "train": Case(TRAIN),
    "train into a directory": Case(f"{TRAIN} -o deep/er/model"),
    "train --force": Case(f"{TRAIN} --force --seed 1", before=[TRAIN]),
    "train --resume": Case("train corpus.txt --resume --steps 2", before=[TRAIN]),
    "train --cache": Case(f"{TRAIN} --cache ids", optional=("ids",)),
    "train --resume --cache": Case(
        "train corpus.txt --resume --steps 2 --cache ids", before=[f"{TRAIN} --cache ids"], optional=("ids",)
    ),
    "train stdin": Case(f"train - {NETWORK} --steps 1 --cache ids", stdin="corpus.txt", optional=("ids",)),
    "train --from": Case(f"train corpus.txt --from ./tiny.safetensors --steps 1 {EXACT}"),
    "sample --save-state": Case("sample ./tiny.safetensors -n 5 --seed 1 -p fox --save-state new.state"),
    "sample --save-state again": Case(
        "sample ./tiny.safetensors -n 5 --seed 1 -p fox --save-state old.state",
        before=["sample ./tiny.safetensors -n 5 -p dog --save-state old.state"],
    ),
    "sample, compiled": Case(
        "sample ./tiny.safetensors -n 5000 --seed 1",
        optional=("objects",),
        prepare=_compile_once,
        setup=_favour_compiling,
    ),
    "score --sort": Case("score ./tiny.safetensors corpus.txt --sort"),
    "corpus get": Case("corpus get hello"),
    "corpus get --force": Case("corpus get hello --force", files={"corpora/hello.txt": "mine\n"}),
    "corpus get, downloaded": Case("corpus get play", setup=_serve),
    "corpus get --force, downloaded": Case(
        "corpus get play --force", files={"corpora/play.txt": "mine\n"}, setup=_serve
    ),
    "log png": Case("log corpus -o curve.png", before=[TRAIN], prepare=_draw_once),
    "log svg": Case("log corpus -o curve.svg", before=[TRAIN], files={"curve.svg": "mine\n"}, prepare=_draw_once),
    "bench": Case("bench --hidden 16 --threads 1", optional=("cache",), setup=_measure_nothing),
}


@dataclass(frozen=True)
class Fault:
    """The failure of one call."""

    number: int  # of the call, from 0
    call: str
    path: str  # below the directory
    error: str  # name of the error


@dataclass(frozen=True)
class Result:
    """A finished command."""

    code: int
    messages: str
    calls: Sequence[tuple[str, str]]  # name and path of each call


class FaultyRun:
    """Runs one case.

    Args:
        case: The case.
        root: An empty directory.
    """

    def __init__(self, case: Case, root: Path) -> None:
        self.case, self._root = case, root
        self._streams = root / "streams"
        self._streams.mkdir()
        self.before, self.after = root / "before", root / "after"
        self.before.mkdir()
        for name in ("home", "temporary"):
            (self.before / name).mkdir()
        for name, text in {"corpus.txt": TEXT * 12, **case.files}.items():
            (self.before / name).parent.mkdir(exist_ok=True)
            (self.before / name).write_text(text)
        checkpoint.save(self.before / "tiny.safetensors", make_checkpoint())
        for command in case.before:
            result = self.run(self.before, command)
            assert result.code == 0, result.messages
        shutil.copytree(self.before, self.after)
        result = self.run(self.after)
        assert result.code == 0, result.messages
        self.calls = result.calls
        self._initial, self._expected = read_files(self.before), read_files(self.after)
        self._names = self._list(self.before) | self._list(self.after)

    def faults(self) -> list[Fault]:
        """Return every possible fault."""
        return [
            Fault(number, call, path, error)
            for number, (call, path) in enumerate(self.calls)
            for error in ERRORS[call]
        ]

    def run(self, directory: Path, command: str = "", fault: Fault | None = None) -> Result:
        """Run a command, by default that of the case, in a forked process, and let one call fail."""
        pid = os.fork()
        if pid == 0:
            os._exit(self._run(directory, command or self.case.command, fault))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        messages = (self._streams / "stderr").read_text()
        calls = [json.loads(line) for line in (self._streams / "calls").read_text().splitlines()]
        return Result(code, messages, [(name, path) for name, path in calls])

    def _run(self, directory: Path, command: str, fault: Fault | None) -> int:
        os.chdir(directory)
        home = str(directory / "home")
        os.environ |= {"HOME": home, "XDG_CACHE_HOME": str(directory / "cache"), "no_proxy": "*"}
        os.environ |= {"TMPDIR": str(directory / "temporary"), "CHARRNN_CACHE": str(directory / "objects")}
        tempfile.tempdir = None
        os.dup2(os.open(self.case.stdin, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(self._streams / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        log = open(self._streams / "calls", "w")  # noqa: SIM115  # closed at the end of the process
        self.case.setup()
        count, active = 0, ""

        def before(call: str, path: str) -> None:
            nonlocal count, active
            log.write(json.dumps([call, os.path.relpath(path, os.path.realpath(directory))]) + "\n")
            if fault is not None and count == fault.number:
                active = fault.error
            fails = active and (count == fault.number or (active in PERSISTENT and active in ERRORS[call]))
            count += 1
            if fails:
                number = getattr(errno, active)
                raise OSError(number, os.strerror(number), path)

        intercept(directory, before)
        try:
            return main(command.split())
        except BaseException:
            traceback.print_exc()
            return 99
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            log.flush()

    def problems(self, fault: Fault) -> list[str]:
        """Let one call fail, and return what is wrong afterwards."""
        directory = self._root / "work"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.before, directory)
        result = self.run(directory, fault=fault)
        problems = [*self._message_problems(result), *self._file_problems(directory, result, fault)]
        again = self.run(directory)
        if again.code == 1 and "add --resume" in again.messages:
            again = self.run(directory, self.case.command + " --resume")
        if again.code != 0:
            problems.append(f"the second run ends with {again.code}: {again.messages[-300:]}")
        else:
            problems += [f"after the second run, {problem}" for problem in self._differences(directory, fault)]
        return problems

    def _message_problems(self, result: Result) -> list[str]:
        lines = result.messages.splitlines()
        errors = [line for line in lines if line.startswith("charrnn: ") and not re.fullmatch(NOTICE, line)]
        problems = []
        if "Traceback" in result.messages or "Warning" in result.messages:
            problems.append("traceback or warning: " + result.messages[-600:])
        if result.code not in (0, 1):
            problems.append(f"the exit code is {result.code}: {result.messages[-300:]}")
        if result.code == 1 and (
            len(errors) != 1 or errors != lines[-1:] or not re.fullmatch("charrnn: .+: .+; .+", errors[0])
        ):
            problems.append("not one line: " + result.messages[-300:])
        if result.code == 0 and errors:
            problems.append("an error with code 0: " + result.messages[-300:])
        return problems

    def _file_problems(self, directory: Path, result: Result, fault: Fault) -> list[str]:
        names = self._list(directory)
        left = {name for name in names - self._names if not self._may_be_left(name, fault)}
        problems = [f"{name} is left" for name in sorted(left)]
        for name in sorted(self._initial.keys() - names):
            if name + ".old" not in names:
                problems.append(f"{name} is lost")
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            name = relative_name(path, directory)
            if name not in self._initial.keys() | self._expected.keys():
                continue
            try:
                contents = read_file(path)
            except Exception as error:
                problems.append(f"{name} is torn: {error}")
                continue
            known = [files[name] for files in (self._initial, self._expected) if name in files]
            changes = name.endswith((".safetensors", ".jsonl")) and "train" in self.case.command
            if contents not in known and not changes:  # a run saves models and states of earlier steps
                problems.append(f"{name} is neither the old file nor the new one")
        if result.code == 0:
            problems += [f"with code 0, {problem}" for problem in self._differences(directory, fault)]
        return problems

    def _differences(self, directory: Path, fault: Fault) -> list[str]:
        """Return how the files differ from those of a run without a fault."""
        actual = read_files(directory)
        problems = []
        for name in sorted(actual.keys() | self._expected.keys()):
            if self._may_be_left(name, fault) or (name.startswith(self.case.optional) and name not in actual):
                continue
            if actual.get(name) != self._expected.get(name):
                state = "missing" if name not in actual else "different" if name in self._expected else "left"
                problems.append(f"{name} is {state}")
        return problems

    def _may_be_left(self, name: str, fault: Fault) -> bool:
        """Return whether a temporary file is left because it could not be deleted."""
        undeletable = fault.call in ("unlink", "remove", "rmdir") and Path(name).parent == Path(fault.path).parent
        return (undeletable or fault.error == "EROFS") and name not in self._names

    @staticmethod
    def _list(directory: Path) -> set[str]:
        return {relative_name(path, directory) for path in directory.rglob("*")}


def inject(names: Sequence[str], sample: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Inject faults into the named cases, and return a report of each.

    Args:
        names: Names of `CASES`.
        sample: Number of faults over all cases, chosen at random; None means all.
        seed: Seed of the choice.
    """
    load()
    autotune.TRIAL_SECONDS = 0
    rng, reports = random.Random(seed), []
    for number, name in enumerate(names):
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as root:
            CASES[name].prepare()
            run = FaultyRun(CASES[name], Path(root))
            faults = run.faults()
            report: dict[str, Any] = {"case": name, "calls": len(run.calls), "faults": len(faults), "problems": []}
            if sample is not None:
                share = sample * (number + 1) // len(names) - sample * number // len(names)
                faults = rng.sample(faults, min(share, len(faults)))
                report["faults"] = len(faults)
            for fault in faults:
                if problems := run.problems(fault):
                    report["problems"].append([repr(fault), problems])
        reports.append(report | {"seconds": round(time.monotonic() - started, 1)})
        print(json.dumps(reports[-1]), flush=True)
    return reports


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append")
    parser.add_argument("--sample", type=int, nargs=2, default=(None, 0), metavar=("N", "SEED"))
    arguments = parser.parse_args()
    inject(arguments.only or list(CASES), *arguments.sample)
