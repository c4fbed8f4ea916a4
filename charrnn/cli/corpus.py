"""``charrnn corpus``: named texts to train on, and whether a text of one's own is fit for it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import corpus_options, options
from charrnn.cli.command import Only, command
from charrnn.cli.console import Console, write_stdout
from charrnn.cli.corpus_options import TextOptions
from charrnn.cli.help_format import HelpCommand, HelpGroup
from charrnn.config import ReadConfig, Unit
from charrnn.config.overrides import Overrides
from charrnn.errors import FileError, SettingError
from charrnn.units import nats_to_bits

if TYPE_CHECKING:
    from charrnn.data.corpus import Corpus
    from charrnn.data.datasets import Remote
    from charrnn.data.sources import File
    from charrnn.data.text_stats import TextStats

RARE_COUNT = 10  # characters seen fewer times than this are rare
MAX_LISTED = 12  # of them by name
MARKOV_ORDER = 3  # of the Markov model
MIN_TRAINING_CHARACTERS = 100  # characters that it is learned from

EXAMPLES = """
charrnn train "$(charrnn corpus get tiny-shakespeare)"
charrnn corpus check book.txt
"""
LIST_EXAMPLES = """
charrnn corpus list
charrnn corpus list --json | python -m json.tool
"""
GET_EXAMPLES = """
charrnn corpus get python-docs
charrnn train "$(charrnn corpus get names)" --lines
"""
CHECK_EXAMPLES = """
charrnn corpus check book.txt
charrnn corpus check poems --files --glob "**/*.txt"
"""

app = typer.Typer(
    help="Get texts to train on, or check a text before training.",
    cls=HelpGroup,
    epilog=EXAMPLES,
    rich_markup_mode=None,
)


@app.command("list", cls=HelpCommand, epilog=LIST_EXAMPLES)
def list_(json_: options.Json = False) -> None:
    """List the texts that charrnn corpus get can provide."""
    from charrnn.data.datasets import DATASETS, Remote

    entries = [
        {
            "name": entry.name,
            "about": entry.about,
            "licence": entry.licence,
            "bytes": entry.size if isinstance(entry, Remote) else None,
            "url": entry.url if isinstance(entry, Remote) else None,
        }
        for entry in DATASETS
    ]
    if json_:
        write_stdout(json.dumps(entries) + "\n")
        return
    for entry in entries:
        where = f"{entry['bytes']:>11,} bytes" if entry["bytes"] else "made on the spot "
        write_stdout(f"{entry['name']:<17} {where}  {entry['about']} ({entry['licence']})\n")


def _known(name: str) -> str:
    """A name that is in the catalogue; another one is wrong usage."""
    from charrnn.data import datasets

    try:
        datasets.find(name)
    except SettingError as error:
        raise typer.BadParameter(f"{error.reason}; {error.advice}") from None
    return name


@app.command(cls=HelpCommand, epilog=GET_EXAMPLES)
def get(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A name from charrnn corpus list.", show_default=False, callback=_known),
    ],
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Save a text as corpora/NAME.txt and print the path."""
    from charrnn.data import datasets
    from charrnn.io import atomic_io

    entry = datasets.find(name)
    path = datasets.CORPUS_DIR / f"{entry.name}.txt"
    if isinstance(entry, datasets.Made):
        data = entry.make().encode("utf-8")
        there = path.is_file() and path.read_bytes() == data
    else:
        there = path.is_file() and datasets.matches(entry, path.read_bytes())
    if path.exists() and not there and not force:
        raise FileError(str(path), f"is not {entry.name} as we know it", "move it away or add --force to replace it")
    if not there:
        atomic_io.check_writable(path)  # before anything is fetched
        if isinstance(entry, datasets.Remote):
            data = _download(entry, Console(quiet=quiet))
        atomic_io.write_atomic(path, data)
    write_stdout(f"{path}\n")


def _download(entry: "Remote", console: Console) -> bytes:
    from charrnn.data import datasets

    pieces = []
    with console.bar(total=entry.size, unit="B") as bar:
        for piece in datasets.download(entry):
            pieces.append(piece)
            bar.update(len(piece))
    return b"".join(pieces)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of ``charrnn corpus check``."""

    corpus: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS", help="Files, directories, or - for stdin.", show_default=False),
    ]
    text: TextOptions
    overrides: Annotated[Overrides, Only(*options.TEXT_SETTINGS)]
    json_: options.Json = False
    quiet: options.Quiet = False


@app.command(cls=HelpCommand, epilog=CHECK_EXAMPLES)
@command
def check(args: CheckOptions) -> None:
    """Show statistics of a text and how charrnn train would use it.

    The options are those of charrnn train. The plan assumes a typical laptop. The Markov model is trained on the
    first 90 % of the text and evaluated on the rest.
    """
    config = args.text.apply_to(args.overrides).apply(ReadConfig())

    from charrnn.data.text_stats import TextStats
    from charrnn.training.plan import make_plan, typical_timing

    stats, console = TextStats(), Console(quiet=args.quiet)
    source = corpus_options.find_files(args.corpus, args.text.glob)
    corpus = corpus_options.read_corpus(source, config, console, on_text=stats.update)
    stats.finish()
    symbols = sum(corpus.counts.values())
    plan = make_plan(symbols, len(corpus.vocabulary), Overrides(device="cpu"), typical_timing)
    facts = _facts(corpus, stats, source.files)
    if args.json_:
        facts |= {"sha256": corpus.sha256, "plan": plan.summary, "notes": list(plan.notes)}
        write_stdout(json.dumps(facts) + "\n")
        return
    for name, value in _summary(facts, corpus):
        write_stdout(f"{name:<14}{value}\n")
    write_stdout(f"{'plan':<14}{plan.summary}\n")
    for note in plan.notes:
        write_stdout(f"{'note':<14}{note}\n")


def _facts(corpus: "Corpus", stats: "TextStats", files: Sequence["File"]) -> dict[str, Any]:
    """What a text is made of."""
    from charrnn.cli.json_output import symbol_name

    rare = _rare(corpus)
    return {
        "files": [file.name for file in files],
        "encoding": _encoding(corpus),
        "line_endings": corpus.decoding_stats.line_ends,
        "characters": corpus.characters,
        "distinct_characters": len(corpus.counts) - bool(corpus.num_documents),
        "rare": {symbol_name(symbol): corpus.counts[symbol] for symbol in rare},
        "lines": stats.lines,
        "longest_line": stats.longest_line,
        "repeated_lines": stats.repeated_lines,
        "repeated_lines_are_exact": stats.is_exact,
        "documents": corpus.num_documents or None,
        "longest_document": corpus.longest_document or None,
        **_baselines(stats.sample, corpus.read_config.unit),
    }


def _rare(corpus: "Corpus") -> list[str]:
    """The symbols that come less often than `RARE_COUNT`, the rarest first."""
    from charrnn.data.vocabulary import BOUNDARY

    counts = corpus.counts
    rare = [symbol for symbol in counts if counts[symbol] < RARE_COUNT and symbol != BOUNDARY]
    return sorted(rare, key=lambda symbol: (counts[symbol], symbol))


def _encoding(corpus: "Corpus") -> str:
    """What the bytes are, and how sure that is."""
    if corpus.read_config.unit == "byte":
        return "bytes, whatever they are"
    names = " and ".join(corpus.decoding_stats.encodings)
    if corpus.read_config.encoding is not None:
        return f"{names}, as you say, and every byte fits"
    plain = names == "UTF-8" and all(symbol.isascii() for symbol in corpus.counts if symbol.isprintable())
    return "ASCII, which is UTF-8" if plain else f"{names}, every byte fits"


def _baselines(sample: str, unit: Unit) -> dict[str, Any]:
    """Bits per character of the beginning of the text, by what is no neural network."""
    import numpy as np

    from charrnn.data.vocabulary import code_points
    from charrnn.evaluation.baselines import markov_nats, xz_bits

    kinds, ids = np.unique(code_points(sample), return_inverse=True)
    border = len(ids) * 9 // 10
    baselines: dict[str, Any] = {"measured_characters": len(sample), "markov_bits": None}
    if border >= MIN_TRAINING_CHARACTERS:
        nats = markov_nats(ids[:border], ids[border:], MARKOV_ORDER, len(kinds))
        baselines["markov_bits"] = round(nats_to_bits(float(nats[MARKOV_ORDER].mean())), 4)
    data = sample.encode("utf-8" if unit == "char" else "latin-1")
    return baselines | {"xz_bits": round(xz_bits(data, len(sample)), 4)}


def _summary(facts: dict[str, Any], corpus: "Corpus") -> Iterator[tuple[str, str]]:
    """The facts, line by line."""
    from charrnn.data.vocabulary import describe

    noun = "bytes" if corpus.read_config.unit == "byte" else "characters"
    yield "encoding", facts["encoding"]
    if corpus.read_config.unit == "char":
        endings = (
            ", ".join(f"{number:,} {name}" for name, number in facts["line_endings"].items() if number) or "none"
        )
        changed = "CR" in endings and corpus.read_config.newlines == "unix"
        yield "line endings", endings + (" (all become LF)" if changed else "")
    yield noun, f"{facts['characters']:,}, {facts['distinct_characters']:,} distinct"
    rare = _rare(corpus)
    yield "rare", f"{len(rare):,} seen fewer than {RARE_COUNT} times"
    for symbol in rare[:MAX_LISTED]:
        yield "", f"{corpus.counts[symbol]} x {describe(symbol)}"
    if len(rare) > MAX_LISTED:
        yield "", f"and {len(rare) - MAX_LISTED:,} more"
    about = "" if facts["repeated_lines_are_exact"] else "about "
    repeats = f"{about}{facts['repeated_lines']:,} repeat an earlier one"
    yield "lines", f"{facts['lines']:,}, the longest of {facts['longest_line']:,} {noun}; {repeats}"
    if facts["documents"]:
        yield "documents", f"{facts['documents']:,}, the longest of {facts['longest_document']:,} {noun}"
    markov = (
        ""
        if facts["markov_bits"] is None
        else f"{facts['markov_bits']:.2f} under an order-{MARKOV_ORDER} Markov model, "
    )
    part = facts["measured_characters"]
    whole = f" (its first {part:,} {noun})" if part < facts["characters"] else ""
    yield "bits each", f"{markov}{facts['xz_bits']:.2f} in xz{whole}"
