"""Whether the compiled training kernels pay: optimizer steps by them, and by torch's layers in two ways.

All take whole steps (forward, loss, backward, clip, AdamW) of the same two-layer network on random ids at the sizes
that the plan picks, each in a process of its own, in turn; the idle ones sleep, and all of them keep the memory that
a step frees.

- native: the compiled kernels, the streams in fixed groups, a group a thread;
- groups: torch's layers in the same groups;
- whole: torch's layers on the whole batch, each operation divided among the threads, as torch is mostly used.

With documents, streams are reset within a chunk, one in every few hundred characters. Busy means that another
process computes all the time on one core.
"""

import argparse
import multiprocessing
import sys
import time
from itertools import product
from multiprocessing.connection import Connection
from typing import Any

from side_by_side import Contestant, Laps, cores, describe_machine, median, ratio, table

V, T, B = 65, 64, 32
CELLS, SIZES = ("lstm", "gru", "rnn"), (192, 448, 704)
WAYS = ("native", "groups", "whole")
DOCUMENT = 300  # characters of a document
HEADER = ("2 layers, B = 32", *(f"{way} ms" for way in WAYS), "native / groups", "native / whole")


def _learn(settings: dict[str, Any], seconds: float, pipe: Connection) -> None:
    import numpy as np
    import torch

    from charrnn.config import ModelConfig, TrainConfig
    from charrnn.rnn.torch_rnn import CharRNN, detach
    from charrnn.training.autotune import set_up_torch
    from charrnn.training.train_step import TrainStep

    way, documents = settings.pop("way"), settings.pop("documents")
    set_up_torch(settings["threads"])
    torch.set_flush_denormal(True)
    model = ModelConfig(cell=settings.pop("cell"), hidden=settings.pop("hidden"))
    network = CharRNN(model, V, 0 if documents else None)
    network.initialize(seed=0)
    random = np.random.default_rng(0)
    ids = random.integers(1, V, size=(T + 1, settings["batch_size"]))
    if documents:
        ids[random.random(ids.shape) < 1 / DOCUMENT] = 0
    state = network.zero_state(settings["batch_size"])

    if way == "whole":
        parameters = list(network.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        inputs, targets = (torch.from_numpy(part.copy()) for part in (ids[:-1], ids[1:]))

        def step(number: int) -> None:
            optimizer.zero_grad()
            logits, after = network(inputs, state)
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            detach(after)

    else:
        engine = "native" if way == "native" else "torch"
        train_step = TrainStep(network, TrainConfig(device="cpu", seq_length=T, engine=engine, **settings))

        def step(number: int) -> None:
            train_step.step(number, ids[:-1], ids[1:], state, 1e-4)

    while pipe.recv():
        step(0)  # awake
        started, steps = time.perf_counter(), 0
        while steps < 2 or time.perf_counter() - started < seconds:
            steps += 1
            step(steps)
        pipe.send((time.perf_counter() - started) / steps)


def _be_busy() -> None:
    while True:
        sum(range(10_000))


def measure(cell: str, hidden: int, arguments: argparse.Namespace, seconds: float) -> list[Any]:
    """Return one row of the table."""
    settings = {
        "cell": cell, "hidden": hidden, "batch_size": arguments.batch, "threads": arguments.threads,
        "precision": arguments.precision, "documents": arguments.documents,
    }  # fmt: skip
    contestants = {way: Contestant(_learn, {**settings, "way": way}, seconds) for way in WAYS}
    laps: Laps = {way: [] for way in WAYS}
    try:
        for counted in [False] + [True] * arguments.rounds:
            for way, contestant in contestants.items():
                lap = contestant.ask()
                if counted:
                    laps[way].append(lap)
    finally:
        for contestant in contestants.values():
            contestant.end()
    times = [1000 * median(laps, way) for way in WAYS]
    return [f"{hidden} {cell.upper()}", *times, ratio(laps, "native", "groups"), ratio(laps, "native", "whole")]


def main() -> None:
    """Measure row by row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=CELLS, choices=CELLS, help="cells (all)")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="units of a layer (192 448 704)")
    parser.add_argument("--batch", type=int, default=B, help="streams (32)")
    parser.add_argument("--threads", type=int, default=cores(), help="of each contestant (all cores)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the products (fp32)")
    parser.add_argument("--documents", action="store_true", help="reset streams within a chunk")
    parser.add_argument("--busy", action="store_true", help="beside a process that is busy on one core")
    parser.add_argument("--rounds", type=int, default=7, help="of which the median is quoted (7)")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    seconds = 0.3
    if arguments.quick:
        arguments.cells, arguments.sizes, arguments.batch, arguments.rounds, seconds = ("gru",), (16,), 4, 2, 0.0
    kind = f"{'documents' if arguments.documents else 'one text'}, {'busy' if arguments.busy else 'quiet'}"
    print(describe_machine(threads=arguments.threads, rounds=arguments.rounds, precision=arguments.precision), kind)
    print(flush=True)
    other = multiprocessing.Process(target=_be_busy, daemon=True)
    if arguments.busy:
        other.start()
    rows = []
    for cell, hidden in product(arguments.cells, arguments.sizes):
        rows.append(measure(cell, hidden, arguments, seconds))
        print(*(f"{part:.4g}" if isinstance(part, float) else part for part in rows[-1]), file=sys.stderr, flush=True)
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
