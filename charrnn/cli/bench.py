"""``charrnn bench``: the speed of this machine, and the training plan for a text."""

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

SIZES = (64, 128, 256, 512)  # hidden units of the networks to measure
BAR_FORMAT = "{percentage:3.0f}% {bar} {desc}"
BUDGETS = (None, 1.0)  # minutes; None is the planned budget
COLUMNS = (  # headings of two lines
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
        typer.Argument(metavar="CORPUS", help="Also show the plan for this text.", show_default=False),
    ] = None
    hidden: Annotated[
        int | None,
        typer.Option(
            "--hidden", metavar="N", help=f"Hidden units per layer.  [default: {', '.join(map(str, SIZES))}]"
        ),
    ] = None
    text: TextOptions
    overrides: Annotated[Overrides, Only("cell", *options.TEXT_SETTINGS, *options.MACHINE_SETTINGS)]
    json_: options.Json = False
    quiet: options.Quiet = False


@command
def bench(args: BenchOptions) -> None:
    """Measure how fast this machine trains and samples.

    Networks of a few sizes are measured. Training takes six operations per parameter and character. The limit is the
    speed of matrix products on this machine. With a text, the plan of charrnn train for the given options is shown,
    and the plan for one minute.
    """
    overrides = args.text.apply_to(args.overrides)
    model, config = overrides.apply(ModelConfig()), overrides.apply(TrainConfig())
    models = [replace(model, hidden=size) for size in (SIZES if args.hidden is None else (args.hidden,))]

    console, corpus = Console(quiet=args.quiet), None
    if args.corpus:
        source = corpus_options.find_files(args.corpus, args.text.glob)
        corpus = corpus_options.read_corpus(source, overrides.apply(ReadConfig()), console)

    from charrnn.rnn.costs import save_costs
    from charrnn.training.autotune import measure_costs, plan_for_this_machine
    from charrnn.training.bench import Bench  # imports torch, which takes more than a second

    benchmark = Bench(config)
    benchmark.check_memory(models, () if args.hidden is None else ("hidden",))
    results: list[BenchResult] = []
    plans: dict[str, Plan] = {}
    with console.bar(total=len(models) + (len(BUDGETS) if corpus else 0), bar_format=BAR_FORMAT) as bar:
        console.line(f"measuring: {benchmark.host.processor}, {benchmark.host.cores} cores")
        save_costs(measure_costs())  # other commands use them to choose a backend
        for model in models:
            bar.set_description_str(f"{model.layers} x {model.hidden} {model.cell.upper()}")
            results.append(benchmark.speed(model))
            bar.update()
        if corpus is not None:
            for minutes in BUDGETS:
                command_line = _train_command(args.corpus or (), overrides)
                command_line += f" --minutes {minutes:g}" if minutes else ""
                bar.set_description_str(command_line)
                plans[command_line] = plan_for_this_machine(corpus, replace(overrides, minutes=minutes))
                bar.update()
    notes = [result.note for result in results] + [note for plan in plans.values() for note in plan.notes]
    for note in dict.fromkeys(filter(None, notes)):
        console.line(f"note: {note}")
    if args.json_:
        write_stdout(json.dumps(_record(benchmark.host, config, results, corpus, plans)) + "\n")
        return
    lines = [*_heading(benchmark.host, results), "", *_table(results), *_plan_lines(plans)]
    write_stdout("\n".join(lines) + "\n")


def _train_command(corpus: Sequence[str], overrides: Overrides) -> str:
    """Return the command that trains with these settings."""
    words = corpus_options.cli_args(overrides.apply(ReadConfig()))
    for name, value in overrides.chosen():
        if not hasattr(ReadConfig, name):
            words += [options.flag(name), str(value)]
    return "charrnn train " + shlex.join([*corpus, *words])


def _record(
    host: "HostInfo",
    config: TrainConfig,
    results: "list[BenchResult]",
    corpus: "Corpus | None",
    plans: "dict[str, Plan]",
) -> dict[str, Any]:
    """Return all measurements as JSON data. The keys are the same with and without a text."""
    from charrnn.training.bench import VOCABULARY

    return {
        "date": date.today().isoformat(),
        "charrnn": __version__,
        **asdict(host),
        "batch_size": config.batch_size,
        "seq_length": config.seq_length,
        "vocab_size": len(VOCABULARY),
        "speeds": [asdict(result) for result in results],
        "corpus": corpus
        and {"name": corpus.name, "characters": corpus.characters, "vocab_size": len(corpus.vocabulary)},
        "plans": [
            {"command": command_line, "epoch_seconds": plan.epoch_seconds, "summary": plan.summary, **asdict(plan)}
            for command_line, plan in plans.items()
        ],
    }


def _heading(host: "HostInfo", results: "list[BenchResult]") -> list[str]:
    limits = {result.precision: f"{result.precision} {result.limit_gflops:,.0f} GFLOP/s" for result in results}
    return [
        f"{escape_control(host.processor)}, {host.cores} cores, {host.device}",
        f"charrnn {__version__}, torch {host.torch}, {date.today().isoformat()}",
        f"{results[0].cell.upper()} networks; limit (a large matrix product): {', '.join(limits.values())}",
    ]


def _table(results: "list[BenchResult]") -> list[str]:
    """Return the lines of a table with right-aligned columns."""
    rows = [*zip(*COLUMNS, strict=True), *map(_row, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _row(result: "BenchResult") -> tuple[str, ...]:
    return (
        f"{result.layers} x {result.hidden}",
        f"{result.parameters:,}",
        f"{result.training_chars_per_second:,.0f}",
        f"{result.precision} {result.engine}, {result.threads} thread" + ("s" if result.threads > 1 else ""),
        f"{result.gflops:,.0f}",
        f"{result.share_of_limit:.0%}",
        f"{result.sampling_chars_per_second:,.0f}",
    )


def _plan_lines(plans: "dict[str, Plan]") -> list[str]:
    lines = []
    for command_line, plan in plans.items():
        parts = [*plan.summary.split("; "), f"{format_duration(plan.epoch_seconds)} per epoch"]
        lines += ["", escape_control(command_line), *(f"  {part}" for part in parts)]
    return lines
