"""Measure what it costs to save a run: milliseconds and megabytes per save, and the share of the training time.

The script trains as ``charrnn train`` does, with 25 evaluations, and times each save of the training state, the model
and the log, fsyncs included. It saves to the working directory, because a temporary directory may be in memory.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from side_by_side import describe_machine, table

from charrnn.config.overrides import Overrides
from charrnn.data.corpus import Corpus
from charrnn.data.corpus_reader import read_corpus
from charrnn.io import atomic_io
from charrnn.training.autotune import plan_for_this_machine
from charrnn.training.checkpointing import Checkpointer
from charrnn.training.run_state import Run
from charrnn.training.trainer import Trainer

HEADER = ("network", "seconds", "evaluations", "saves", "MB of a state", "ms per save", "% of the time")


def measure(corpus: Corpus, directory: Path, hidden: int, seconds: float, save_every: float) -> list[str | float]:
    """Train for some seconds and return one row of the table."""
    overrides = Overrides(hidden=hidden, minutes=seconds / 60, device="cpu", evaluations=25, patience=0)
    plan = plan_for_this_machine(corpus, overrides)
    run = Run.create(plan, overrides, corpus)
    trainer, checkpointer = Trainer(corpus, plan), Checkpointer(directory / f"{hidden}.safetensors", save_every)
    times, started = [], time.perf_counter()
    for event in trainer.run():
        before = time.perf_counter()
        if checkpointer.save_if_due(run, trainer, event):
            times.append(time.perf_counter() - before)
    total = time.perf_counter() - started
    evaluations = len(trainer.snapshot().progress.evaluations)
    sizes = [
        path.stat().st_size
        for path in (checkpointer.state, atomic_io.backup_path(checkpointer.state))
        if path.exists()
    ]
    milliseconds = 1000 * statistics.median(times)
    share = 100 * sum(times) / total
    return [f"2x{hidden}", total, evaluations, len(times), max(sizes) / 1e6, milliseconds, share]


def main() -> None:
    """Measure three sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of each run (60)")
    parser.add_argument(
        "--save-every", type=float, default=60.0, help="seconds between two saves, as for charrnn train (60)"
    )
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    arguments = parser.parse_args()
    sizes, characters, seconds = (128, 256, 512), 500_000, arguments.seconds
    if arguments.quick:
        sizes, characters, seconds = (16,), 5_000, 1.0
    with tempfile.TemporaryDirectory(dir=".") as directory:
        file = Path(directory, "random.txt")
        file.write_bytes(np.random.default_rng(0).integers(33, 98, size=characters, dtype=np.uint8).tobytes())
        corpus = read_corpus([str(file)])
        rows = [measure(corpus, Path(directory), hidden, seconds, arguments.save_every) for hidden in sizes]
    print(describe_machine(save_every=f"{arguments.save_every:g} s"), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
