"""How good a model is after so long, through the real program: ``charrnn train`` and then ``charrnn eval``.

For every budget and every seed one training run on the text, and one more with no options at all. Quoted are the
wall seconds of the whole training process, the characters trained on per second of those, and the nats per character
on the text's last 10 %, which the program keeps for validation: with the state carried from the first character to
the last, and with a fresh state every 256 characters, as transformers are quoted. Beside it stand the 2048-cubed
matrix products that this machine managed right before the run, since budgets in minutes buy what the machine gives.
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

RESET = 256  # characters, the context of the transformers that we are compared with
HEADER = (
    "run", "seconds", "char/s", "nats, carried", f"nats, reset {RESET}", "fp32 GFLOP/s", "bf16 GFLOP/s",
)  # fmt: skip


def product_rate(dtype: torch.dtype, size: int, seconds: float) -> float:
    """GFLOP/s of square matrix products: the median of those that fit into some seconds."""
    if size > 256 and (slow := product_rate(dtype, 256, seconds)) < 10:  # bf16 without instructions for it: a minute
        return slow
    one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
    one @ other
    laps: list[float] = []
    while sum(laps) < seconds:
        started = time.perf_counter()
        one @ other
        laps.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(laps) / 1e9


def charrnn(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the program, which must succeed."""
    command = [sys.executable, "-m", "charrnn", *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done


def measure(text: Path, folder: Path, options: Sequence[str], size: int) -> list[float]:
    """Trains once; the figures of one row of the table."""
    model, tail = folder / "model.safetensors", folder / "tail.txt"
    rates = [product_rate(dtype, size, seconds=1.0) for dtype in (torch.float32, torch.bfloat16)]
    started = time.perf_counter()
    trained = charrnn("train", text, "-o", model, "--force", *options)
    seconds = time.perf_counter() - started
    steps = int(re.findall(r"^step +([\d,]+)", trained.stderr, re.MULTILINE)[-1].replace(",", ""))
    record = checkpoint.load(model).training
    characters = steps * record["settings"]["batch_size"] * record["settings"]["seq_length"]
    validation = text.read_text(encoding="utf-8")[-record["corpus"]["validation_characters"] :]
    tail.write_text(validation, encoding="utf-8", newline="")
    result = json.loads(charrnn("eval", model, tail, "--json", "--reset", str(RESET)).stdout)
    return [seconds, characters / seconds, result["nats"], result["reset_nats"], *rates]


def main() -> None:
    """Trains every run in a temporary folder and prints the table; tells on stderr how far it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = datasets.CORPUS_DIR / "tiny-shakespeare.txt"
    parser.add_argument("text", type=Path, nargs="?", default=default, help=f"what to train on ({default})")
    parser.add_argument("--minutes", nargs="*", default=["1"], help="budgets of a run each, beside no options (1)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each budget, seeds 0, 1, ... (1)")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    if not arguments.text.is_file():
        parser.error(f"there is no {arguments.text}; charrnn corpus get tiny-shakespeare fetches the default")
    budgets = [["--minutes", minutes] for minutes in arguments.minutes] + [[]]
    size = 2048
    if arguments.quick:
        budgets, size = [["--steps", "5", "--hidden", "16"]], 256

    rows: list[list[str | float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for budget in budgets:
            runs: list[list[float]] = []
            for seed in range(arguments.seeds):
                options = [*budget, *(["--seed", str(seed)] if seed else [])]
                name = " ".join(options) or "no options"
                runs.append(measure(arguments.text, Path(folder), options, size))
                rows.append([name, *runs[-1]])
                print(f"{name}: {runs[-1][0]:.0f} s, {runs[-1][2]:.4f} nats", file=sys.stderr)
            if arguments.seeds > 1:
                medians = [statistics.median(column) for column in zip(*runs, strict=True)]
                rows.append([f"{' '.join(budget) or 'no options'}, median", *medians])
    print(describe_machine(text=arguments.text.name, matrices=f"{size} cubed"), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
