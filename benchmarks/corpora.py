"""Texts of every size: peak memory of ``charrnn train``, seconds until the text is there, and the loader alone.

The texts are this repository's own pages and sources, over and over, each time with other numbers in them, made in a
temporary folder. Each is trained on for two steps twice, by the real program: first with nothing kept, then from what
was kept. `read` and `kept` are from the start of the process to the line that tells what the text is, before torch is
loaded; what that takes for a text of one line is taken off `MB/s`, which is of reading alone. Peak memory
is what the system counts as resident, mapped files included. The loader is asked for chunks of 64 steps of 32
streams; beside it the same ids are copied, as plain memory.
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
B, T, CHUNKS = 32, 64, 200
STEPS = ("--steps", "2", "--hidden", "64", "--layers", "1", "--threads", "1", "--engine", "torch")
HEADER = (
    "text", "MB", "read, s", "MB/s", "kept, s", "peak MB, read", "peak MB, kept", "us per chunk", "ids per us",
    "loader / copy",
)  # fmt: skip


def pages() -> str:
    """Real text: the pages and sources of this repository."""
    files = sorted([*ROOT.glob("*.md"), *ROOT.glob("charrnn/**/*.py"), *ROOT.glob("tests/**/*.py")])
    return "".join(file.read_text(encoding="utf-8") for file in files)


def edited(text: str) -> Iterator[bytes]:
    """The text again and again, with other numbers in it each time."""
    pieces, number = re.split(r"\d+", text), 0
    while True:
        yield str(number).join(pieces).encode()
        number += 1


def write_text(path: Path, size: float) -> None:
    """A text of about so many bytes."""
    left = int(size)
    with open(path, "wb") as file:
        for piece in edited(pages()):
            file.write(piece[:left].decode("utf-8", "ignore").encode())
            left -= len(piece)
            if left <= 0:
                return


def train(text: Path, folder: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Seconds until the text is there, and MB at the peak."""
    command = [sys.executable, "-m", "charrnn", "train", str(text), "-o", str(folder / "m.safetensors"), "--force"]
    command += ["--cache", str(folder / "kept"), *STEPS, *options]
    started, seconds = time.perf_counter(), 0.0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            seconds = seconds or time.perf_counter() - started
            told.append(line)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("".join(told))
    return seconds, usage.ru_maxrss / 1024


def loader(text: Path, folder: Path, config: ReadConfig, rounds: int) -> tuple[float, float, float]:
    """Microseconds of a chunk, ids per microsecond, and how many times as long as copying them it takes."""
    corpus = read_corpus([str(text)], config, cache=TokenCache(folder / "kept", always=True))
    streams = StreamLoader(corpus.split(0)[0], B, T)
    ids, places = np.zeros(CHUNKS * 2 * B * T, dtype=np.int64), np.random.default_rng(0)

    def load() -> None:
        first = int(places.integers(max(1, streams.steps_per_epoch - CHUNKS)))
        for step in range(first, first + CHUNKS):
            streams.get_batch(step)

    laps = alternate({"loader": load, "copy": ids.copy}, rounds)
    return (
        median(laps, "loader", CHUNKS) * 1e6,
        B * T / (median(laps, "loader", CHUNKS) * 1e6),
        ratio(laps, "loader", "copy"),
    )


def measure(
    size: float, folder: Path, options: tuple[str, ...], rounds: int, times: int, baseline: float
) -> list[str | float]:
    """One row of the table."""
    text = folder / "text.txt"
    write_text(text, size)
    cold, peak = train(text, folder, options)
    kept = [train(text, folder, options) for _ in range(times)]
    seconds = max(cold - baseline, 1e-3)
    config = ReadConfig(documents="lines") if options else ReadConfig()
    row = [
        "by lines" if options else "whole", size / 1e6, cold, size / 1e6 / seconds,
        statistics.median(one for one, _ in kept), peak, max(one for _, one in kept),
        *loader(text, folder, config, rounds),
    ]  # fmt: skip
    for file in (text, *(folder / "kept").iterdir()):
        file.unlink()
    return row


def main() -> None:
    """Makes and measures every text in a temporary folder and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=float, default=[1, 100, 1000], help="MB (1 100 1000)")
    parser.add_argument("--rounds", type=int, default=9, help="of the loader, of which the median is quoted (9)")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.rounds = [0.3], 1
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "line.txt").write_text("a line\n" * 100)
        times = 1 if arguments.quick else 3
        baseline = statistics.median(train(folder / "line.txt", folder, ())[0] for _ in range(times))
        for size in arguments.sizes:
            for options in ((), ("--lines",)):
                rows.append(measure(size * 1e6, folder, options, arguments.rounds, times, baseline))
                print(f"{rows[-1][0]}, {size:g} MB: {rows[-1][2]:.1f} s", file=sys.stderr)
    print(describe_machine(B=B, T=T, start=f"{baseline:.2f} s"), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
