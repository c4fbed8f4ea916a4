"""Measure what the trainer adds to an optimizer step between two evaluations of ``charrnn train``.

Two loops take turns, a few steps each, with equal networks and the planned B, T and precision:

- trainer: `Trainer.run` as ``charrnn train`` consumes it, with the progress bar drawn into memory. It includes the
  data loader, the schedule, the check for a finite loss, the events and the smoothed loss.
- bare: `TrainStep.step` alone (forward, loss, backward, clip, AdamW) on one fixed batch in a plain loop.

Neither uses dropout. No evaluation takes place during the measurement.
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
from side_by_side import Timings, describe_machine, median, ratio, table

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

NUM_CHARACTERS = 500_000
VOCAB_SIZE = 65
HEADER = ("ms per step", "B", "T", "trainer", "bare", "trainer / bare")


class AlternatingTrainer(Trainer):
    """A trainer that alternates with a bare loop every few steps and times both.

    Args:
        corpus: Text to train on.
        plan: Settings of the run, with more steps than are measured.
        steps: Steps per round of each loop.
        rounds: Rounds that count, after one round of warm-up.
    """

    def __init__(self, corpus: Corpus, plan: Plan, steps: int, rounds: int) -> None:
        super().__init__(corpus, plan)
        self.timings: Timings = {"trainer": [], "bare": []}
        self._steps, self._rounds = steps, rounds
        self._bare_step = make_bare_step(plan)

    def run(self) -> Iterator[Event]:
        """Yield the events of all rounds. The times include what the caller does with each event."""
        steps, rounds = self._steps, self._rounds
        events = super().run()
        for counted in [False] + [True] * rounds:
            started = time.perf_counter()
            for _ in range(steps):
                yield next(events)
            trainer_finished = time.perf_counter()
            for _ in range(steps):
                self._bare_step()
            if counted:
                self.timings["trainer"].append(trainer_finished - started)
                self.timings["bare"].append(time.perf_counter() - trainer_finished)
        yield Finished("stopped", steps * (rounds + 1), 0, 0.0, None, 0.0, 0.0)


def make_bare_step(plan: Plan) -> Callable[[], object]:
    """Return a function that takes one optimizer step of the planned network on a fixed batch."""
    config = plan.train_config
    network = CharRNN(plan.model_config, plan.vocab_size)
    network.initialize(seed=0)
    train_step = TrainStep(network, config)
    ids = np.random.default_rng(0).integers(plan.vocab_size, size=(config.seq_length + 1, config.batch_size))
    state = network.zero_state(config.batch_size)
    return lambda: train_step.step(0, ids[:-1], ids[1:], state, learning_rate=1e-3)


def measure(corpus: Corpus, path: Path, hidden: int, steps: int, rounds: int) -> list[str | float]:
    """Return one row of the table."""
    overrides = Overrides(
        layers=2, hidden=hidden, dropout=0.0, steps=100 * steps * rounds, device="cpu", evaluations=1
    )
    plan = plan_for_this_machine(corpus, overrides)
    trainer = AlternatingTrainer(corpus, plan, steps, rounds)
    with redirect_stderr(io.StringIO()):
        console = Console()
        console.interactive = True
        run = Run.create(plan, overrides, corpus)
        run_with_progress(trainer, run, Checkpointer(path, save_every=60), Signals(), console)
    timings, train = trainer.timings, plan.train_config
    milliseconds = [median(timings, name, per=steps / 1000) for name in timings]
    name = f"2x{hidden} LSTM, {train.precision}"
    return [name, train.batch_size, train.seq_length, *milliseconds, ratio(timings, "trainer", "bare")]


def main() -> None:
    """Measure both networks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="number of rounds; the table shows the median (25)")
    parser.add_argument("--quick", action="store_true", help="check only that the script works")
    arguments = parser.parse_args()
    sizes, characters, steps, rounds = (128, 256), NUM_CHARACTERS, 10, arguments.rounds
    if arguments.quick:
        sizes, characters, steps, rounds = (16,), 5_000, 2, 3
    with tempfile.TemporaryDirectory() as directory:
        text = np.random.default_rng(0).integers(ord("!"), ord("!") + VOCAB_SIZE, size=characters, dtype=np.uint8)
        file = Path(directory, "random.txt")
        file.write_bytes(text.tobytes())
        corpus = read_corpus([str(file)])
        rows = [measure(corpus, Path(directory, "model.safetensors"), hidden, steps, rounds) for hidden in sizes]
    print(describe_machine(threads=torch.get_num_threads(), rounds=rounds, steps_per_round=steps), "\n")
    print(table(HEADER, rows))


if __name__ == "__main__":
    main()
