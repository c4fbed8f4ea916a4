"""``charrnn eval``: bits per character of a text under models and simpler baselines."""

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

MAX_MARKOV_ORDER = 8  # highest order of the Markov models
MAX_BASELINE_CHARACTERS = 4_000_000  # baselines train on this many characters, and are measured on this many

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
        typer.Option(
            "--split",
            help="TEXT is the text that the model was trained on: evaluate its training and validation parts.",
        ),
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
        typer.Option("--dynamic", help="Also evaluate the network while it keeps learning from TEXT."),
    ] = False
    unknown: Unknown | None = override(SampleConfig)  # noqa: RUF009 - makes a field
    json_: options.Json = False
    glob: corpus_options.Glob = None
    overrides: Annotated[Overrides, Only("encoding", *options.MACHINE_SETTINGS)]
    quiet: options.Quiet = False

    @property
    def models(self) -> list[str]:
        """The names of all models to evaluate."""
        return [self.model, *(self.others or ())]


@command
def evaluate(args: EvalOptions) -> None:
    """Measure how well a model predicts a text, in bits per character.

    The state is carried from the first character to the last. A text of n characters has n-1 predictions. The text is
    read like the training text: as characters or bytes, with or without documents. "95 % within" is a confidence
    interval by block bootstrap. It shows how much the result depends on the choice of text.
    """
    _check_sources(args)

    from charrnn.cli import eval_setup

    console, config = Console(quiet=args.quiet), args.overrides.apply(TrainConfig())
    unknown = args.unknown or SampleConfig.unknown

    def read(paths: Sequence[str], model: "Checkpoint") -> "Corpus":
        return eval_setup.read_corpus(paths, model, console, args.glob, args.overrides.encoding, unknown)

    results: list[Facts] = []
    baselines: list[Facts] = []
    loaded = [eval_setup.load_model(name) for name in args.models]
    eval_setup.check_names([name for name, _ in loaded])
    for name, model in loaded:
        corpus = read(args.text, model)
        parts = eval_setup.split_corpus(corpus, name, model) if args.split else {"": corpus.tokens()}
        for part, ids in parts.items():
            scorer = eval_setup.make_scorer(model, len(ids), config)
            unit = model.vocabulary.unit
            facts = {"model": name, "unit": unit} | ({"part": part} if part else {})
            facts |= _measure(scorer, ids, args.reset, console)
            if args.dynamic and part != "train":
                facts |= _measure_dynamic(model, ids, config, console)
            results.append(facts)
        if model.vocabulary.unit == "byte":
            console.line(f"note: {name} predicts bytes, so its figures are per byte")
        if args.reset is not None and args.reset >= len(ids) - 1:
            console.line(f"note: the text is shorter than {args.reset:,} characters, so --reset has no effect")
        if args.baselines and not baselines:
            training_ids = parts.get("train") or read([str(args.training)], model).tokens()
            baselines = list(_measure_baselines(model, training_ids, ids, console))
    results += baselines
    if args.json_:
        write_stdout("".join(json.dumps(facts) + "\n" for facts in results))
    else:
        rows = [row for facts in results for row in _rows(facts)]
        write_stdout(_sentences(rows) if len(results) == 1 else _table(rows))


def _check_sources(args: EvalOptions) -> None:
    text, training = args.text, args.training
    if "-" in text and len(args.models) > 1:
        raise SettingError(
            "model", "cannot be combined with stdin, which can be read only once", "save the text to a file"
        )
    if training == "-" and "-" in text:
        raise SettingError("training", "stdin is already the text to evaluate", "save one of the texts to a file")
    if args.baselines and not args.split and training is None:
        raise SettingError("baselines", "given without the training text", "add --split or --training FILE")
    if training is not None and (args.split or not args.baselines):
        if args.split:
            raise SettingError("training", "cannot be combined with --split", "give one of them")
        raise SettingError("training", "given without --baselines", "add --baselines, or leave it out")


def _measure(scorer: "Scorer", ids: "TokenView", reset: int | None, console: Console) -> Facts:
    """Return the figures of a text under a model."""
    from charrnn.evaluation.metrics import mean_nats_with_resets, measure

    with console.bar(total=(len(ids) - 1) * (1 if reset is None else 2), unit=" characters") as bar:
        facts = _facts(measure(scorer, ids, bar.update))
        if reset is not None:
            nats = mean_nats_with_resets(scorer, ids, reset, bar.update)
            facts |= {"reset": reset, "reset_nats": nats, "reset_bits_per_char": nats_to_bits(nats)}
    return facts


def _measure_dynamic(model: "Checkpoint", ids: "TokenView", config: TrainConfig, console: Console) -> Facts:
    """Return the figures of a text under dynamic evaluation."""
    from charrnn.evaluation.dynamic import dynamic_surprisals
    from charrnn.evaluation.metrics import bootstrap
    from charrnn.rnn.backend import resolve_device

    device = resolve_device(config.device)
    with console.bar(total=len(ids) - 1, unit=" characters, learning") as bar:
        estimate = bootstrap(dynamic_surprisals(model, ids, device, bar.update), len(ids) - 1)
    return {f"dynamic_{name}": value for name, value in _facts(estimate).items() if name != "characters"}


def _measure_baselines(
    model: "Checkpoint", training_ids: "TokenView", ids: "TokenView", console: Console
) -> Iterator[Facts]:
    """Yield the figures of a text under Markov models and compressors that have seen the training text."""
    import numpy as np

    from charrnn.data.vocabulary import BOUNDARY, UNKNOWN
    from charrnn.evaluation.baselines import compressed_bits, markov_nats
    from charrnn.evaluation.metrics import bootstrap

    vocabulary = model.vocabulary
    size = len(training_ids)
    training = training_ids.take(np.arange(max(0, size - MAX_BASELINE_CHARACTERS), size))
    measured = ids.take(np.arange(min(len(ids), MAX_BASELINE_CHARACTERS)))
    if max(size, len(ids)) > MAX_BASELINE_CHARACTERS:
        console.line(
            f"note: the baselines use only the last {MAX_BASELINE_CHARACTERS:,} characters of the training text "
            f"and the first {MAX_BASELINE_CHARACTERS:,} of the text"
        )
    nats_by_order = markov_nats(training, measured, MAX_MARKOV_ORDER, len(vocabulary))
    for order, nats in enumerate(nats_by_order[1:], 1):
        yield {"baseline": f"order-{order} Markov", **_facts(bootstrap(iter([nats[1:]]), len(nats) - 1))}
    separator = model.read_config.separator or "\n"

    def to_bytes(ids: "NDArray[np.integer]") -> bytes:
        symbols = vocabulary.symbols_at(ids.tolist()).replace(BOUNDARY, separator).replace(UNKNOWN, "\ufffd")
        return symbols.encode("utf-8", "surrogateescape")

    for name, bits in compressed_bits(to_bytes(training), to_bytes(measured)):
        facts = {"characters": len(measured), "nats": bits / len(measured) * math.log(2)}
        yield {"baseline": name, **facts, "bits_per_char": bits / len(measured)}


def _facts(estimate: "Estimate") -> Facts:
    nats = estimate.nats
    facts: Facts = {"characters": estimate.characters, "nats": nats, "bits_per_char": nats_to_bits(nats)}
    if estimate.interval is not None:
        facts["bits_per_char_95"] = [nats_to_bits(bound) for bound in estimate.interval]
    return facts


def _rows(facts: Facts) -> Iterator[tuple[str, Facts]]:
    """Yield a name and the facts for each row of the output."""
    name = ", ".join(facts[key] for key in ("model", "baseline", "part") if key in facts)
    name += " (of bytes)" if facts.get("unit") == "byte" else ""
    yield name, facts
    reset = f"state reset every {facts.get('reset', 0):,}"
    for prefix, label in (("reset_", reset), ("dynamic_", "dynamic evaluation")):
        if f"{prefix}nats" in facts:
            values = {key.removeprefix(prefix): value for key, value in facts.items() if key.startswith(prefix)}
            yield f"{name}, {label}", {"characters": facts["characters"], **values}


def _interval(facts: Facts) -> str:
    if "bits_per_char_95" not in facts:
        return ""
    return "{:.4f} to {:.4f}".format(*facts["bits_per_char_95"])


def _sentences(rows: Sequence[tuple[str, Facts]]) -> str:
    """Return the figures of one text under one model as sentences."""
    lines = []
    for index, (name, facts) in enumerate(rows):
        method = name.rpartition(", ")[2] if index else "state carried"
        interval = f"; 95 % within {_interval(facts)}" if _interval(facts) else ""
        figure = f"{facts['bits_per_char']:.4f} bits per character ({facts['nats']:.4f} nats)"
        lines.append(f"{figure}, {facts['characters']:,} characters, {method}{interval}\n")
    return "".join(lines)


def _table(rows: Sequence[tuple[str, Facts]]) -> str:
    """Return the figures as a table."""
    cells = [("", "bits per character", "95 % within", "nats", "characters")]
    for name, facts in rows:
        figures = f"{facts['bits_per_char']:.4f}", _interval(facts), f"{facts['nats']:.4f}"
        cells.append((name, *figures, f"{facts['characters']:,}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *numbers in cells:
        padded = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip() + "\n")
    return "".join(lines)
