"""Progress of a training run: progress bar, evaluations, previews, saves, and the result at the end."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from charrnn import checkpoint
from charrnn.cli.console import Console
from charrnn.cli.signals import Signals
from charrnn.config import SampleConfig
from charrnn.training.checkpointing import Checkpointer
from charrnn.training.events import Evaluation, Finished, RolledBack, Step
from charrnn.training.run_state import Run
from charrnn.training.trainer import Trainer
from charrnn.units import format_count, format_duration, nats_to_bits

PREVIEW = SampleConfig(length=240, temperature=0.8, seed=0)
PREVIEW_SECONDS = 20.0  # minimum time between two previews
STILL_IMPROVING = 0.005  # nats; a larger gain in the last fifth of a run means that it is still improving
BAR_FORMAT = "{percentage:3.0f}% {bar} {desc}"


def run_with_progress(
    trainer: Trainer, run: Run, checkpointer: Checkpointer, signals: Signals, console: Console
) -> Finished:
    """Run the training, show its progress, and save it.

    Raises:
        FileError: If the run cannot be saved.
    """
    last_preview, smooth_nats, start, changed = time.monotonic(), None, None, ""
    signals.attach(trainer)
    with console.bar(total=1.0, bar_format=BAR_FORMAT) as bar:
        for event in trainer.run():
            if isinstance(event, Step):
                smooth_nats = event.nats if smooth_nats is None else 0.98 * smooth_nats + 0.02 * event.nats
                if start is None:
                    start = trainer.seconds, event.characters  # a resumed run has read some before
                elif console.interactive:
                    seconds = trainer.seconds
                    speed = (event.characters - start[1]) / max(seconds - start[0], 1e-9)
                    left = seconds * (1 - event.fraction) / event.fraction
                    bar.set_description_str(
                        f"{nats_to_bits(smooth_nats):.3f} bits/char, {format_count(speed)} char/s, "
                        f"{format_duration(left)} left",
                        refresh=False,
                    )
                    bar.update(event.fraction - bar.n)
            elif isinstance(event, RolledBack):
                console.line(
                    f"note: the loss is {event.nats} at step {event.step:,}; going back to step {event.back_to:,} "
                    f"with a learning rate of {event.learning_rate:.2g}"
                )
            elif isinstance(event, Finished):
                finished = event
            if checkpointer.save_if_due(run, trainer, event, force=signals.save_requested):
                if signals.save_requested:
                    signals.save_requested = False
                    console.line("note: saved on request")
                if not changed and (changed := trainer.corpus.changed()):
                    console.line(
                        f"note: {changed} has changed since it was read; the run continues with the text as it was"
                    )
            if isinstance(event, Evaluation):
                console.line(_evaluation_line(event))
                if console.interactive and time.monotonic() - last_preview >= PREVIEW_SECONDS:
                    last_preview = time.monotonic()
                    console.quote(_preview(trainer, run, signals))
    return finished


def _evaluation_line(event: Evaluation) -> str:
    line = f"step {event.step:>6,}  epoch {event.epoch:>5.1f}  train {nats_to_bits(event.train_nats):.3f}"
    if event.validation_nats is not None:
        line += f"  validation {nats_to_bits(event.validation_nats):.3f}"
    return line + " bits/char" + ("  best" if event.best and event.validation_nats is not None else "")


def _preview(trainer: Trainer, run: Run, signals: Signals) -> str:
    """Return a short sample from the current network. It does not affect the training."""
    from charrnn.data.vocabulary import to_text
    from charrnn.generation.generate import generate
    from charrnn.rnn.numpy_rnn import NumPyRNN

    network, text = NumPyRNN(*trainer.latest(), "fp32"), ""
    for number in range(PREVIEW.length):
        config = replace(PREVIEW, length=PREVIEW.length - len(text), seed=number)
        for new_text, _ in generate(network, run.vocabulary, config):
            if signals.received:
                return text
            text += new_text
        text += "\n"
        if len(text) >= PREVIEW.length:  # a short document leaves room for another one
            break
    return to_text(text[:-1], run.vocabulary.unit)


def print_result(finished: Finished, path: Path, resume: str, console: Console) -> None:
    """Print the result of a run and the next command to type.

    Args:
        finished: Result of the run.
        path: Path of the model.
        resume: Command that resumes the run.
        console: Console to print to.
    """
    if finished.validation_nats is None:
        quality = "not evaluated yet"
        if finished.best_step:
            quality = "no validation text, so its quality on other text is unknown"
    else:
        nats = finished.validation_nats
        quality = f"{nats_to_bits(nats):.3f} bits per character ({nats:.3f} nats) on the validation text"
    improving = finished.late_gain >= STILL_IMPROVING
    outcome = {
        "done": "done, and still improving: a larger budget would give a better model" if improving else "done",
        "overfitting": f"ended early: overfitting since epoch {finished.best_epoch:.1f}, best model saved",
        "stuck": f"ended early: no improvement since epoch {finished.best_epoch:.1f}, best model saved",
        "stopped": f"stopped at step {finished.step:,}, everything saved",
    }[finished.outcome]
    console.line(f"{outcome}; {quality}, after {format_duration(finished.seconds)}", style="bold green")
    if finished.outcome == "stopped":
        console.line(f"resume: {resume}")
    console.line(f"next: charrnn sample {as_argument(path)} --temp 0.8")


def resume_command(corpus: Sequence[str], path: Path, options: Sequence[str] = ()) -> str:
    """Return the command that resumes the run of a model, with the options that select its text."""
    texts = " ".join(file if file == "-" else _quote(file) for file in corpus)
    texts += " < THE_SAME_TEXT" if "-" in corpus else ""
    return " ".join(["charrnn train --resume -o", as_argument(path), *map(shlex.quote, options), texts])


def as_argument(path: Path) -> str:
    """Return the shortest command-line argument that names a model."""
    is_bare = path.parent == checkpoint.CHECKPOINT_DIR and not path.stem.startswith("-")
    return _quote(path.stem if is_bare else str(path))


def _quote(text: str) -> str:
    """Return an argument quoted for a shell, so that it is not read as an option."""
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
