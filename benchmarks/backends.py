"""Compare the compiled training kernels with torch's layers, used in two ways.

All three take complete optimizer steps (forward, loss, backward, clip, AdamW) of the same two-layer network on random
ids. The sizes are those that the plan picks. Each backend runs in a separate process; the processes take turns and
sleep in between. All of them keep the memory that a step frees.

- native: the compiled kernels on fixed groups of streams, one group per thread
- groups: torch's layers on the same groups, one group per thread
- batch: torch's layers on the entire batch, each operation divided among the threads, as torch is mostly used

With --documents, each stream is reset every few hundred characters, within a chunk. With --busy, another process
computes on one core all the time.
"""

import argparse
import multiprocessing
import sys
import time
from itertools import product
from multiprocessing.connection import Connection
from typing import Any

from side_by_side import Timings, Worker, cores, describe_machine, median, ratio, table

V, T, B = 65, 64, 32
CELLS, SIZES = ("lstm", "gru", "rnn"), (192, 448, 704)
BACKENDS = ("native", "groups", "batch")
DOCUMENT_LENGTH = 300  # characters, on average
HEADER = ("2 layers, B = 32", *(f"{name} ms" for name in BACKENDS), "native / groups", "native / batch")


def _train(settings: dict[str, Any], seconds: float, pipe: Connection) -> None:
    import numpy as np
    import torch

    from charrnn.config import ModelConfig, TrainConfig
    from charrnn.rnn.torch_rnn import CharRNN, detach
    from charrnn.training.autotune import set_up_torch
    from charrnn.training.train_step import TrainStep

    backend, documents = settings.pop("backend"), settings.pop("documents")
    set_up_torch(settings["threads"])
    torch.set_flush_denormal(True)
    model = ModelConfig(cell=settings.pop("cell"), hidden=settings.pop("hidden"))
    network = CharRNN(model, V, 0 if documents else None)
    network.initialize(seed=0)
    random = np.random.default_rng(0)
    ids = random.integers(1, V, size=(T + 1, settings["batch_size"]))
    if documents:
        ids[random.random(ids.shape) < 1 / DOCUMENT_LENGTH] = 0
    state = network.zero_state(settings["batch_size"])

    if backend == "batch":
        parameters = list(network.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        inputs, targets = (torch.from_numpy(array.copy()) for array in (ids[:-1], ids[1:]))

        def step(number: int) -> None:
            optimizer.zero_grad()
            logits, next_state = network(inputs, state)
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            detach(next_state)

    else:
        engine = "native" if backend == "native" else "torch"
        train_step = TrainStep(network, TrainConfig(device="cpu", seq_length=T, engine=engine, **settings))

        def step(number: int) -> None:
            train_step.step(number, ids[:-1], ids[1:], state, 1e-4)

    while pipe.recv():
        step(0)  # warm-up
        started, steps = time.perf_counter(), 0
        while steps < 2 or time.perf_counter() - started < seconds:
            steps += 1
            step(steps)
        pipe.send((time.perf_counter() - started) / steps)


def _keep_core_busy() -> None:
    while True:
        sum(range(10_000))


def measure(cell: str, hidden: int, arguments: argparse.Namespace, seconds: float) -> list[Any]:
    """Return one row of the table."""
    settings = {
        "cell": cell, "hidden": hidden, "batch_size": arguments.batch, "threads": arguments.threads,
        "precision": arguments.precision, "documents": arguments.documents,
    }  # fmt: skip
    workers = {name: Worker(_train, {**settings, "backend": name}, seconds) for name in BACKENDS}
    timings: Timings = {name: [] for name in BACKENDS}
    try:
        for counted in [False] + [True] * arguments.rounds:
            for name, worker in workers.items():
                seconds_per_step = worker.request()
                if counted:
                    timings[name].append(seconds_per_step)
    finally:
        for worker in workers.values():
            worker.stop()
    times = [1000 * median(timings, name) for name in BACKENDS]
    return [f"{hidden} {cell.upper()}", *times, *(ratio(timings, "native", name) for name in BACKENDS[1:])]


def main() -> None:
    """Measure every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS, help="cells (all)")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="units per layer (192 448 704)")
    parser.add_argument("--batch", type=int, default=B, help="number of streams (32)")
    parser.add_argument("--threads", type=int, default=cores(), help="threads of each backend (all cores)")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="precision of the matrix products (fp32)"
    )
    parser.add_argument("--documents", action="store_true", help="reset streams within a chunk")
    parser.add_argument("--busy", action="store_true", help="keep one core busy with another process")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds; the table shows the median (7)")
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    arguments = parser.parse_args()
    seconds = 0.3
    if arguments.quick:
        arguments.cells, arguments.sizes, arguments.batch, arguments.rounds, seconds = ("gru",), (16,), 4, 2, 0.0
    conditions = f"{'documents' if arguments.documents else 'one text'}, {'busy' if arguments.busy else 'quiet'}"
    print(
        describe_machine(threads=arguments.threads, rounds=arguments.rounds, precision=arguments.precision),
        conditions,
    )
    print(flush=True)
    busy_process = multiprocessing.Process(target=_keep_core_busy, daemon=True)
    if arguments.busy:
        busy_process.start()
    rows = []
    for cell, hidden in product(arguments.cells, arguments.sizes):
        rows.append(measure(cell, hidden, arguments, seconds))
        print(*(f"{cell:.4g}" if isinstance(cell, float) else cell for cell in rows[-1]), file=sys.stderr, flush=True)
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
