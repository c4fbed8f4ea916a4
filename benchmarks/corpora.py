"""Measure texts of different sizes: peak memory of ``charrnn train``, seconds to read a text, and the data loader.

The texts repeat the pages and sources of this repository, with different numbers in each copy, in a temporary
directory. ``charrnn train`` takes two steps on each of them, first without a cache and then with the cached ids.
`read` and `cached` are the seconds from the start of the process to the line that describes the text, before torch
is loaded. `MB/s` is the throughput of reading alone: the time for a text of one line is subtracted. Peak memory is
the resident memory that the system reports, mapped files included. The loader returns chunks of 64 steps of 32
streams; its time is compared with that of copying as many ids in memory.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from side_by_side import alternate, describe_machine, median, ratio, table

from charrnn.config import ReadConfig
from charrnn.data.corpus_reader import read_corpus
from charrnn.data.dataloader import StreamLoader
from charrnn.data.token_cache import TokenCache

ROOT = Path(__file__).parent.parent
B, T, NUM_CHUNKS = 32, 64, 200
STEPS = ("--steps", "2", "--hidden", "64", "--layers", "1", "--threads", "1", "--engine", "torch")
HEADER = (
    "text", "MB", "read, s", "MB/s", "cached, s", "peak MB, read", "peak MB, cached", "us per chunk", "ids per us",
    "loader / copy",
)  # fmt: skip


def read_repository() -> str:
    """Return the pages and sources of this repository as one text."""
    files = sorted([*ROOT.glob("*.md"), *ROOT.glob("charrnn/**/*.py"), *ROOT.glob("tests/**/*.py")])
    return "".join(file.read_text(encoding="utf-8") for file in files)


def renumbered_copies(text: str) -> Iterator[bytes]:
    """Yield copies of a text without end, with a different number in place of all numbers of each copy."""
    parts, number = re.split(r"\d+", text), 0
    while True:
        yield str(number).join(parts).encode()
        number += 1


def write_text(path: Path, size: float) -> None:
    """Write a text of about ``size`` bytes."""
    left = int(size)
    with open(path, "wb") as file:
        for copy in renumbered_copies(read_repository()):
            file.write(copy[:left].decode("utf-8", "ignore").encode())
            left -= len(copy)
            if left <= 0:
                return


def train(text: Path, directory: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Return the seconds until the text is read, and the peak memory in MB."""
    command = [sys.executable, "-m", "charrnn", "train", str(text), "-o", str(directory / "m.safetensors"), "--force"]
    command += ["--cache", str(directory / "cache"), *STEPS, *options]
    started, seconds = time.perf_counter(), 0.0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        messages = []
        for line in process.stderr:
            seconds = seconds or time.perf_counter() - started
            messages.append(line)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("".join(messages))
    return seconds, usage.ru_maxrss / 1024


def measure_loader(text: Path, directory: Path, config: ReadConfig, rounds: int) -> tuple[float, float, float]:
    """Return the microseconds per chunk, the ids per microsecond, and the time relative to copying the ids."""
    corpus = read_corpus([str(text)], config, cache=TokenCache(directory / "cache", always=True))
    loader = StreamLoader(corpus.split(0)[0], B, T)
    ids, random = np.zeros(NUM_CHUNKS * 2 * B * T, dtype=np.int64), np.random.default_rng(0)

    def load() -> None:
        first = int(random.integers(max(1, loader.steps_per_epoch - NUM_CHUNKS)))
        for step in range(first, first + NUM_CHUNKS):
            loader.get_batch(step)

    timings = alternate({"loader": load, "copy": ids.copy}, rounds)
    return (
        median(timings, "loader", NUM_CHUNKS) * 1e6,
        B * T / (median(timings, "loader", NUM_CHUNKS) * 1e6),
        ratio(timings, "loader", "copy"),
    )


def measure(
    size: float, directory: Path, options: tuple[str, ...], rounds: int, times: int, baseline: float
) -> list[str | float]:
    """Return one row of the table."""
    text = directory / "text.txt"
    write_text(text, size)
    read_seconds, peak = train(text, directory, options)
    cached = [train(text, directory, options) for _ in range(times)]
    seconds = max(read_seconds - baseline, 1e-3)
    config = ReadConfig(documents="lines") if options else ReadConfig()
    row = [
        "by lines" if options else "one text", size / 1e6, read_seconds, size / 1e6 / seconds,
        statistics.median(seconds for seconds, _ in cached), peak, max(megabytes for _, megabytes in cached),
        *measure_loader(text, directory, config, rounds),
    ]  # fmt: skip
    for file in (text, *(directory / "cache").iterdir()):
        file.unlink()
    return row


def main() -> None:
    """Create and measure every text in a temporary directory, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="+", type=float, default=[1, 100, 1000], help="sizes of the texts in MB (1 100 1000)"
    )
    parser.add_argument(
        "--rounds", type=int, default=9, help="rounds of the loader, of which the table shows the median (9)"
    )
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.rounds = [0.3], 1
    rows = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "line.txt").write_text("a line\n" * 100)
        times = 1 if arguments.quick else 3
        baseline = statistics.median(train(directory / "line.txt", directory, ())[0] for _ in range(times))
        for size in arguments.sizes:
            for options in ((), ("--lines",)):
                rows.append(measure(size * 1e6, directory, options, arguments.rounds, times, baseline))
                print(f"{rows[-1][0]}, {size:g} MB: {rows[-1][2]:.1f} s", file=sys.stderr)
    print(describe_machine(B=B, T=T, start=f"{baseline:.2f} s"), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
