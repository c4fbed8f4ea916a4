"""Lines that one or more models score as they come: what `score` and `classify` have in common."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from charrnn.checkpoint import Checkpoint
from charrnn.cli import eval_setup
from charrnn.cli.console import Console
from charrnn.config import TrainConfig, check_bytes
from charrnn.data.lines import Lines
from charrnn.evaluation.line_scores import LineScore, LineScorer

MAX_PRINTED_BYTES = 1 << 20  # bytes of a line that are printed
BATCH_BYTES = 1 << 18  # bytes of lines that are scored at once
MAX_WARNINGS = 5  # lines with something wrong about them that are named


def open_lines(file: str, encoding: str | None, models: Iterable[Checkpoint]) -> Lines:
    """The lines of a file, as some models read it; told at once if there is none.

    Raises:
        CorpusError: it cannot be read.
        SettingError: there is no such encoding, or no need for one.
    """
    units = {model.vocabulary.unit for model in models}
    for unit in units:
        check_bytes(unit, encoding)
    return Lines(file, MAX_PRINTED_BYTES, encoding, raw=units == {"byte"})


def load(models: Sequence[str]) -> dict[str, Checkpoint]:
    """Some models by their names.

    Raises:
        ModelFileError: there is none of that name, or it is damaged.
        SettingError: two of one name.
    """
    loaded = [eval_setup.load(model) for model in models]
    eval_setup.check_names([name for name, _ in loaded])
    return dict(loaded)


def scorers(
    models: Mapping[str, Checkpoint],
    expected: int | None,
    config: TrainConfig,
    *,
    carry: bool = False,
    per_symbol: bool = False,
) -> list[LineScorer]:
    """Return what scores lines by each of some models.

    Args:
        models: by their names.
        expected: characters that each will read, about, as far as that is known.
        config: device and threads.
        carry: as of `LineScorer`.
        per_symbol: as of `LineScorer`.

    Raises:
        SettingError: there is no such device, or the state cannot be carried.
    """
    return [
        LineScorer(model, eval_setup.scorer(model, expected or 0, config), carry=carry, per_symbol=per_symbol)
        for model in models.values()
    ]


def scored(lines: Lines, scorers: Sequence[LineScorer], console: Console) -> Iterator[list[tuple[LineScore, ...]]]:
    """The lines, some at a time, each as every scorer has it; says which ones are wrong."""
    wrong = 0
    with ExitStack() as stack:
        bar = None
        if not sys.stdout.isatty():  # where it would be in the way of the lines
            bar = stack.enter_context(console.bar(total=lines.size, unit="B"))
        for pieces in lines.batches(BATCH_BYTES):
            batch = list(zip(*(scorer.score(pieces) for scorer in scorers), strict=True))
            if bar is not None:
                bar.update(sum(len(piece.data) + piece.closed for piece in pieces))
            for scores in batch:
                told = next(filter(None, map(_warning, scores)), "")
                if told and (wrong := wrong + 1) <= MAX_WARNINGS:
                    more = "; more of them are only counted" if wrong == MAX_WARNINGS else ""
                    console.line(f"charrnn: {lines.name}, line {scores[0].number:,}: {told}{more}")
            yield batch
    if wrong > MAX_WARNINGS:
        console.line(f"charrnn: {lines.name}: {wrong - MAX_WARNINGS:,} more lines like these")


def _warning(line: LineScore) -> str:
    """What is not as it should be about a line."""
    if line.error:
        return f"{line.error}; scored as an unknown character"
    return (
        ""
        if line.complete
        else f"is very long; scored whole, but only its first {MAX_PRINTED_BYTES >> 20} MiB are printed"
    )
