"""Compare the memory that a run takes with the estimate that decides whether it may start (``training/memory.py``).

Each network is trained in its own process. Its peak is that of the process, without that of the smallest network.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import describe_machine, table

from charrnn.config import ModelConfig, TrainConfig
from charrnn.training.memory import training_bytes

HEADER = ("network", "parameters", "estimate, MB", "measured, MB", "measured / estimate")
TEXT = "The quick brown fox jumps over the lazy dog, 0123456789.\n"
STEPS = 4  # each is followed by an evaluation and a save
NETWORKS: tuple[dict[str, Any], ...] = (
    {"hidden": 700},
    {"hidden": 700, "engine": "native", "precision": "fp32"},
    {"hidden": 700, "engine": "torch", "precision": "fp32"},
    {"hidden": 900, "cell": "gru", "batch_size": 8},
    {"hidden": 300, "layers": 8},
    {"hidden": 500, "batch_size": 128},
    {"hidden": 200, "seq_length": 2000, "batch_size": 8},
)


def peak(directory: Path, threads: int, settings: dict[str, Any]) -> int:
    """Train a network in a process, and return the largest resident memory of the process in bytes."""
    options = [word for name, value in settings.items() for word in ("--" + name.replace("_", "-"), str(value))]
    command = [sys.executable, "-m", "charrnn", "train", "text.txt", "--force", "--steps", str(STEPS)]
    process = subprocess.Popen(
        [*command, "--threads", str(threads), *options],
        cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, settings
    return usage.ru_maxrss * 1024


def compare(directory: Path, threads: int, settings: dict[str, Any], smallest: int) -> list[str | float]:
    """Return one row of the table."""
    model = ModelConfig(**{name: value for name, value in settings.items() if hasattr(ModelConfig, name)})
    others = {name: value for name, value in settings.items() if not hasattr(ModelConfig, name)}
    vocab_size = len(set(TEXT))
    estimate = training_bytes(model, TrainConfig(threads=threads, **others), vocab_size)
    measured = peak(directory, threads, settings) - smallest
    name = " ".join(f"--{name} {value}" for name, value in settings.items())
    return [name, model.num_parameters(vocab_size), estimate / 1e6, measured / 1e6, measured / estimate]


def main() -> None:
    """Measure the networks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of each run (2)")
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    arguments = parser.parse_args()
    networks = ({"hidden": 300},) if arguments.quick else NETWORKS
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "text.txt").write_text(TEXT * 3000)
        smallest = peak(directory, arguments.threads, {"hidden": 8, "layers": 1})
        rows = [compare(directory, arguments.threads, settings, smallest) for settings in networks]
    print(describe_machine(threads=arguments.threads), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
