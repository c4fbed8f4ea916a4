"""Lines scored per second, and characters measured, beside the same network at its best.

`score` is what `charrnn score` does with lines that lie in memory: decoding, numbering, the network, and the
printed form. `eval` is `charrnn eval` of the same text: one stream, the state carried. Both are compared with
`batch`: as many characters in 64 streams of equal length, in one go by the engine that is faster (our kernels or
torch's layers), with nothing to restart and nothing to wait for. `program, lines/s` is the whole program, a file to a
file. `first, s` is the time from the start of the program to the first score of a line that is piped in, and `next,
ms` from then on between a line and its score. The networks are untrained: nothing of this depends on what they know.
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
    """An untrained one that knows the characters of a text."""
    vocabulary = read_corpus([str(text)]).vocabulary
    config = ModelConfig(cell=cell, hidden=hidden)  # type: ignore[arg-type]
    network = CharRNN(config, len(vocabulary))
    network.initialize(seed=0)
    return Checkpoint(config, vocabulary, network.tensors(), {})


def batch_reader(model: Checkpoint) -> list[TorchScorer]:
    """The network by each engine."""
    readers = [torch_scorer(model, threads=cores()) for _ in ("native", "torch")]
    readers[1]._network.native = False
    return readers


def answers(model: Path, lines: int) -> tuple[float, float]:
    """Seconds until the first score of a line that is piped in, and milliseconds until a later one."""
    command = [sys.executable, "-m", "charrnn", "score", str(model)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        laps = []
        for _ in range(lines):
            process.stdin.write(b"the quick brown fox jumps over the lazy dog\n")
            process.stdin.flush()
            process.stdout.readline()
            laps.append(time.perf_counter() - started)
            started = time.perf_counter()
        process.stdin.close()
    return laps[0], float(np.median(laps[1:])) * 1e3


def measure(cell: str, hidden: int, text: Path, rounds: int) -> list[str | float]:
    """One row of the table."""
    model = make_model(cell, hidden, text)
    path = text.with_name("model.safetensors")
    checkpoint.save(path, model)
    ids = read_corpus([str(text)]).with_vocabulary(model.vocabulary).tokens()
    symbols = ids.take(np.arange(len(ids)))
    length = len(symbols) // STREAMS
    grid = symbols[: length * STREAMS].reshape(STREAMS, length).T
    reader, never = torch_scorer(model), np.zeros((length, STREAMS), dtype=bool)
    pieces = list(Lines(str(text)).batches(1 << 18))

    def score() -> None:
        scorer = LineScorer(model, reader)
        for batch in pieces:
            b"".join(b"%.4f\t%b\n" % (nats_to_bits(line.nats_per_char), line.data) for line in scorer.score(batch))

    def whole(reader: TorchScorer) -> None:
        state = reader.zero_state(STREAMS)
        for begin in range(0, length - 1, 256):
            places = slice(begin, min(begin + 256, length - 1))
            after = slice(begin + 1, places.stop + 1)
            _, state = reader.score(grid[places], grid[after], never[places], state)

    native, torchs = batch_reader(model)
    laps = alternate(
        {
            "score": score, "eval": lambda: mean_nats(reader, ids),
            "native": lambda: whole(native), "torch": lambda: whole(torchs),
        }, rounds,
    )  # fmt: skip
    best = "native" if median(laps, "native") < median(laps, "torch") else "torch"
    lines = sum(len(batch) for batch in pieces)
    started = time.perf_counter()
    with open(path.with_name("scores.txt"), "wb") as scores:
        subprocess.run([sys.executable, "-m", "charrnn", "score", str(path), str(text)], stdout=scores, check=True)
    seconds = time.perf_counter() - started
    characters = len(symbols)
    return [
        f"{hidden} {cell.upper()}", lines / median(laps, "score"), characters / median(laps, "score"),
        ratio(laps, best, "score"), characters / median(laps, "eval"), ratio(laps, best, "eval"),
        characters / median(laps, best), lines / seconds, *answers(path, 20),
    ]  # fmt: skip


def main() -> None:
    """Makes a text, measures every network on it and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=10_000, help="of the text (10000)")
    parser.add_argument("--cells", nargs="+", default=["lstm"], help="kinds of cell (lstm)")
    parser.add_argument("--hidden", nargs="+", type=int, default=[128, 256, 512], help="units (128 256 512)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is quoted (3)")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.lines, arguments.rounds, arguments.hidden = 300, 1, [16]
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text.txt"
        write_text(text, arguments.lines * 60)
        kept = text.read_bytes().split(b"\n")[: arguments.lines]
        text.write_bytes(b"\n".join(kept) + b"\n")
        rows = [
            measure(cell, hidden, text, arguments.rounds) for cell in arguments.cells for hidden in arguments.hidden
        ]
        size = text.stat().st_size
    print(describe_machine(lines=f"{len(kept):,}", bytes=f"{size:,}", threads=torch.get_num_threads()), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
