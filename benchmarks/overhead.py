"""What the trainer adds to an optimizer step: everything that ``charrnn train`` does between two evaluations.

Timed in turn, some steps each, on the same kind of network at the planned B, T and precision:

- trainer: `Trainer.run` as ``charrnn train`` consumes it, with its progress bar drawn into memory: cutting chunks,
  the schedule, the loss for the reader, the finite check, the events, the smoothing;
- bare: `TrainStep.step` alone (forward, loss, backward, clip, AdamW) on one fixed batch in a plain loop.

Dropout is off on both sides. No evaluation falls into the run.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import torch
from side_by_side import Laps, describe_machine, median, ratio, table

from charrnn.cli.console import Console
from charrnn.cli.signals import Signals
from charrnn.cli.train_progress import run_with_progress
from charrnn.config.overrides import Overrides
from charrnn.data.corpus import Corpus
from charrnn.data.corpus_reader import read_corpus
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.training.autotune import plan_for_this_machine
from charrnn.training.checkpointing import Checkpointer
from charrnn.training.events import Event, Finished
from charrnn.training.plan import Plan
from charrnn.training.run_state import Run
from charrnn.training.train_step import TrainStep
from charrnn.training.trainer import Trainer

CHARACTERS = 500_000
DISTINCT = 65
HEADER = ("ms per step", "B", "T", "trainer", "bare", "trainer / bare")


class InTurn(Trainer):
    """A trainer that stops the clock every few steps to let a bare loop have its turn.

    Args:
        corpus: the text.
        plan: every setting, with more steps than are measured.
        steps: of a lap.
        rounds: laps of each side that count, after one that doesn't.
    """

    def __init__(self, corpus: Corpus, plan: Plan, steps: int, rounds: int) -> None:
        super().__init__(corpus, plan)
        self.laps: Laps = {"trainer": [], "bare": []}
        self._turn = steps, rounds
        self._bare_step = bare_loop(plan)

    def run(self) -> Iterator[Event]:
        """Yields the events of so many laps, timing them together with what the listener does about them."""
        steps, rounds = self._turn
        events = super().run()
        for counted in [False] + [True] * rounds:
            started = time.perf_counter()
            for _ in range(steps):
                yield next(events)
            between = time.perf_counter()
            for _ in range(steps):
                self._bare_step()
            if counted:
                self.laps["trainer"].append(between - started)
                self.laps["bare"].append(time.perf_counter() - between)
        yield Finished("stopped", steps * (rounds + 1), 0, 0.0, None, 0.0, 0.0)


def bare_loop(plan: Plan) -> Callable[[], object]:
    """A step of the plan's network on one fixed batch."""
    config = plan.train_config
    network = CharRNN(plan.model_config, plan.vocab_size)
    network.initialize(seed=0)
    train_step = TrainStep(network, config)
    ids = np.random.default_rng(0).integers(plan.vocab_size, size=(config.seq_length + 1, config.batch_size))
    state = network.zero_state(config.batch_size)
    return lambda: train_step.step(0, ids[:-1], ids[1:], state, learning_rate=1e-3)


def measure(corpus: Corpus, path: Path, hidden: int, steps: int, rounds: int) -> list[str | float]:
    """One row of the table."""
    overrides = Overrides(
        layers=2, hidden=hidden, dropout=0.0, steps=100 * steps * rounds, device="cpu", evaluations=1
    )
    plan = plan_for_this_machine(corpus, overrides)
    trainer = InTurn(corpus, plan, steps, rounds)
    with redirect_stderr(io.StringIO()):
        console = Console()
        console.interactive = True
        run = Run.create(plan, overrides, corpus)
        run_with_progress(trainer, run, Checkpointer(path, save_every=60), Signals(), console)
    laps, train = trainer.laps, plan.train_config
    milliseconds = [median(laps, name, per=steps / 1000) for name in laps]
    name = f"2x{hidden} LSTM, {train.precision}"
    return [name, train.batch_size, train.seq_length, *milliseconds, ratio(laps, "trainer", "bare")]


def main() -> None:
    """Measures both networks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="of which the median is quoted (25)")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    sizes, characters, steps, rounds = (128, 256), CHARACTERS, 10, arguments.rounds
    if arguments.quick:
        sizes, characters, steps, rounds = (16,), 5_000, 2, 3
    with tempfile.TemporaryDirectory() as folder:
        text = np.random.default_rng(0).integers(ord("!"), ord("!") + DISTINCT, size=characters, dtype=np.uint8)
        file = Path(folder, "random.txt")
        file.write_bytes(text.tobytes())
        corpus = read_corpus([str(file)])
        rows = [measure(corpus, Path(folder, "model.safetensors"), hidden, steps, rounds) for hidden in sizes]
    print(describe_machine(threads=torch.get_num_threads(), rounds=rounds, steps_of_a_round=steps), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
