"""What a person sees of a run: a bar, a line per evaluation, a preview now and then, a verdict. Has it saved."""

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
PREVIEW_SECONDS = 20.0  # at least this long from one preview to the next
STILL_IMPROVING = 0.005  # nats gained in the last fifth of a run
LAYOUT = "{percentage:3.0f}% {bar} {desc}, {remaining} left"


def run_with_progress(
    trainer: Trainer, run: Run, checkpointer: Checkpointer, signals: Signals, console: Console
) -> Finished:
    """Shows a run as it goes, and has it saved.

    Raises:
        FileError: it cannot be saved any more.
    """
    previewed = started = time.monotonic()
    smooth, read_before, changed = None, None, ""
    signals.attach(trainer)
    with console.bar(total=1.0, layout=LAYOUT) as bar:
        for event in trainer.run():
            if isinstance(event, Step):
                smooth = event.nats if smooth is None else 0.98 * smooth + 0.02 * event.nats
                if read_before is None:
                    read_before = event.characters  # resumed: the pace is that of today
                if console.interactive:
                    pace = (event.characters - read_before) / (time.monotonic() - started)
                    bar.set_description_str(
                        f"{nats_to_bits(smooth):.3f} bits/char, {format_count(pace)} char/s", refresh=False
                    )
                    bar.update(event.fraction - bar.n)
            elif isinstance(event, RolledBack):
                told = f"the loss is {event.nats} at step {event.step:,}, so back to step {event.back_to:,}"
                console.line(f"note: {told} with a learning rate of {event.learning_rate:.2g}")
            elif isinstance(event, Finished):
                finished = event
            if checkpointer.save_if_due(run, trainer, event, force=signals.save_requested):
                if signals.save_requested:
                    signals.save_requested = False
                    console.line("note: saved, as asked")
                if not changed and (changed := trainer.corpus.changed()):
                    console.line(
                        f"note: {changed} is not what it was when it was read; the run goes on with what it was"
                    )
            if isinstance(event, Evaluation):
                console.line(_evaluation_line(event))
                if console.interactive and time.monotonic() - previewed >= PREVIEW_SECONDS:
                    previewed = time.monotonic()
                    console.quote(_preview(trainer, run, signals))
    return finished


def _evaluation_line(event: Evaluation) -> str:
    line = f"step {event.step:>6,}  epoch {event.epoch:>5.1f}  train {nats_to_bits(event.train_nats):.3f}"
    if event.validation_nats is not None:
        line += f"  validation {nats_to_bits(event.validation_nats):.3f}"
    return line + " bits/char" + ("  best" if event.best and event.validation_nats is not None else "")


def _preview(trainer: Trainer, run: Run, signals: Signals) -> str:
    """A short sample of what the network writes by now; touches nothing that the training uses."""
    from charrnn.data.vocabulary import to_text
    from charrnn.generation.generate import generate
    from charrnn.rnn.numpy_rnn import NumPyRNN

    network, text = NumPyRNN(*trainer.latest(), "fp32"), ""
    for number in range(PREVIEW.length):
        config = replace(PREVIEW, length=PREVIEW.length - len(text), seed=number)
        for piece, _ in generate(network, run.vocabulary, config):
            if signals.received:
                return text
            text += piece
        text += "\n"
        if len(text) >= PREVIEW.length:  # or it was a document, and there is room for another one
            break
    return to_text(text[:-1], run.vocabulary.unit)


def print_verdict(finished: Finished, path: Path, again: str, console: Console) -> None:
    """What came out, in plain words, and the next command to type; ``again`` is the one that resumes the run."""
    if finished.validation_nats is None:
        quality = "not measured so far"
        if finished.best_step:
            quality = "too little text to hold any out, so that nobody knows how it does on other text"
    else:
        nats = finished.validation_nats
        quality = f"{nats_to_bits(nats):.3f} bits per character ({nats:.3f} nats) on the validation text"
    improving = finished.late_gain >= STILL_IMPROVING
    outcome = {
        "done": "done, and still improving: a larger budget would make it better" if improving else "done",
        "overfitting": f"overfitting since epoch {finished.best_epoch:.1f}, where the best model was kept",
        "stuck": f"no longer improving since epoch {finished.best_epoch:.1f}; the best model was kept",
        "stopped": f"stopped at step {finished.step:,}, and everything saved",
    }[finished.outcome]
    console.line(f"{outcome}; {quality}, after {format_duration(finished.seconds)}", style="bold green")
    if finished.outcome == "stopped":
        console.line(f"go on: {again}")
    console.line(f"next: charrnn sample {as_argument(path)} --temp 0.8")


def resume_command(corpus: Sequence[str], path: Path, options: Sequence[str] = ()) -> str:
    """The command that goes on with the run of a model, with the options by which its text is found."""
    texts = " ".join(word if word == "-" else _word(word) for word in corpus)
    texts += " < THE_SAME_TEXT" if "-" in corpus else ""
    return " ".join(["charrnn train --resume -o", as_argument(path), *map(shlex.quote, options), texts])


def as_argument(path: Path) -> str:
    """How a shell names this model most shortly."""
    short = path.parent == checkpoint.CHECKPOINT_DIR and not path.stem.startswith("-")
    return _word(path.stem if short else str(path))


def _word(text: str) -> str:
    """As a word of a shell, and no option."""
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
