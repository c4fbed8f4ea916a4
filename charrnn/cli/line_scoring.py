"""Scores lines with one or more models, for ``score`` and ``classify``."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from charrnn.checkpoint import Checkpoint
from charrnn.cli import eval_setup
from charrnn.cli.console import Console
from charrnn.config import TrainConfig, check_bytes
from charrnn.data.lines import Lines
from charrnn.evaluation.line_scores import LineScore, LineScorer

MAX_PRINTED_BYTES = 1 << 20  # the rest of a longer line is scored but not printed
BATCH_BYTES = 1 << 18  # lines scored in one batch
MAX_WARNINGS = 5  # further lines with problems are only counted


def open_lines(file: str, encoding: str | None, models: Iterable[Checkpoint]) -> Lines:
    """Open the lines of a file, decoded as the models require.

    Raises:
        CorpusError: If the file cannot be read.
        SettingError: If the encoding is unknown, or given for a model of bytes.
    """
    units = {model.vocabulary.unit for model in models}
    for unit in units:
        check_bytes(unit, encoding)
    return Lines(file, MAX_PRINTED_BYTES, encoding, raw=units == {"byte"})


def load_models(models: Sequence[str]) -> dict[str, Checkpoint]:
    """Load models and return them by name.

    Raises:
        ModelFileError: If a model does not exist or is damaged.
        SettingError: If two models have the same name.
    """
    loaded = [eval_setup.load_model(model) for model in models]
    eval_setup.check_names([name for name, _ in loaded])
    return dict(loaded)


def make_scorers(
    models: Mapping[str, Checkpoint],
    num_characters: int | None,
    config: TrainConfig,
    *,
    carry: bool = False,
    per_symbol: bool = False,
) -> list[LineScorer]:
    """Return a scorer of lines for each model.

    Args:
        models: Models by name.
        num_characters: Approximate length of the text; None if unknown.
        config: Device and number of threads.
        carry: Whether the state is carried from line to line.
        per_symbol: Whether to return the surprisal of every symbol.

    Raises:
        SettingError: If the device is not available, or the state cannot be carried.
    """
    size = num_characters or 0
    return [
        LineScorer(model, eval_setup.make_scorer(model, size, config), carry=carry, per_symbol=per_symbol)
        for model in models.values()
    ]


def score_lines(
    lines: Lines, scorers: Sequence[LineScorer], console: Console
) -> Iterator[list[tuple[LineScore, ...]]]:
    """Yield batches of lines as they arrive, with one score per scorer. Warn about lines with problems."""
    num_warnings = 0
    with ExitStack() as stack:
        bar = None
        if not sys.stdout.isatty():  # on a terminal, the bar would mix with the lines
            bar = stack.enter_context(console.bar(total=lines.size, unit="B"))
        for fragments in lines.batches(BATCH_BYTES):
            batch = list(zip(*(scorer.score(fragments) for scorer in scorers), strict=True))
            if bar is not None:
                bar.update(sum(len(fragment.data) + fragment.closed for fragment in fragments))
            for scores in batch:
                warning = next(filter(None, map(_warning, scores)), "")
                if warning and (num_warnings := num_warnings + 1) <= MAX_WARNINGS:
                    more = "; further warnings are only counted" if num_warnings == MAX_WARNINGS else ""
                    console.line(f"charrnn: {lines.name}, line {scores[0].number:,}: {warning}{more}")
            yield batch
    if num_warnings > MAX_WARNINGS:
        console.line(f"charrnn: {lines.name}: {num_warnings - MAX_WARNINGS:,} more lines with such problems")


def _warning(line: LineScore) -> str:
    """Return a warning about a line, or an empty string."""
    if line.error:
        return f"{line.error}; scored as an unknown character"
    if line.complete:
        return ""
    return f"is very long; all of it is scored, but only the first {MAX_PRINTED_BYTES >> 20} MiB is printed"
