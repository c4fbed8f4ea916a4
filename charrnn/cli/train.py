"""``charrnn train``: from a text to a model file, watched from stderr; stdout gets the model's path at the end."""

import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from charrnn.cli import options
from charrnn.cli.console import Console, emit
from charrnn.config import ModelConfig, SampleConfig, TrainConfig
from charrnn.units import bits, count, duration

if TYPE_CHECKING:
    from charrnn.text.corpus import Corpus
    from charrnn.training.trainer import Evaluation, Finished, Trainer

PREVIEW = SampleConfig(length=240, temperature=0.8, seed=0)
PREVIEW_SECONDS = 20.0  # at least this long from one preview to the next
STILL_IMPROVING = 0.005  # nats gained in the last fifth of a run
PLANNED = " [default: planned]"
LAYOUT = "{percentage:3.0f}% {bar} {desc}, {remaining} left"


def train(
    corpus: Annotated[
        list[str], typer.Argument(metavar="CORPUS", help="Text files, directories of .txt files, or - for stdin.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", metavar="MODEL", help="A name in ./checkpoints, or a path.  [default: the corpus's]"
        ),
    ] = None,
    force: options.Force = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="X", help="Train this long.  [default: about 5]")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", metavar="X", help="Or: read the text this many times.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", metavar="N", help="Or: take this many steps.")] = None,
    cell: Annotated[
        str | None, typer.Option("--cell", metavar="lstm|gru|rnn", help="Kind of memory.  [default: lstm]")
    ] = None,
    layers: Annotated[
        int | None, typer.Option("--layers", metavar="N", help="Layers of cells, stacked.  [default: 2]")
    ] = None,
    hidden: Annotated[int | None, typer.Option("--hidden", metavar="N", help=f"Units of a layer. {PLANNED}")] = None,
    embedding: Annotated[
        int | None,
        typer.Option("--embedding", metavar="N", help=f"Size of a character's vector; 0 is one-hot. {PLANNED}"),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option("--dropout", metavar="P", help=f"Share of activations silenced in training. {PLANNED}"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="B", help=f"Streams read side by side. {PLANNED}")
    ] = None,
    seq_length: Annotated[
        int | None, typer.Option("--seq-length", metavar="T", help=f"Characters a gradient reaches back. {PLANNED}")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", metavar="X", help=f"Peak learning rate. {PLANNED}")] = None,
    clip: Annotated[
        float | None, typer.Option("--clip", metavar="X", help="Largest norm of the gradient; 0: any.  [default: 1]")
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            "--validation",
            metavar="P",
            help="Share of the text, at its end, to measure on.  [default: 0.1, at most 500,000 characters]",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience", metavar="N", help="Evaluations without a better one that end it; 0: never.  [default: 5]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Of the first weights and of dropout.  [default: 0]")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="auto|fp32|bf16", help="Of the matrix products.  [default: the faster]"),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="auto|fused|stock", help="Our kernels, or torch's.  [default: the faster]"),
    ] = None,
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Train a network to predict the next character of a text.

    Told nothing but the text, it plans size, batch, learning rate and budget from the text and this machine; each
    option replaces its own part of the plan. Ctrl-C ends the training with the best model saved.
    """
    wishes = options.given(
        cell=cell, layers=layers, hidden=hidden, embedding=embedding, dropout=dropout, batch_size=batch_size,
        seq_length=seq_length, learning_rate=lr, clip=clip, validation=validation, patience=patience, epochs=epochs,
        steps=steps, minutes=minutes, seed=seed, precision=precision, engine=engine, device=device,
        threads=threads,
    )  # fmt: skip
    for config in (ModelConfig, TrainConfig):  # a wrong value is told before anything is read or loaded
        config(**{name: value for name, value in wishes.items() if name in config.__dataclass_fields__})

    from charrnn import checkpoint
    from charrnn.text import sources
    from charrnn.text.corpus import Corpus

    console = Console(quiet=quiet)
    path = checkpoint.place(out if out is not None else sources.name_of(corpus))
    checkpoint.check_free(path, replace=force)
    text = Corpus.of(sources.read(corpus))
    console.line(
        f"{text.name}: {len(text.ids):,} characters, {len(text.vocabulary)} distinct -> {path}", style="bold"
    )

    from charrnn.training.machine import plan_here  # torch: more than a second
    from charrnn.training.trainer import Trainer

    plan = plan_here(len(text.ids), len(text.vocabulary), wishes)
    console.line(f"plan: {plan.summary}")
    for note in plan.notes:
        console.line(f"note: {note}")
    trainer = Trainer(text, plan)
    with _stopped_by_signals(trainer) as caught:
        finished = _watch(trainer, text, path, console)
    checkpoint.save(path, trainer.checkpoint)
    _verdict(finished, path, console)
    emit(f"{path}\n")
    if caught:
        raise typer.Exit(128 + caught[0])


def _watch(trainer: "Trainer", text: "Corpus", path: Path, console: Console) -> "Finished":
    """Shows a run as it goes, and saves the model whenever it is the best so far."""
    from charrnn import checkpoint
    from charrnn.training.trainer import Evaluation, Step

    previewed = started = time.monotonic()
    smooth = None
    with console.bar(total=1.0, layout=LAYOUT) as bar:
        for event in trainer.run():
            if isinstance(event, Step):
                smooth = event.nats if smooth is None else 0.98 * smooth + 0.02 * event.nats
                if console.lively:
                    pace = event.characters / (time.monotonic() - started)
                    bar.set_description_str(f"{bits(smooth):.3f} bits/char, {count(pace)} char/s", refresh=False)
                    bar.update(event.fraction - bar.n)
            elif isinstance(event, Evaluation):
                if event.best:
                    checkpoint.save(path, trainer.checkpoint)
                console.line(_evaluation_line(event))
                if console.lively and time.monotonic() - previewed >= PREVIEW_SECONDS:
                    previewed = time.monotonic()
                    console.passage(_preview(trainer, text))
            else:
                finished = event
    return finished


def _evaluation_line(event: "Evaluation") -> str:
    line = f"step {event.step:>6,}  epoch {event.epoch:>5.1f}  train {bits(event.train_nats):.3f}"
    if event.validation_nats is not None:
        line += f"  validation {bits(event.validation_nats):.3f}"
    return line + " bits/char" + ("  best" if event.best and event.validation_nats is not None else "")


def _preview(trainer: "Trainer", text: "Corpus") -> str:
    """A short sample of what the network writes by now; touches nothing that the training uses."""
    from charrnn.sampling.stepper import Stepper
    from charrnn.sampling.writer import write

    return "".join(write(Stepper(*trainer.latest()), text.vocabulary, PREVIEW))


def _verdict(finished: "Finished", path: Path, console: Console) -> None:
    """What came out, in plain words, and the next command to type."""
    if finished.validation_nats is None:
        quality = "not measured, for want of validation text"
    else:
        nats = finished.validation_nats
        quality = f"{bits(nats):.3f} bits per character ({nats:.3f} nats) on the validation text"
    improving = finished.late_gain >= STILL_IMPROVING
    outcome = {
        "done": "done, and still improving: a larger budget would make it better" if improving else "done",
        "overfitting": f"overfitting since epoch {finished.best_epoch:.1f}, where the best model was kept",
        "stuck": f"no longer improving since epoch {finished.best_epoch:.1f}; the best model was kept",
        "stopped": "stopped early; the best model so far was kept",
    }[finished.reason]
    console.line(f"{outcome}; {quality}, after {duration(finished.seconds)}", style="bold green")
    console.line(f"next: charrnn sample {_as_argument(path)} --temp 0.8")


def _as_argument(path: Path) -> str:
    """How a shell names this model most shortly."""
    from charrnn import checkpoint

    return shlex.quote(path.stem if path.parent == checkpoint.FOLDER else str(path))


@contextmanager
def _stopped_by_signals(trainer: "Trainer") -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM ends the run after the step at hand; a second one ends the program."""
    caught: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}  # as `&` may set

    def stop(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        trainer.stop = True
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
