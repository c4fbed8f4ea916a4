"""``charrnn bench``: what this machine gives, and what a text would take on it."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import corpus_options, options
from charrnn.cli.command import Only, command
from charrnn.cli.console import Console, escape_control, write_stdout
from charrnn.cli.corpus_options import TextOptions
from charrnn.config import ModelConfig, ReadConfig, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.units import format_duration
from charrnn.version import __version__

if TYPE_CHECKING:
    from charrnn.data.corpus import Corpus
    from charrnn.training.bench import BenchResult, HostInfo
    from charrnn.training.plan import Plan

SIZES = (64, 128, 256, 512)  # hidden units of two layers
LAYOUT = "{percentage:3.0f}% {bar} {desc}"
MINUTES = (None, 1.0)  # the budgets for which a text is planned
COLUMNS = (  # two lines each
    ("", "size"), ("", "parameters"), ("training", "char/s"), ("", "fastest with"), ("GFLOP", "/s"), ("of", "limit"),
    ("sampling", "char/s"),
)  # fmt: skip


EXAMPLES = """
charrnn bench                                        # speed of training and sampling for four sizes
charrnn bench book.txt                               # also plan to train on this text
"""


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of ``charrnn bench``."""

    corpus: Annotated[
        list[str] | None,
        typer.Argument(metavar="CORPUS", help="Also plan to train on this text.", show_default=False),
    ] = None
    hidden: Annotated[
        int | None,
        typer.Option(
            "--hidden", metavar="N", help=f"Hidden units of a layer.  [default: {', '.join(map(str, SIZES))}]"
        ),
    ] = None
    text: TextOptions
    overrides: Annotated[Overrides, Only("cell", *options.TEXT_SETTINGS, *options.MACHINE_SETTINGS)]
    json_: options.Json = False
    quiet: options.Quiet = False


@command
def bench(args: BenchOptions) -> None:
    """Measure how fast this machine trains and samples.

    It measures networks of a few sizes. The limit is the speed of matrix products on this machine. Training takes
    six operations per parameter and character. With a text, it also shows the plan of charrnn train for the given
    options, and for one minute.
    """
    overrides = args.text.apply_to(args.overrides)
    model, config = overrides.apply(ModelConfig()), overrides.apply(TrainConfig())
    models = [replace(model, hidden=size) for size in (SIZES if args.hidden is None else (args.hidden,))]

    console, text = Console(quiet=args.quiet), None
    if args.corpus:
        source = corpus_options.find_files(args.corpus, args.text.glob)
        text = corpus_options.read_corpus(source, overrides.apply(ReadConfig()), console)

    from charrnn.rnn.costs import save_costs
    from charrnn.training.autotune import measure_costs, plan_for_this_machine
    from charrnn.training.bench import Bench  # torch: more than a second

    workbench = Bench(config)
    speeds: list[BenchResult] = []
    plans: dict[str, Plan] = {}
    with console.bar(total=len(models) + (len(MINUTES) if text else 0), layout=LAYOUT) as bar:
        console.line(f"measuring: {workbench.host.processor}, {workbench.host.cores} cores")
        save_costs(measure_costs())  # by which the other commands choose between NumPy and what must be loaded
        for model in models:
            bar.set_description_str(f"{model.layers} x {model.hidden} {model.cell.upper()}")
            speeds.append(workbench.speed(model))
            bar.update()
        if text is not None:
            for minutes in MINUTES:
                budgeted = replace(overrides, minutes=minutes)
                line = _command(args.corpus or (), overrides) + (f" --minutes {minutes:g}" if minutes else "")
                bar.set_description_str(line)
                plans[line] = plan_for_this_machine(text, budgeted)
                bar.update()
    notes = [speed.note for speed in speeds] + [note for plan in plans.values() for note in plan.notes]
    for note in dict.fromkeys(filter(None, notes)):
        console.line(f"note: {note}")
    if args.json_:
        write_stdout(json.dumps(_facts(workbench.host, config, speeds, text, plans)) + "\n")
        return
    write_stdout("\n".join([*_heading(workbench.host, speeds), "", *_table(speeds), *_outlook(plans)]) + "\n")


def _command(corpus: Sequence[str], overrides: Overrides) -> str:
    """Return the command that trains with these settings."""
    words = corpus_options.cli_args(overrides.apply(ReadConfig()))
    for name, value in overrides.chosen():
        if not hasattr(ReadConfig, name):
            words += [options.flag(name), str(value)]
    return "charrnn train " + shlex.join([*corpus, *words])


def _facts(
    host: "HostInfo",
    config: TrainConfig,
    speeds: "list[BenchResult]",
    text: "Corpus | None",
    plans: "dict[str, Plan]",
) -> dict[str, Any]:
    """Everything measured; the same keys with a text and without."""
    from charrnn.training.bench import VOCABULARY

    return {
        "date": date.today().isoformat(),
        "charrnn": __version__,
        **asdict(host),
        "batch_size": config.batch_size,
        "seq_length": config.seq_length,
        "vocab_size": len(VOCABULARY),
        "speeds": [asdict(speed) for speed in speeds],
        "corpus": text and {"name": text.name, "characters": text.characters, "vocab_size": len(text.vocabulary)},
        "plans": [
            {"command": line, "epoch_seconds": plan.epoch_seconds, "summary": plan.summary, **asdict(plan)}
            for line, plan in plans.items()
        ],
    }


def _heading(host: "HostInfo", speeds: "list[BenchResult]") -> list[str]:
    limits = {speed.precision: f"{speed.precision} {speed.limit_gflops:,.0f} GFLOP/s" for speed in speeds}
    return [
        f"{escape_control(host.processor)}, {host.cores} cores, {host.device}",
        f"charrnn {__version__}, torch {host.torch}, {date.today().isoformat()}",
        f"{speeds[0].cell.upper()}s; the limit is a matrix product's {', '.join(limits.values())}",
    ]


def _table(speeds: "list[BenchResult]") -> list[str]:
    """Columns as wide as they need to be, numbers to the right."""
    rows = [*zip(*COLUMNS, strict=True), *map(_row, speeds)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _row(speed: "BenchResult") -> tuple[str, ...]:
    return (
        f"{speed.layers} x {speed.hidden}",
        f"{speed.parameters:,}",
        f"{speed.training_chars_per_second:,.0f}",
        f"{speed.precision} {speed.engine}, {speed.threads} thread" + ("s" if speed.threads > 1 else ""),
        f"{speed.gflops:,.0f}",
        f"{speed.share_of_limit:.0%}",
        f"{speed.sampling_chars_per_second:,.0f}",
    )


def _outlook(plans: "dict[str, Plan]") -> list[str]:
    lines = []
    for line, plan in plans.items():
        lines += ["", escape_control(line)]
        lines += [
            f"  {part}" for part in [*plan.summary.split("; "), f"{format_duration(plan.epoch_seconds)} an epoch"]
        ]
    return lines
