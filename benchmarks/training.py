"""Characters per second of training, and the share of the machine's own rate of matrix products.

Both engines of `charrnn train` take whole optimizer steps (forward, loss, backward, clip, AdamW) of the same network
on random ids, each in a process of its own, in turn; the idle ones sleep. Each runs in the precision that is faster
for it here, which a first lap decides. `limit` is the machine's own matrix product, 2048 cubed, in the precision of
the native engine and taken beside each lap; the work counted is 6 flops per parameter and character, the useful ones
whoever computes them. `backends.py` compares the native engine with torch used in other ways.
"""

import argparse
import statistics
import sys
import time
from itertools import product
from multiprocessing.connection import Connection
from typing import Any

from side_by_side import Contestant, Laps, cores, describe_machine, median, ratio, table

V, T = 65, 64
CELLS, SIZES, BATCHES = ("lstm", "gru", "rnn"), (128, 256, 512), (64,)
ALL_SIZES, ALL_BATCHES = (64, 128, 256, 512, 1024), (16, 64, 256)
ENGINES = ("torch", "native")
HEADER = ("2 layers, torch / native", "B", *(f"{name} char/s" for name in ENGINES))
HEADER += ("native / torch", "GFLOP/s", "limit", "share")


def _learn(settings: dict[str, Any], seconds: float, pipe: Connection) -> None:
    import numpy as np
    import torch

    from charrnn.config import ModelConfig, TrainConfig
    from charrnn.rnn.torch_rnn import CharRNN
    from charrnn.training.autotune import set_up_torch
    from charrnn.training.train_step import TrainStep

    set_up_torch(settings["threads"])
    torch.set_flush_denormal(True)
    network = CharRNN(ModelConfig(cell=settings.pop("cell"), hidden=settings.pop("hidden")), V)
    network.initialize(seed=0)
    train_step = TrainStep(network, TrainConfig(device="cpu", seq_length=T, **settings))
    ids = np.random.default_rng(0).integers(V, size=(T + 1, settings["batch_size"]))
    state = network.zero_state(settings["batch_size"])

    def step(number: int) -> None:
        train_step.step(number, ids[:-1], ids[1:], state, 1e-4)

    while True:
        if pipe.recv() == "limit":
            dtype = torch.bfloat16 if settings["precision"] == "bf16" else torch.float32
            size = 2048 if seconds > 0 else 64
            pipe.send(2 * size**3 / _product_seconds(torch.randn(size, size).to(dtype)) / 1e9)
            continue
        try:
            step(0)  # awake
        except RuntimeError:
            pipe.send(float("inf"))
            continue
        started, steps = time.perf_counter(), 0
        while steps < 2 or time.perf_counter() - started < seconds:
            steps += 1
            step(steps)
        pipe.send((time.perf_counter() - started) / steps)


def _product_seconds(matrix: Any) -> float:
    """The best of four."""
    laps = []
    for _ in range(4):
        started = time.perf_counter()
        matrix @ matrix
        laps.append(time.perf_counter() - started)
    return min(laps)


def measure(cell: str, hidden: int, batch_size: int, precisions: list[str], rounds: int, seconds: float) -> list[Any]:
    """One row of the table."""
    from charrnn.config import ModelConfig

    settings = {"cell": cell, "hidden": hidden, "batch_size": batch_size, "threads": cores()}
    contestants: dict[str, Contestant] = {}
    laps: Laps = {name: [] for name in ENGINES}
    limits = []
    try:
        for name in ENGINES:
            several = [
                Contestant(_learn, {**settings, "engine": name, "precision": precision}, seconds)
                for precision in precisions
            ]
            contestants[name] = several[0] if len(several) == 1 else min(several, key=Contestant.ask)
            for other in several:
                if other is not contestants[name]:
                    other.end()
        for counted in [False] + [True] * rounds:
            for name, contestant in contestants.items():
                lap = contestant.ask()
                if counted:
                    laps[name].append(lap)
            limits.append(contestants["native"].ask("limit"))
    finally:
        for contestant in contestants.values():
            contestant.end()
    characters = batch_size * T
    limit = statistics.median(limits)
    parameters = ModelConfig(cell=cell, hidden=hidden).num_parameters(V)  # type: ignore[arg-type]
    rate = 6 * parameters * characters / median(laps, "native") / 1e9
    chosen = " / ".join(contestant.settings["precision"] for contestant in contestants.values())
    title = f"{hidden} {cell.upper()}, {chosen}"
    rates = [characters / median(laps, name) for name in laps]
    return [title, batch_size, *rates, ratio(laps, "torch", "native"), rate, limit, rate / limit]


def main() -> None:
    """Measures row by row and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS, help="cells (all)")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="units of a layer (128 256 512)")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="streams (64)")
    parser.add_argument("--all", action="store_true", help="64 to 1024 units, 16 to 256 streams; half an hour")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="instead of the faster one")
    parser.add_argument("--rounds", type=int, default=9, help="of which the median is quoted (9)")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    if arguments.all:
        arguments.sizes, arguments.batches = ALL_SIZES, ALL_BATCHES
    seconds = 0.3
    if arguments.quick:
        arguments.cells, arguments.sizes, arguments.batches, arguments.rounds, seconds = ("gru",), (16,), (4,), 3, 0.0
        arguments.precision = arguments.precision or "fp32"
    from charrnn.training.autotune import cpu_precisions

    precisions = [arguments.precision] if arguments.precision else sorted({"fp32", *cpu_precisions()})
    print(describe_machine(threads=cores(), rounds=arguments.rounds, T=T), "\n", flush=True)
    rows = []
    for cell, hidden, batch in product(arguments.cells, arguments.sizes, arguments.batches):
        rows.append(measure(cell, hidden, batch, precisions, arguments.rounds, seconds))
        print(*(f"{part:.4g}" if isinstance(part, float) else part for part in rows[-1]), file=sys.stderr, flush=True)
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
