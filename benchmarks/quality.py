"""Measure the quality of models within a budget, with ``charrnn train`` and then ``charrnn eval``.

The script trains once per seed for every budget, and once per seed with no options. The table shows the wall time of
each training process, the characters trained on per second of that time, and the nats per character of the last 10 %
of the text, which ``charrnn train`` holds out. The text is evaluated twice: with the state carried throughout, and
with the state reset every 256 characters, for comparison with transformers. Rates of 2048-cubed matrix products,
measured right before each run, show the speed of the machine, on which the result of a budget in minutes depends.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from side_by_side import describe_machine, table

from charrnn import checkpoint
from charrnn.data import datasets

RESET = 256  # characters; the context length of the transformers in the comparison
HEADER = (
    "run", "seconds", "char/s", "nats, carried", f"nats, reset {RESET}", "fp32 GFLOP/s", "bf16 GFLOP/s",
)  # fmt: skip


def product_rate(dtype: torch.dtype, size: int, seconds: float) -> float:
    """Return the GFLOP/s of square matrix products, the median of all products within some seconds."""
    # A large product takes a minute where bf16 is emulated.
    if size > 256 and (slow := product_rate(dtype, 256, seconds)) < 10:
        return slow
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    a @ b
    times: list[float] = []
    while sum(times) < seconds:
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(times) / 1e9


def charrnn(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``charrnn`` and return the result; exit with the messages of the program if it fails."""
    command = [sys.executable, "-m", "charrnn", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done


def measure(text: Path, directory: Path, options: Sequence[str], size: int) -> list[float]:
    """Train once and return the figures of one row of the table."""
    model, tail = directory / "model.safetensors", directory / "tail.txt"
    rates = [product_rate(dtype, size, seconds=1.0) for dtype in (torch.float32, torch.bfloat16)]
    started = time.perf_counter()
    trained = charrnn("train", text, "-o", model, "--force", *options)
    seconds = time.perf_counter() - started
    steps = int(re.findall(r"^step +([\d,]+)", trained.stderr, re.MULTILINE)[-1].replace(",", ""))
    record = checkpoint.load(model).training
    assert record is not None
    characters = steps * record.settings.batch_size * record.settings.seq_length
    validation = text.read_text(encoding="utf-8")[-record.corpus.validation_characters :]
    tail.write_text(validation, encoding="utf-8", newline="")
    result = json.loads(charrnn("eval", model, tail, "--json", "--reset", str(RESET)).stdout)
    return [seconds, characters / seconds, result["nats"], result["reset_nats"], *rates]


def main() -> None:
    """Measure every run in a temporary directory and print the table, with progress on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = datasets.CORPUS_DIR / "tiny-shakespeare.txt"
    parser.add_argument("text", type=Path, nargs="?", default=default, help=f"text to train on ({default})")
    parser.add_argument(
        "--minutes", nargs="*", default=["1"], help="budgets, one run each, in addition to no options (1)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="runs per budget, with seeds 0, 1, ... (1)")
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    arguments = parser.parse_args()
    if not arguments.text.is_file():
        parser.error(f"{arguments.text}: no such file; download the default with charrnn corpus get tiny-shakespeare")
    budgets = [["--minutes", minutes] for minutes in arguments.minutes] + [[]]
    size = 2048
    if arguments.quick:
        budgets, size = [["--steps", "5", "--hidden", "16"]], 256

    rows: list[list[str | float]] = []
    with tempfile.TemporaryDirectory() as directory:
        for budget in budgets:
            runs: list[list[float]] = []
            for seed in range(arguments.seeds):
                options = [*budget, *(["--seed", str(seed)] if seed else [])]
                name = " ".join(options) or "no options"
                runs.append(measure(arguments.text, Path(directory), options, size))
                rows.append([name, *runs[-1]])
                print(f"{name}: {runs[-1][0]:.0f} s, {runs[-1][2]:.4f} nats", file=sys.stderr)
            if arguments.seeds > 1:
                medians = [statistics.median(column) for column in zip(*runs, strict=True)]
                rows.append([f"{' '.join(budget) or 'no options'}, median", *medians])
    print(describe_machine(text=arguments.text.name, matrices=f"{size} cubed"), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
