"""``charrnn classify``: which of some models finds a line least surprising."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from charrnn.cli import options
from charrnn.cli.command import Only, command
from charrnn.cli.console import Console, write_stdout
from charrnn.config import TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.errors import SettingError
from charrnn.units import nats_to_bits

if TYPE_CHECKING:
    from charrnn.evaluation.line_scores import LineScore


EXAMPLES = """
charrnn classify -m english -m german lines.txt      # the language of every line
tail -f app.log | charrnn classify -m web -m db      # label lines as they arrive
"""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions:
    """Options of ``charrnn classify``."""

    models: Annotated[
        list[str],
        typer.Option(
            "-m", "--model", metavar="MODEL", help="Model of one class; give two or more.", show_default=False
        ),
    ]
    file: options.LinesFile = "-"
    json_: options.Json = False
    overrides: Annotated[Overrides, Only("encoding", *options.MACHINE_SETTINGS)]
    quiet: options.Quiet = False


@command
def classify(args: ClassifyOptions) -> None:
    """Label every line with the model that finds it least surprising.

    The output is LABEL, a tab, and the line. The label is the name of a model. Train one model for every class, such
    as a language, an author or the source of a log. --json adds the bits of the line under every model, and the
    margin of the best model.
    """
    if len(args.models) < 2:
        raise SettingError("model", "given once, so that every line would get the same label", "give two or more")
    from charrnn.cli import line_scoring

    console, classes = Console(quiet=args.quiet), line_scoring.load(args.models)
    lines = line_scoring.open_lines(args.file, args.overrides.encoding, classes.values())
    scorers = line_scoring.scorers(classes, lines.size, args.overrides.apply(TrainConfig()))
    for batch in line_scoring.scored(lines, scorers, console):
        write_stdout(
            b"".join(_labelled(dict(zip(classes, scores, strict=True)), as_json=args.json_) for scores in batch)
        )


def _labelled(scores: "dict[str, LineScore]", *, as_json: bool) -> bytes:
    """What is printed of a line."""
    from charrnn.cli.json_output import text_fields

    best, second, *_ = sorted(scores, key=lambda name: scores[name].nats)
    line = scores[best]
    if not as_json:
        return b"%b\t%b\n" % (best.encode("utf-8", "surrogateescape"), line.data)
    costs = {name: round(nats_to_bits(score.nats), 6) for name, score in scores.items()}
    facts = {
        "line": line.number, **text_fields(line.data), "label": best,
        "margin_bits": round(costs[second] - costs[best], 6), "bits": costs,
        "unknown": {name: score.unknown for name, score in scores.items()},
    } | ({"error": line.error} if line.error else {})  # fmt: skip
    return json.dumps(facts, ensure_ascii=False).encode() + b"\n"
