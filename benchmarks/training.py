"""Measure training throughput, and the share of the machine's matrix-product rate that it reaches.

Both backends of `charrnn train` take complete optimizer steps (forward, loss, backward, clip, AdamW) of the same
network on random ids. Each backend runs in a separate process, in the precision that is faster for it; the processes
take turns and sleep in between. `limit` is the rate of a 2048-cubed matrix product in the precision of the native
backend, measured next to each timing. The work counted is 6 flops per parameter and character, whichever backend
does it. `backends.py` compares the native backend with torch used in other ways.
"""

import argparse
import statistics
import sys
import time
from itertools import product
from multiprocessing.connection import Connection
from typing import Any

from side_by_side import Timings, Worker, cores, describe_machine, median, ratio, table

V, T = 65, 64
CELLS, SIZES, BATCHES = ("lstm", "gru", "rnn"), (128, 256, 512), (64,)
ALL_SIZES, ALL_BATCHES = (64, 128, 256, 512, 1024), (16, 64, 256)
ENGINES = ("torch", "native")
HEADER = ("2 layers, torch / native", "B", *(f"{name} char/s" for name in ENGINES))
HEADER += ("native / torch", "GFLOP/s", "limit", "share")


def _train(settings: dict[str, Any], seconds: float, pipe: Connection) -> None:
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
            step(0)  # warm-up
        except RuntimeError:
            pipe.send(float("inf"))
            continue
        started, steps = time.perf_counter(), 0
        while steps < 2 or time.perf_counter() - started < seconds:
            steps += 1
            step(steps)
        pipe.send((time.perf_counter() - started) / steps)


def _product_seconds(matrix: Any) -> float:
    """Return the shortest of four times."""
    times = []
    for _ in range(4):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return min(times)


def measure(cell: str, hidden: int, batch_size: int, precisions: list[str], rounds: int, seconds: float) -> list[Any]:
    """Return one row of the table."""
    from charrnn.config import ModelConfig

    settings = {"cell": cell, "hidden": hidden, "batch_size": batch_size, "threads": cores()}
    workers: dict[str, Worker] = {}
    timings: Timings = {name: [] for name in ENGINES}
    limits = []
    try:
        for name in ENGINES:
            candidates = [
                Worker(_train, {**settings, "engine": name, "precision": precision}, seconds)
                for precision in precisions
            ]
            workers[name] = candidates[0] if len(candidates) == 1 else min(candidates, key=Worker.request)
            for worker in candidates:
                if worker is not workers[name]:
                    worker.stop()
        for counted in [False] + [True] * rounds:
            for name, worker in workers.items():
                seconds_per_step = worker.request()
                if counted:
                    timings[name].append(seconds_per_step)
            limits.append(workers["native"].request("limit"))
    finally:
        for worker in workers.values():
            worker.stop()
    characters = batch_size * T
    limit = statistics.median(limits)
    parameters = ModelConfig(cell=cell, hidden=hidden).num_parameters(V)  # type: ignore[arg-type]
    rate = 6 * parameters * characters / median(timings, "native") / 1e9
    fastest = " / ".join(worker.settings["precision"] for worker in workers.values())
    title = f"{hidden} {cell.upper()}, {fastest}"
    rates = [characters / median(timings, name) for name in timings]
    return [title, batch_size, *rates, ratio(timings, "torch", "native"), rate, limit, rate / limit]


def main() -> None:
    """Measure every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS, help="cells (all)")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="units per layer (128 256 512)")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="numbers of streams (64)")
    parser.add_argument(
        "--all", action="store_true", help="measure 64 to 1024 units and 16 to 256 streams (half an hour)"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="precision of both backends (the faster one of each)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds; the table shows the median (9)")
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
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
        print(*(f"{cell:.4g}" if isinstance(cell, float) else cell for cell in rows[-1]), file=sys.stderr, flush=True)
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
