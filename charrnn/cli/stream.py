"""Lines that one or more models score as they come: what `score` and `classify` have in common."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from charrnn.cli import measuring
from charrnn.cli.console import Console
from charrnn.config import ReadConfig
from charrnn.evaluation.scores import LineScore, Scorer
from charrnn.text.lines import Lines

LONGEST = 1 << 20  # bytes of a line that are printed
BATCH = 1 << 18  # bytes of lines that are scored at once
TOLD = 5  # lines with something wrong about them that are named


def open_lines(file: str, encoding: str | None) -> Lines:
    """The lines of a file; told at once if there is none.

    Raises:
        CorpusError: it cannot be read.
        SettingError: there is no such encoding.
    """
    return Lines(file, LONGEST, ReadConfig(encoding=encoding).encoding)


def scorers(
    models: Sequence[str], expected: int | None, device: str | None, threads: int | None, **ways: bool
) -> dict[str, Scorer]:
    """What scores lines by each of some models, by their names; of two with the same name the last.

    Args:
        models: as the user names them.
        expected: characters that each will read, about, as far as that is known.
        device: as the user says.
        threads: likewise.
        ways: of `Scorer`.

    Raises:
        CharrnnError: one cannot be loaded.
    """
    loaded = {name: contents for name, contents in map(measuring.load, models)}
    return {
        name: Scorer(contents, measuring.reader(contents, expected or 0, device, threads), **ways)
        for name, contents in loaded.items()
    }


def scored(lines: Lines, scorers: Sequence[Scorer], console: Console) -> Iterator[list[tuple[LineScore, ...]]]:
    """The lines, some at a time, each as every scorer has it; says which ones are wrong."""
    wrong = 0
    with ExitStack() as stack:
        bar = None
        if not sys.stdout.isatty():  # where it would be in the way of the lines
            bar = stack.enter_context(console.bar(total=lines.size, unit="B"))
        for pieces in lines.batches(BATCH):
            batch = list(zip(*(scorer.score(pieces) for scorer in scorers), strict=True))
            if bar is not None:
                bar.update(sum(len(piece.data) + piece.closed for piece in pieces))
            for line, *_ in batch:
                if (told := _wrong(line)) and (wrong := wrong + 1) <= TOLD:
                    console.line(f"charrnn: {lines.name}, line {line.number:,}: {told}")
            yield batch
    if wrong > TOLD:
        console.line(f"charrnn: {lines.name}: {wrong - TOLD:,} more lines like these")


def _wrong(line: LineScore) -> str:
    """What is not as it should be about a line."""
    if line.wrong:
        return f"{line.wrong}; scored as far as that"
    return "" if line.shown else f"is very long; scored whole, but only its first {LONGEST >> 20} MiB are printed"
