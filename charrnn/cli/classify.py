"""``charrnn classify``: label each line with the model that predicts it best."""

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

    The output is LABEL, a tab, and the line. The label is the name of a model. Train one model for each class, such
    as a language, an author or the source of a log. --json adds the bits of the line under each model, and the
    margin of the best model.
    """
    if len(args.models) < 2:
        reason = "given only once, so every line would get the same label"
        raise SettingError("model", reason, "give one for each class")
    from charrnn.cli import line_scoring

    console, models = Console(quiet=args.quiet), line_scoring.load_models(args.models)
    lines = line_scoring.open_lines(args.file, args.overrides.encoding, models.values())
    scorers = line_scoring.make_scorers(models, lines.size, args.overrides.apply(TrainConfig()))
    for batch in line_scoring.score_lines(lines, scorers, console):
        write_stdout(
            b"".join(_format_line(dict(zip(models, scores, strict=True)), as_json=args.json_) for scores in batch)
        )


def _format_line(scores: "dict[str, LineScore]", *, as_json: bool) -> bytes:
    """Return a line with its label as it is printed, given its scores by model name."""
    from charrnn.cli.json_output import text_fields

    best, second, *_ = sorted(scores, key=lambda name: scores[name].nats)
    line = scores[best]
    if not as_json:
        return b"%b\t%b\n" % (best.encode("utf-8", "surrogateescape"), line.data)
    costs = {name: round(nats_to_bits(score.nats), 6) for name, score in scores.items()}
    record = {
        "line": line.number, **text_fields(line.data), "label": best,
        "margin_bits": round(costs[second] - costs[best], 6), "bits": costs,
        "unknown": {name: score.unknown for name, score in scores.items()},
    } | ({"error": line.error} if line.error else {})  # fmt: skip
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"
