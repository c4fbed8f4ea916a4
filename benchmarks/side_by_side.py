"""What the benchmarks share: things timed in turn within one run, the machine they ran on, and a plain table.

A figure in seconds says little on a machine whose speed changes by the hour; a ratio of two things timed alternately
(A B A B) within one run says much. So every round gives a ratio of its own, and the median of the rounds is quoted.
"""

import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")  # of the processor, where they matter here
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

Laps = dict[str, list[float]]  # seconds of each contestant, one per round


class Contestant:
    """Something that is measured in a process of its own, when it is its turn.

    Args:
        work: is called there with the settings, the seconds and a pipe; answers every request with a number.
        settings: of what is measured.
        seconds: of a measurement, at least.
    """

    def __init__(self, work: Callable[..., None], settings: dict[str, Any], seconds: float) -> None:
        self.settings = settings
        self._pipe, end = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=work, args=(dict(settings), seconds, end), daemon=True)
        self._process.start()

    def ask(self, request: str = "lap") -> float:
        """Return the answer to a request."""
        self._pipe.send(request)
        answer: float = self._pipe.recv()
        return answer

    def end(self) -> None:
        """Free what it holds."""
        self._process.kill()
        self._process.join()


def alternate(contestants: Mapping[str, Callable[[], object]], rounds: int) -> Laps:
    """Times each contestant once per round, in turn, after one round that is not counted."""
    laps: Laps = {name: [] for name in contestants}
    for counted in [False] + [True] * rounds:
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            seconds = time.perf_counter() - started
            if counted:
                laps[name].append(seconds)
    return laps


def median(laps: Laps, name: str, per: float = 1.0) -> float:
    """The median lap of a contestant, divided by ``per``."""
    return statistics.median(laps[name]) / per


def ratio(laps: Laps, one: str, other: str) -> float:
    """How many times as long ``one`` took as ``other``: the median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(laps[one], laps[other], strict=True))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(threads: int) -> None:
    """Gives every library of this process the same number of threads, by starting it again in such an environment.

    A BLAS reads its number of threads once, when it is loaded, so that setting it later would have no effect.
    """
    wanted = dict.fromkeys(THREADS, str(threads))
    if any(os.environ.get(name) != number for name, number in wanted.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | wanted)


def describe_machine(**settings: object) -> str:
    """Date, processor, versions and what was set, in three lines."""
    model, flags = _processor()
    known = " ".join(flag for flag in FLAGS if flag in flags) or "no flags known"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "charrnn"))
    lines = [
        f"{date.today()}, {platform.system()} on {model}, {cores()} cores, {known}",
        f"Python {platform.python_version()}, {libraries}",
        ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in settings.items()),
    ]
    return "\n".join(line for line in lines if line)


def table(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Rows under a header and a rule, columns two blanks apart; the first column names, the others are numbers."""
    cells = [list(header), *([str(row[0]), *map(_number, row[1:])] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(_aligned(line, widths)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]


def _number(value: str | float) -> str:
    """A count whole, anything else in three or four digits: figures that vary by a per cent deserve no more."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.4g}" if value >= 1 else f"{value:#.3g}"


def _processor() -> tuple[str, set[str]]:
    """Model name and flags, from Linux's own description where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return facts.get("model name", platform.machine()), set(facts.get("flags", "").split())
