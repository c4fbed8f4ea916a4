"""``charrnn corpus``: list, fetch and check texts to train on."""

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
    from pathlib import Path

    from charrnn.data.corpus import Corpus
    from charrnn.data.datasets import Remote
    from charrnn.data.sources import File
    from charrnn.data.text_stats import TextStats

RARE_COUNT = 10  # a character that occurs fewer times is rare
MAX_LISTED = 12  # rare characters listed by name
MARKOV_ORDER = 3  # order of the Markov model
MIN_TRAINING_CHARACTERS = 100  # minimum training text of the Markov model

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
        size = f"{entry['bytes']:>11,} bytes" if entry["bytes"] else "generated locally"
        write_stdout(f"{entry['name']:<17} {size}  {entry['about']} ({entry['licence']})\n")


def _dataset_name(name: str) -> str:
    """Return the name of a corpus; report wrong usage for any other name."""
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
        typer.Argument(
            metavar="NAME", help="A name from charrnn corpus list.", show_default=False, callback=_dataset_name
        ),
    ],
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Save a text as corpora/NAME.txt and print the path."""
    from charrnn.data import datasets
    from charrnn.io import atomic_io

    entry = datasets.find(name)
    path = datasets.CORPUS_DIR / f"{entry.name}.txt"
    if isinstance(entry, datasets.Generated):
        data = entry.generate().encode("utf-8")
        is_current = _has_size(path, len(data)) and path.read_bytes() == data
    else:
        is_current = _has_size(path, entry.size) and datasets.matches(entry, path.read_bytes())
    if path.exists() and not is_current and not force:
        reason = f"exists already, with another text than {entry.name}"
        raise FileError(str(path), reason, "add --force to replace it, or move it away")
    if not is_current:
        atomic_io.check_writable(path)  # before the download
        if isinstance(entry, datasets.Remote):
            data = _download(entry, Console(quiet=quiet))
        atomic_io.write_atomic(path, data)
    write_stdout(f"{path}\n")


def _has_size(path: "Path", size: int) -> bool:
    """Return whether there is a regular file of this size, which may then be read as a whole."""
    return path.is_file() and path.stat().st_size == size


def _download(entry: "Remote", console: Console) -> bytes:
    """Return the bytes of a remote corpus. Show a progress bar during the download."""
    from charrnn.data import datasets

    blocks = []
    with console.bar(total=entry.size, unit="B") as bar:
        for block in datasets.download(entry):
            blocks.append(block)
            bar.update(len(block))
    return b"".join(blocks)


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
    """Return the properties of a text as JSON data."""
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
    """Return the symbols that occur fewer than `RARE_COUNT` times, the rarest first."""
    from charrnn.data.vocabulary import BOUNDARY

    counts = corpus.counts
    rare = [symbol for symbol in counts if counts[symbol] < RARE_COUNT and symbol != BOUNDARY]
    return sorted(rare, key=lambda symbol: (counts[symbol], symbol))


def _encoding(corpus: "Corpus") -> str:
    """Return the encoding of a text, and how it is known."""
    if corpus.read_config.unit == "byte":
        return "none, read as bytes"
    names = " and ".join(corpus.decoding_stats.encodings)
    if corpus.read_config.encoding is not None:
        return f"{names} as given, all bytes valid"
    plain = names == "UTF-8" and all(symbol.isascii() for symbol in corpus.counts if symbol.isprintable())
    return "ASCII, a subset of UTF-8" if plain else f"{names}, all bytes valid"


def _baselines(sample: str, unit: Unit) -> dict[str, Any]:
    """Return bits per character under a Markov model and under xz, for a sample from the beginning of a text."""
    import numpy as np

    from charrnn.data.vocabulary import code_points
    from charrnn.evaluation.baselines import markov_nats, xz_bits

    symbols, ids = np.unique(code_points(sample), return_inverse=True)
    split = len(ids) * 9 // 10
    baselines: dict[str, Any] = {"measured_characters": len(sample), "markov_bits": None}
    if split >= MIN_TRAINING_CHARACTERS:
        nats = markov_nats(ids[:split], ids[split:], MARKOV_ORDER, len(symbols))
        baselines["markov_bits"] = round(nats_to_bits(float(nats[MARKOV_ORDER].mean())), 4)
    data = sample.encode("utf-8" if unit == "char" else "latin-1")
    return baselines | {"xz_bits": round(xz_bits(data, len(sample)), 4)}


def _summary(facts: dict[str, Any], corpus: "Corpus") -> Iterator[tuple[str, str]]:
    """Yield the properties of a text as pairs of a label and a value."""
    from charrnn.data.vocabulary import describe

    noun, unit = ("bytes", "byte") if corpus.read_config.unit == "byte" else ("characters", "char")
    yield "encoding", facts["encoding"]
    if corpus.read_config.unit == "char":
        endings = (
            ", ".join(f"{number:,} {name}" for name, number in facts["line_endings"].items() if number) or "none"
        )
        changed = "CR" in endings and corpus.read_config.newlines == "unix"
        yield "line endings", endings + (" (converted to LF)" if changed else "")
    yield noun, f"{facts['characters']:,}, {facts['distinct_characters']:,} distinct"
    rare = _rare(corpus)
    yield "rare", f"{len(rare):,} occur fewer than {RARE_COUNT} times"
    for symbol in rare[:MAX_LISTED]:
        yield "", f"{corpus.counts[symbol]} x {describe(symbol)}"
    if len(rare) > MAX_LISTED:
        yield "", f"and {len(rare) - MAX_LISTED:,} more"
    about = "" if facts["repeated_lines_are_exact"] else "about "
    repeats = f"{about}{facts['repeated_lines']:,} repeat an earlier line"
    yield "lines", f"{facts['lines']:,}, the longest with {facts['longest_line']:,} {noun}; {repeats}"
    if facts["documents"]:
        yield "documents", f"{facts['documents']:,}, the longest with {facts['longest_document']:,} {noun}"
    markov = (
        ""
        if facts["markov_bits"] is None
        else f"{facts['markov_bits']:.2f} under an order-{MARKOV_ORDER} Markov model, "
    )
    measured = facts["measured_characters"]
    extent = f" (first {measured:,} {noun})" if measured < facts["characters"] else ""
    yield f"bits per {unit}", f"{markov}{facts['xz_bits']:.2f} under xz{extent}"
