"""``charrnn eval``: bits per character of a text under models, and what simpler baselines say of it."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import corpus_options, options
from charrnn.cli.command import Only, command
from charrnn.cli.console import Console, write_stdout
from charrnn.config import SampleConfig, TrainConfig, Unknown
from charrnn.config.checks import Integer
from charrnn.config.overrides import Overrides
from charrnn.config.settings import Option, override, setting
from charrnn.errors import SettingError
from charrnn.units import nats_to_bits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from charrnn.checkpoint import Checkpoint
    from charrnn.data.corpus import Corpus
    from charrnn.data.token_view import TokenView
    from charrnn.evaluation.metrics import Estimate
    from charrnn.rnn.backend import Scorer

MAX_MARKOV_ORDER = 8  # of the Markov models
MAX_BASELINE_CHARACTERS = 4_000_000  # characters that simpler baselines learn from, and that they measure

Facts = dict[str, Any]


EXAMPLES = """
charrnn eval book other.txt                          # bits per character of another text
charrnn eval book book.txt --split --baselines       # training and validation text, and simpler models
head -c 2000 other.txt | charrnn eval book -         # text from stdin
"""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of ``charrnn eval``."""

    model: options.Model
    text: Annotated[
        list[str], typer.Argument(metavar="TEXT", help="Files, directories, or - for stdin.", show_default=False)
    ]
    others: Annotated[
        list[str] | None,
        typer.Option(
            "-m", "--model", metavar="MODEL", help="Also evaluate this model; may be repeated.", show_default=False
        ),
    ] = None
    split: Annotated[
        bool,
        typer.Option("--split", help="TEXT is the text of the training: evaluate its training and validation part."),
    ] = False
    baselines: Annotated[
        bool,
        typer.Option("--baselines", help="Also evaluate Markov models and compressors that know the training text."),
    ] = False
    training: Annotated[
        str | None,
        typer.Option("--training", metavar="FILE", help="Training text for --baselines.", show_default=False),
    ] = None
    reset: int | None = setting(None, Integer(1), Option("Also reset the state every N characters.", "N"))
    dynamic: Annotated[
        bool,
        typer.Option("--dynamic", help="Also evaluate a network that keeps learning while it reads."),
    ] = False
    unknown: Unknown | None = override(SampleConfig)  # noqa: RUF009 - makes a field
    json_: options.Json = False
    glob: corpus_options.Glob = None
    overrides: Annotated[Overrides, Only("encoding", *options.MACHINE_SETTINGS)]
    quiet: options.Quiet = False

    @property
    def models(self) -> list[str]:
        """All models that are measured."""
        return [self.model, *(self.others or ())]


@command
def evaluate(args: EvalOptions) -> None:
    """Measure how well a model predicts a text, in bits per character.

    The state is carried from the first character to the last. A text of n characters has n-1 predictions. The text is
    read like the training text: as characters or bytes, with or without documents. "95 % within" is a confidence
    interval by block bootstrap. It shows how much the result depends on the choice of the text.
    """
    _check_sources(args)

    from charrnn.cli import eval_setup

    console, config = Console(quiet=args.quiet), args.overrides.apply(TrainConfig())
    unknown = args.unknown or SampleConfig.unknown

    def read(paths: Sequence[str], model: "Checkpoint") -> "Corpus":
        return eval_setup.corpus(paths, model, console, args.glob, args.overrides.encoding, unknown)

    results: list[Facts] = []
    baselines: list[Facts] = []
    loaded = [eval_setup.load(name) for name in args.models]
    eval_setup.check_names([name for name, _ in loaded])
    for name, model in loaded:
        corpus = read(args.text, model)
        parts = eval_setup.split(corpus, name, model) if args.split else {"": corpus.tokens()}
        for part, ids in parts.items():
            scorer = eval_setup.scorer(model, len(ids), config)
            unit = model.vocabulary.unit
            facts = {"model": name, "unit": unit} | ({"part": part} if part else {})
            facts |= _figures(scorer, ids, args.reset, console)
            if args.dynamic and part != "train":
                facts |= _dynamic(model, ids, config, console)
            results.append(facts)
        if model.vocabulary.unit == "byte":
            console.line(f"note: {name} predicts bytes, so that its figures are of each byte")
        if args.reset is not None and args.reset >= len(ids) - 1:
            console.line(
                f"note: the text is shorter than {args.reset:,} characters, so that --reset makes no difference"
            )
        if args.baselines and not baselines:
            known = parts.get("train") or read([str(args.training)], model).tokens()
            baselines = list(_baselines(model, known, ids, console))
    results += baselines
    if args.json_:
        write_stdout("".join(json.dumps(facts) + "\n" for facts in results))
    else:
        rows = [row for facts in results for row in _rows(facts)]
        write_stdout(_sentences(rows) if len(results) == 1 else _table(rows))


def _check_sources(args: EvalOptions) -> None:
    text, training = args.text, args.training
    if "-" in text and len(args.models) > 1:
        raise SettingError("model", "given twice, but stdin can be read only once", "write it to a file")
    if training is not None and "-" in (*text, training) and training in text:
        raise SettingError("training", "given as stdin, which is the text already", "write it to a file")
    if args.baselines and not args.split and training is None:
        raise SettingError("baselines", "have to know the training text", "add --split or --training FILE")
    if training is not None and (args.split or not args.baselines):
        reason = "given together with --split, which says it" if args.split else "given without --baselines"
        raise SettingError("training", reason, "leave it out")


def _figures(scorer: "Scorer", ids: "TokenView", reset: int | None, console: Console) -> Facts:
    """What a model says of a text."""
    from charrnn.evaluation.metrics import mean_nats_with_resets, measure

    with console.bar(total=(len(ids) - 1) * (1 if reset is None else 2), unit=" characters") as bar:
        figure = measure(scorer, ids, bar.update)
        facts = _facts(figure)
        if reset is not None:
            nats = mean_nats_with_resets(scorer, ids, reset, bar.update)
            facts |= {"reset": reset, "reset_nats": nats, "reset_bits_per_char": nats_to_bits(nats)}
    return facts


def _dynamic(model: "Checkpoint", ids: "TokenView", config: TrainConfig, console: Console) -> Facts:
    """What it says if it goes on learning."""
    from charrnn.evaluation.dynamic import learning_surprisals
    from charrnn.evaluation.metrics import bootstrap
    from charrnn.rnn.backend import resolve_device

    device = resolve_device(config.device)
    with console.bar(total=len(ids) - 1, unit=" characters, learning") as bar:
        found = bootstrap(learning_surprisals(model, ids, device, bar.update), len(ids) - 1)
    return {f"dynamic_{name}": value for name, value in _facts(found).items() if name != "characters"}


def _baselines(model: "Checkpoint", known: "TokenView", ids: "TokenView", console: Console) -> Iterator[Facts]:
    """What simpler baselines say of it, which know the training text."""
    import numpy as np

    from charrnn.data.vocabulary import BOUNDARY, UNKNOWN
    from charrnn.evaluation.baselines import compressed_bits, markov_nats
    from charrnn.evaluation.metrics import bootstrap

    vocabulary = model.vocabulary
    learned = known.take(np.arange(max(0, len(known) - MAX_BASELINE_CHARACTERS), len(known)))
    measured = ids.take(np.arange(min(len(ids), MAX_BASELINE_CHARACTERS)))
    if max(len(known), len(ids)) > MAX_BASELINE_CHARACTERS:
        console.line(
            f"note: baselines learn from the last {MAX_BASELINE_CHARACTERS:,} characters, "
            f"and measure the first {MAX_BASELINE_CHARACTERS:,}"
        )
    orders = markov_nats(learned, measured, MAX_MARKOV_ORDER, len(vocabulary))
    for order, nats in enumerate(orders[1:], 1):
        yield {"baseline": f"order-{order} Markov", **_facts(bootstrap(iter([nats[1:]]), len(nats) - 1))}
    between = model.read_config.separator or "\n"  # of documents

    def as_bytes(part: "NDArray[np.integer]") -> bytes:
        symbols = vocabulary.symbols_at(part.tolist()).replace(BOUNDARY, between).replace(UNKNOWN, "\ufffd")
        return symbols.encode("utf-8", "surrogateescape")

    before, after = as_bytes(learned), as_bytes(measured)
    for name, size in compressed_bits(before, after):
        facts = {"characters": len(measured), "nats": size / len(measured) * math.log(2)}
        yield {"baseline": name, **facts, "bits_per_char": size / len(measured)}


def _facts(figure: "Estimate") -> Facts:
    facts: Facts = {"characters": figure.characters, "nats": figure.nats, "bits_per_char": nats_to_bits(figure.nats)}
    if figure.interval is not None:
        facts["bits_per_char_95"] = [nats_to_bits(nats) for nats in figure.interval]
    return facts


def _rows(facts: Facts) -> Iterator[tuple[str, Facts]]:
    """A name for each of the figures, and the figure."""
    name = ", ".join(facts[key] for key in ("model", "baseline", "part") if key in facts)
    name += " (of bytes)" if facts.get("unit") == "byte" else ""
    yield name, facts
    for kind, added in (("reset", f"fresh every {facts.get('reset', 0):,}"), ("dynamic", "learning as it reads")):
        if f"{kind}_nats" in facts:
            own = {key.removeprefix(f"{kind}_"): value for key, value in facts.items() if key.startswith(f"{kind}_")}
            yield f"{name}, {added}", {"characters": facts["characters"], **own}


def _within(facts: Facts) -> str:
    if "bits_per_char_95" not in facts:
        return ""
    return "{:.4f} to {:.4f}".format(*facts["bits_per_char_95"])


def _sentences(rows: Sequence[tuple[str, Facts]]) -> str:
    """The figures of one text under one model."""
    lines = []
    for place, (name, facts) in enumerate(rows):
        how = name.rpartition(", ")[2] if place else "state carried"
        within = f"; 95 % within {_within(facts)}" if _within(facts) else ""
        figure = f"{facts['bits_per_char']:.4f} bits per character ({facts['nats']:.4f} nats)"
        lines.append(f"{figure}, {facts['characters']:,} characters, {how}{within}\n")
    return "".join(lines)


def _table(rows: Sequence[tuple[str, Facts]]) -> str:
    """Figures below each other."""
    cells = [("", "bits per character", "95 % within", "nats", "characters")]
    for name, facts in rows:
        figure = f"{facts['bits_per_char']:.4f}", _within(facts), f"{facts['nats']:.4f}"
        cells.append((name, *figure, f"{facts['characters']:,}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *figures in cells:
        padded = (figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip() + "\n")
    return "".join(lines)
