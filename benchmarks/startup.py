"""Measure the seconds of complete processes, from start to exit.

The script times these in turn: ``python -c pass`` and ``python -c 'import numpy'`` for comparison, ``charrnn
--help``, ``charrnn sample -n 200`` with a 2x256 LSTM, and the same sampling in a process that imports torch first.
Each is a new process, started as ``python -m charrnn``, with its files in the system's cache. The model has random
weights, because the times do not depend on them.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from side_by_side import alternate, describe_machine, median, ratio, table

from charrnn import checkpoint
from charrnn.config import ModelConfig
from charrnn.data.vocabulary import Vocabulary

VOCABULARY = Vocabulary("".join(map(chr, range(ord("!"), ord("!") + 65))))
LENGTH = 200
WITH_TORCH = "import torch; from charrnn.__main__ import main; main()"
HELP, SAMPLE, SAMPLE_WITH_TORCH = "charrnn --help", f"charrnn sample -n {LENGTH}", "the same with torch imported"


def save_model(path: Path, hidden: int) -> None:
    """Save an untrained LSTM of two layers."""
    config = ModelConfig(layers=2, hidden=hidden)
    random = np.random.default_rng(0)
    tensors = {
        name: (random.standard_normal(shape) / hidden**0.5).astype(np.float32)
        for name, shape in config.tensor_shapes(len(VOCABULARY)).items()
    }
    checkpoint.save(path, checkpoint.Checkpoint(config, VOCABULARY, tensors))


def run(*arguments: str) -> str:
    """Run Python with these arguments and return its output."""
    done = subprocess.run([sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def measure(model: Path, rounds: int) -> list[list[str | float]]:
    """Return the rows of the table.

    Raises:
        SystemExit: If sampling with and without torch writes different texts.
    """
    sampling = "sample", str(model), "-n", str(LENGTH), "--seed", "0"
    commands = {
        "python -c pass": ("-c", "pass"),
        "python -c 'import numpy'": ("-c", "import numpy"),
        HELP: ("-m", "charrnn", "--help"),
        SAMPLE: ("-m", "charrnn", *sampling),
        SAMPLE_WITH_TORCH: ("-c", WITH_TORCH, *sampling),
    }
    texts = {name: run(*commands[name]) for name in (SAMPLE, SAMPLE_WITH_TORCH)}
    if len(texts[SAMPLE]) != LENGTH or texts[SAMPLE] != texts[SAMPLE_WITH_TORCH]:
        raise SystemExit("sampling with and without torch gives different texts")
    timings = alternate({name: lambda command=command: run(*command) for name, command in commands.items()}, rounds)
    return [[name, median(timings, name), ratio(timings, name, SAMPLE)] for name in commands]


def main() -> None:
    """Save a model in a temporary directory, time the processes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="number of rounds; the table shows the median (15)")
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    arguments = parser.parse_args()
    rounds, hidden = (1, 16) if arguments.quick else (arguments.rounds, 256)
    print(describe_machine(model=f"2x{hidden} LSTM", rounds=rounds), "\n")
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory, "model.safetensors")
        save_model(model, hidden)
        print(table(("process", "seconds", "/ sample"), measure(model, rounds)))


if __name__ == "__main__":
    main()
