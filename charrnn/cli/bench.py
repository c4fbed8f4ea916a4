"""``charrnn bench``: what this machine gives, and what a text would take on it."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import corpus_options, options
from charrnn.cli.console import Console, emit, printable
from charrnn.config import ModelConfig, ReadConfig, TrainConfig
from charrnn.units import duration
from charrnn.version import __version__

if TYPE_CHECKING:
    from charrnn.data.corpus import Corpus
    from charrnn.training.bench import Host, Speed
    from charrnn.training.plan import Plan

SIZES = (64, 128, 256, 512)  # hidden units of two layers
LAYOUT = "{percentage:3.0f}% {bar} {desc}"
BUDGETS: tuple[dict[str, Any], ...] = ({}, {"minutes": 1})  # those a text is planned for
COLUMNS = (  # two lines each
    ("", "size"), ("", "parameters"), ("training", "char/s"), ("", "fastest with"), ("GFLOP", "/s"), ("of", "limit"),
    ("sampling", "char/s"),
)  # fmt: skip


def bench(
    corpus: Annotated[
        list[str] | None,
        typer.Argument(metavar="CORPUS", help="Also plan to train on this text.", show_default=False),
    ] = None,
    cell: Annotated[
        str | None, typer.Option("--cell", metavar="lstm|gru|rnn", help="Kind of memory.  [default: lstm]")
    ] = None,
    hidden: Annotated[
        int | None,
        typer.Option(
            "--hidden", metavar="N", help=f"Units of a layer.  [default: {', '.join(map(str, SIZES))} in turn]"
        ),
    ] = None,
    lines: corpus_options.Lines = False,
    files: corpus_options.Files = False,
    documents: corpus_options.Documents = None,
    glob: corpus_options.Glob = None,
    encoding: corpus_options.Encoding = None,
    unit: corpus_options.Unit = None,
    min_count: corpus_options.MinCount = None,
    json_: options.Json = False,
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure how fast this machine trains and samples.

    It does so with networks of a few sizes. The limit is the machine's own rate of matrix products; a training counts
    as six operations per parameter and character. With a text, it also shows what ``charrnn train`` would do, with
    the same options and with a minute.
    """
    wishes = options.given(cell=cell, hidden=hidden, device=device, threads=threads)
    ways = corpus_options.asked(
        lines=lines, files=files, documents=documents, encoding=encoding, unit=unit, min_count=min_count
    )
    ReadConfig(**ways)
    shape = options.given(cell=cell)
    models = [ModelConfig(hidden=size, **shape) for size in (SIZES if hidden is None else (hidden,))]
    config = TrainConfig(**options.given(device=device, threads=threads))

    console = Console(quiet=quiet)
    text = (
        corpus_options.read(corpus, corpus_options.files(corpus, glob), ReadConfig(**ways), console)
        if corpus
        else None
    )

    from charrnn.training.autotune import plan_here
    from charrnn.training.bench import Bench  # torch: more than a second

    workbench = Bench(config)
    speeds: list[Speed] = []
    plans: dict[str, Plan] = {}
    with console.bar(total=len(models) + (len(BUDGETS) if text else 0), layout=LAYOUT) as bar:
        console.line(f"measuring: {workbench.host.processor}, {workbench.host.cores} cores")
        for model in models:
            bar.set_description_str(f"{model.layers} x {model.hidden} {model.cell.upper()}")
            speeds.append(workbench.speed(model))
            bar.update()
        if text is not None:
            for budget in BUDGETS:
                command = _command(corpus or (), {**wishes, **budget})
                bar.set_description_str(command)
                plans[command] = plan_here(text, {**wishes, **budget})
                bar.update()
    notes = [speed.note for speed in speeds] + [note for plan in plans.values() for note in plan.notes]
    for note in dict.fromkeys(filter(None, notes)):
        console.line(f"note: {note}")
    if json_:
        emit(json.dumps(_facts(workbench.host, config, speeds, text, plans)) + "\n")
        return
    emit("\n".join([*_heading(workbench.host, speeds), "", *_table(speeds), *_outlook(plans)]) + "\n")


def _command(corpus: Sequence[str], wishes: dict[str, Any]) -> str:
    words = [word for name, value in wishes.items() for word in (options.flag(name), str(value))]
    return "charrnn train " + shlex.join([*corpus, *words])


def _facts(
    host: "Host", config: TrainConfig, speeds: "list[Speed]", text: "Corpus | None", plans: "dict[str, Plan]"
) -> dict[str, Any]:
    """Everything measured; the same keys with a text and without."""
    from charrnn.training.bench import VOCABULARY

    return {
        "date": date.today().isoformat(),
        "charrnn": __version__,
        **asdict(host),
        "batch_size": config.batch_size,
        "seq_length": config.seq_length,
        "vocabulary_size": len(VOCABULARY),
        "speeds": [asdict(speed) for speed in speeds],
        "corpus": text and {"name": text.name, "characters": text.characters, "distinct": len(text.vocabulary)},
        "plans": [
            {"command": command, "epoch_seconds": plan.epoch_seconds, "summary": plan.summary, **asdict(plan)}
            for command, plan in plans.items()
        ],
    }


def _heading(host: "Host", speeds: "list[Speed]") -> list[str]:
    limits = {speed.precision: f"{speed.precision} {speed.limit_gflops:,.0f} GFLOP/s" for speed in speeds}
    return [
        f"{printable(host.processor)}, {host.cores} cores, {host.device}",
        f"charrnn {__version__}, torch {host.torch}, {date.today().isoformat()}",
        f"{speeds[0].cell.upper()}s; the limit is a matrix product's {', '.join(limits.values())}",
    ]


def _table(speeds: "list[Speed]") -> list[str]:
    """Columns as wide as they need to be, numbers to the right."""
    rows = [*zip(*COLUMNS, strict=True), *map(_row, speeds)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _row(speed: "Speed") -> tuple[str, ...]:
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
    for command, plan in plans.items():
        lines += ["", printable(command)]
        lines += [f"  {part}" for part in [*plan.summary.split("; "), f"{duration(plan.epoch_seconds)} an epoch"]]
    return lines
