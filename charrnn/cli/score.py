"""``charrnn score``: how surprising each line is to a model."""

import heapq
import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import options
from charrnn.cli.command import Only, command
from charrnn.cli.console import Console, write_stdout
from charrnn.config import TrainConfig
from charrnn.config.checks import Integer
from charrnn.config.overrides import Overrides
from charrnn.config.settings import Option, setting
from charrnn.errors import SettingError
from charrnn.units import nats_to_bits

if TYPE_CHECKING:
    from charrnn.evaluation.line_scores import LineScore

_ScoredLine = tuple[float, bytes]  # the score, and the output for the line


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options of ``charrnn score``."""

    model: options.Model
    file: options.LinesFile = "-"
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="X", help="Only lines that score X or more.", show_default=False),
    ] = None
    top: int | None = setting(None, Integer(1), Option("Only the N strangest lines, the strangest first.", "N"))
    sort: Annotated[bool, typer.Option("--sort", help="The strangest lines first.")] = False
    total: Annotated[bool, typer.Option("--total", help="Score each line as a whole, not by the character.")] = False
    nats: Annotated[bool, typer.Option("--nats", help="In nats, not in bits.")] = False
    carry: Annotated[bool, typer.Option("--carry", help="The state runs on from line to line.")] = False
    chars: Annotated[bool, typer.Option("--chars", help="With --json, the surprise of each character, too.")] = False
    json_: options.Json = False
    overrides: Annotated[Overrides, Only("encoding", *options.MACHINE_SETTINGS)]
    quiet: options.Quiet = False


@command
def score(args: ScoreOptions) -> None:
    """Say how surprising each line is to a model.

    What is printed is SCORE, a tab, and the line. A score is in bits per character, the end of the line counted as
    one. Lines are printed as they come, so that this may stand behind `tail -f`; with --top or --sort once all of
    them came. A character that the model never saw, or a byte that is no UTF-8, costs 20.1 bits, a blind guess among
    all of Unicode. With --carry --total the scores of a text that the model knows every character of add up to what
    `charrnn eval` says of it.
    """
    if args.chars and not args.json_:
        raise SettingError("chars", "given without --json", "add --json")
    if args.top is not None and args.sort:
        raise SettingError("sort", "given together with --top, which sorts already", "leave it out")

    def format_line(line: "LineScore") -> _ScoredLine:
        nats = line.nats if args.total else line.nats_per_char
        value = nats if args.nats else nats_to_bits(nats)
        return value, _record(line, nats=args.nats) if args.json_ else b"%.4f\t%b\n" % (value, line.data)

    from charrnn.cli import line_scoring

    console, models = Console(quiet=args.quiet), line_scoring.load_models([args.model])
    lines = line_scoring.open_lines(args.file, args.overrides.encoding, models.values())
    config = args.overrides.apply(TrainConfig())
    scorers = line_scoring.make_scorers(models, lines.size, config, carry=args.carry, per_symbol=args.chars)
    batches = (
        [
            scored
            for scored in map(format_line, (line for (line,) in batch))
            if args.threshold is None or scored[0] >= args.threshold
        ]
        for batch in line_scoring.score_lines(lines, scorers, console)
    )
    if args.sort:
        _write_sorted(batches)
    elif args.top is not None:
        top = heapq.nlargest(args.top, chain.from_iterable(batches), key=lambda scored: scored[0])
        write_stdout(b"".join(line for _, line in top))
    else:
        for batch in batches:
            write_stdout(b"".join(line for _, line in batch))


def _record(line: "LineScore", *, nats: bool) -> bytes:
    """Return the score of a line as a line of JSON."""
    from charrnn.cli.json_output import symbol_name, text_fields

    unit, factor = ("nats", 1.0) if nats else ("bits", nats_to_bits(1))
    record: dict[str, Any] = {
        "line": line.number, **text_fields(line.data), f"{unit}_per_char": round(line.nats_per_char * factor, 6),
        unit: round(line.nats * factor, 6), "characters": line.num_predictions, "unknown": line.unknown,
    }  # fmt: skip
    if line.error:
        record["error"] = line.error
    if line.surprisals:
        record["chars"] = [
            [symbol_name(symbol), round(surprisal * factor, 6)] for symbol, surprisal in line.surprisals
        ]
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _write_sorted(batches: Iterable[list[_ScoredLine]]) -> None:
    """Write all lines, the highest scores first. The lines are stored in a temporary file, not in memory."""
    import numpy as np

    scores, offsets = array("d"), array("q", [0])  # line i occupies bytes offsets[i] to offsets[i + 1]
    with tempfile.TemporaryFile() as file:
        for batch in batches:
            for value, line in batch:
                scores.append(value)
                offsets.append(offsets[-1] + len(line))
            file.write(b"".join(line for _, line in batch))

        def read_lines(indices: Iterable[int]) -> Iterator[bytes]:
            for index in indices:
                file.seek(offsets[index])
                yield file.read(offsets[index + 1] - offsets[index])

        order = np.argsort(-np.array(scores), kind="stable")
        for start in range(0, len(order), 1000):
            write_stdout(b"".join(read_lines(order[start : start + 1000].tolist())))
