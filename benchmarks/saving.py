"""What it costs to keep a run: milliseconds and megabytes of a save, and the share of the training time it takes.

Trains as ``charrnn train`` does, with the planned 25 evaluations, and times each save of state, model and log with
all their fsyncs, into a folder beside this file's working directory (a memory disk would flatter it).
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


def measure(corpus: Corpus, folder: Path, hidden: int, seconds: float, save_every: float) -> list[str | float]:
    """Trains for so long; one row of the table."""
    overrides = Overrides(hidden=hidden, minutes=seconds / 60, device="cpu", evaluations=25, patience=0)
    plan = plan_for_this_machine(corpus, overrides)
    run = Run.create(plan, overrides, corpus)
    trainer, checkpointer = Trainer(corpus, plan), Checkpointer(folder / f"{hidden}.safetensors", save_every)
    laps, evaluations, started = [], 0, time.perf_counter()
    for event in trainer.run():
        before = time.perf_counter()
        if checkpointer.save_if_due(run, trainer, event):
            laps.append(time.perf_counter() - before)
    took = time.perf_counter() - started
    evaluations = len(trainer.snapshot().progress.evaluations)
    sizes = [
        path.stat().st_size
        for path in (checkpointer.state, atomic_io.backup_path(checkpointer.state))
        if path.exists()
    ]
    milliseconds = 1000 * statistics.median(laps)
    return [f"2x{hidden}", took, evaluations, len(laps), max(sizes) / 1e6, milliseconds, 100 * sum(laps) / took]


def main() -> None:
    """Measures three sizes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run (60)")
    parser.add_argument("--save-every", type=float, default=60.0, help="as of charrnn train (60)")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    sizes, characters, seconds = (128, 256, 512), 500_000, arguments.seconds
    if arguments.quick:
        sizes, characters, seconds = (16,), 5_000, 1.0
    with tempfile.TemporaryDirectory(dir=".") as folder:
        file = Path(folder, "random.txt")
        file.write_bytes(np.random.default_rng(0).integers(33, 98, size=characters, dtype=np.uint8).tobytes())
        corpus = read_corpus([str(file)])
        rows = [measure(corpus, Path(folder), hidden, seconds, arguments.save_every) for hidden in sizes]
    print(describe_machine(save_every=f"{arguments.save_every:g} s"), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
