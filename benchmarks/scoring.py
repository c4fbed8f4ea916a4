"""Measure the lines scored and the characters evaluated per second, compared with the network alone.

`score` is what `charrnn score` does with lines in memory: decoding, encoding as ids, the network and the printed
form. `eval` is `charrnn eval` of the same text: one stream, with the state carried. Both are compared with `batch`:
as many characters in 64 streams of equal length by the faster backend (native or torch), without resets or waiting.
`program, lines/s` is the whole program, from a file to a file. `first, s` is the time from the start of the program
to the first score of a line from a pipe, and `next, ms` the time from each later line to its score. The networks are
untrained, because the times do not depend on the weights.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from side_by_side import alternate, cores, describe_machine, median, ratio, table

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.config import ModelConfig
from charrnn.data.corpus_reader import read_corpus
from charrnn.data.lines import Lines
from charrnn.evaluation.line_scores import LineScorer
from charrnn.evaluation.metrics import mean_nats
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.torch_scorer import TorchScorer, torch_scorer
from charrnn.training.autotune import keep_freed_memory
from charrnn.units import nats_to_bits
from corpora import write_text

STREAMS = 64
HEADER = (
    "2 layers", "score, lines/s", "char/s", "of batch", "eval, char/s", "of batch", "batch, char/s",
    "program, lines/s", "first, s", "next, ms",
)  # fmt: skip


def make_model(cell: str, hidden: int, text: Path) -> Checkpoint:
    """Return an untrained model with the vocabulary of a text."""
    vocabulary = read_corpus([str(text)]).vocabulary
    config = ModelConfig(cell=cell, hidden=hidden)  # type: ignore[arg-type]
    network = CharRNN(config, len(vocabulary))
    network.initialize(seed=0)
    return Checkpoint(config, vocabulary, network.tensors())


def make_scorers(model: Checkpoint) -> tuple[TorchScorer, TorchScorer]:
    """Return a scorer with the native backend and one with the torch backend."""
    native, torch_layers = torch_scorer(model, threads=cores()), torch_scorer(model, threads=cores())
    torch_layers._network.native = False
    return native, torch_layers


def measure_pipe(model: Path, lines: int) -> tuple[float, float]:
    """Return the seconds to the first score of a line from a pipe, and the milliseconds to each later one."""
    command = [sys.executable, "-m", "charrnn", "score", str(model)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        times = []
        for _ in range(lines):
            process.stdin.write(b"the quick brown fox jumps over the lazy dog\n")
            process.stdin.flush()
            process.stdout.readline()
            times.append(time.perf_counter() - started)
            started = time.perf_counter()
        process.stdin.close()
    return times[0], float(np.median(times[1:])) * 1e3


def measure(cell: str, hidden: int, text: Path, rounds: int) -> list[str | float]:
    """Return one row of the table."""
    model = make_model(cell, hidden, text)
    path = text.with_name("model.safetensors")
    checkpoint.save(path, model)
    ids = read_corpus([str(text)]).with_vocabulary(model.vocabulary).tokens()
    symbols = ids.take(np.arange(len(ids)))
    length = len(symbols) // STREAMS
    grid = symbols[: length * STREAMS].reshape(STREAMS, length).T
    scorer, resets = torch_scorer(model), np.zeros((length, STREAMS), dtype=bool)
    batches = list(Lines(str(text)).batches(1 << 18))

    def score() -> None:
        line_scorer = LineScorer(model, scorer)
        for batch in batches:
            b"".join(
                b"%.4f\t%b\n" % (nats_to_bits(line.nats_per_char), line.data) for line in line_scorer.score(batch)
            )

    def score_batch(batch_scorer: TorchScorer) -> None:
        state = batch_scorer.zero_state(STREAMS)
        for start in range(0, length - 1, 256):
            inputs = slice(start, min(start + 256, length - 1))
            targets = slice(start + 1, inputs.stop + 1)
            _, state = batch_scorer.score(grid[inputs], grid[targets], resets[inputs], state)

    native, torch_layers = make_scorers(model)
    timings = alternate(
        {
            "score": score, "eval": lambda: mean_nats(scorer, ids),
            "native": lambda: score_batch(native), "torch": lambda: score_batch(torch_layers),
        }, rounds,
    )  # fmt: skip
    faster = "native" if median(timings, "native") < median(timings, "torch") else "torch"
    lines = sum(len(batch) for batch in batches)
    started = time.perf_counter()
    with open(path.with_name("scores.txt"), "wb") as scores:
        subprocess.run([sys.executable, "-m", "charrnn", "score", str(path), str(text)], stdout=scores, check=True)
    seconds = time.perf_counter() - started
    characters = len(symbols)
    return [
        f"{hidden} {cell.upper()}", lines / median(timings, "score"), characters / median(timings, "score"),
        ratio(timings, faster, "score"), characters / median(timings, "eval"), ratio(timings, faster, "eval"),
        characters / median(timings, faster), lines / seconds, *measure_pipe(path, 20),
    ]  # fmt: skip


def main() -> None:
    """Create a text, measure every network on it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=10_000, help="lines of the text (10000)")
    parser.add_argument("--cells", nargs="+", default=["lstm"], help="kinds of cell (lstm)")
    parser.add_argument(
        "--hidden", nargs="+", type=int, default=[128, 256, 512], help="units per layer (128 256 512)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; the table shows the median (3)")
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.lines, arguments.rounds, arguments.hidden = 300, 1, [16]
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text.txt"
        write_text(text, arguments.lines * 60)
        lines = text.read_bytes().split(b"\n")[: arguments.lines]
        text.write_bytes(b"\n".join(lines) + b"\n")
        rows = [
            measure(cell, hidden, text, arguments.rounds) for cell in arguments.cells for hidden in arguments.hidden
        ]
        size = text.stat().st_size
    print(describe_machine(lines=f"{len(lines):,}", bytes=f"{size:,}", threads=torch.get_num_threads()), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
