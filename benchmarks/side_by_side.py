"""Tools shared by the benchmarks: alternating timings, a description of the machine, and a plain table.

The speed of a machine changes from hour to hour, so times of different runs cannot be compared. These tools time the
candidates in turn (A B A B ...) within one run. Each round gives one ratio, and the tables show the median ratio.
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

from charrnn.version import __version__

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")  # the processor flags that affect the results
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

Timings = dict[str, list[float]]  # candidate -> seconds, one value per round


class Worker:
    """A process that measures one candidate on request.

    Args:
        target: Function that the process runs with the settings, the seconds and a pipe. It answers every request
            from the pipe with a number.
        settings: Settings of the candidate.
        seconds: Minimum duration of a measurement.
    """

    def __init__(self, target: Callable[..., None], settings: dict[str, Any], seconds: float) -> None:
        self.settings = settings
        self._pipe, child_pipe = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=target, args=(dict(settings), seconds, child_pipe), daemon=True)
        self._process.start()

    def request(self, message: str = "time") -> float:
        """Send a request and return the answer."""
        self._pipe.send(message)
        answer: float = self._pipe.recv()
        return answer

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()


def alternate(candidates: Mapping[str, Callable[[], object]], rounds: int) -> Timings:
    """Time each candidate once per round, in turn, after one round of warm-up."""
    timings: Timings = {name: [] for name in candidates}
    for counted in [False] + [True] * rounds:
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            seconds = time.perf_counter() - started
            if counted:
                timings[name].append(seconds)
    return timings


def median(timings: Timings, name: str, per: float = 1.0) -> float:
    """Return the median time of a candidate, divided by ``per``."""
    return statistics.median(timings[name]) / per


def ratio(timings: Timings, numerator: str, denominator: str) -> float:
    """Return the median of the time ratios of all rounds."""
    return statistics.median(a / b for a, b in zip(timings[numerator], timings[denominator], strict=True))


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(threads: int) -> None:
    """Restart this process, if necessary, with the number of threads set in the environment for every library.

    A BLAS reads the number of threads when it is loaded. A later change has no effect.
    """
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    if any(os.environ.get(name) != value for name, value in variables.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | variables)


def describe_machine(**settings: object) -> str:
    """Return the date, the processor, the versions and the settings in three lines."""
    model, flags = _processor()
    shown_flags = " ".join(flag for flag in FLAGS if flag in flags) or "no known flags"
    libraries = f"torch {version('torch')}, numpy {version('numpy')}, charrnn {__version__}"
    lines = [
        f"{date.today()}, {platform.system()} on {model}, {cores()} cores, {shown_flags}",
        f"Python {platform.python_version()}, {libraries}",
        ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in settings.items()),
    ]
    return "\n".join(line for line in lines if line)


def table(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Return the rows under a header and a rule. The first column is aligned left, the others right."""
    cells = [list(header), *([str(row[0]), *map(_number, row[1:])] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(_aligned(line, widths)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]


def _number(value: str | float) -> str:
    """Format a count in full and any other number with three or four digits."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.4g}" if value >= 1 else f"{value:#.3g}"


def _processor() -> tuple[str, set[str]]:
    """Return the model name and the flags of the processor. The flags are known only on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())
