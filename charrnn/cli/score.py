"""``charrnn score``: how surprising each line is to a model."""

import heapq
import json
import math
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
from charrnn.config.checks import Integer, Range
from charrnn.config.overrides import Overrides
from charrnn.config.settings import Option, setting
from charrnn.errors import SettingError
from charrnn.units import nats_to_bits

if TYPE_CHECKING:
    from charrnn.evaluation.line_scores import LineScore

_ScoredLine = tuple[float, bytes]  # the score, and the output for the line


EXAMPLES = """
charrnn score book lines.txt --sort | head           # the ten most surprising lines
tail -f app.log | charrnn score app --threshold 5    # print unusual lines of a log as they arrive
"""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options of ``charrnn score``."""

    model: options.Model
    file: options.LinesFile = "-"
    threshold: float | None = setting(
        None, Range(-math.inf, math.inf, "a number"), Option("Print only lines with a score of X or more.", "X")
    )
    top: int | None = setting(
        None, Integer(1), Option("Print only the N most surprising lines, most surprising first.", "N")
    )
    sort: Annotated[bool, typer.Option("--sort", help="Print the most surprising lines first.")] = False
    total: Annotated[
        bool, typer.Option("--total", help="Print the sum over the line, not the mean per character.")
    ] = False
    nats: Annotated[bool, typer.Option("--nats", help="Print nats instead of bits.")] = False
    carry: Annotated[bool, typer.Option("--carry", help="Carry the state from line to line.")] = False
    chars: Annotated[
        bool, typer.Option("--chars", help="With --json: also print the surprisal of every character.")
    ] = False
    json_: options.Json = False
    overrides: Annotated[Overrides, Only("encoding", *options.MACHINE_SETTINGS)]
    quiet: options.Quiet = False


@command
def score(args: ScoreOptions) -> None:
    """Print how surprising every line is to a model.

    The output is SCORE, a tab, and the line. A score is in bits per character; the end of the line counts as one
    character. Lines are printed as they arrive, or with --top and --sort at the end of the input. A character that
    the model does not know, or a byte that is not UTF-8, costs 20.1 bits: a uniform guess among all code points of
    Unicode. If the model knows all characters, the scores of --carry --total sum to the bits per character of
    charrnn eval, times the number of characters.
    """
    if args.chars and not args.json_:
        raise SettingError("chars", "given without --json", "add --json")
    if args.top is not None and args.sort:
        raise SettingError("sort", "cannot be combined with --top", "give one of them")

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
    """Write all lines, those with the highest scores first. They are kept in a temporary file, not in memory."""
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
