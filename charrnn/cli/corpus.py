"""``charrnn corpus``: named texts to train on, and whether a text of one's own is fit for it."""

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from charrnn.cli import options
from charrnn.cli.console import Console, emit
from charrnn.errors import FileError, SettingError

if TYPE_CHECKING:
    from charrnn.text.catalogue import Remote

RARE = 10  # characters seen fewer times than this are rare
SHOWN = 12  # of them by name

app = typer.Typer(help="Named texts to train on; is this text fit to train on.", rich_markup_mode=None)


@app.command("list")
def list_(json_: options.Json = False) -> None:
    """List the corpora that `get` knows."""
    from charrnn.text.catalogue import CATALOGUE, Remote

    entries = [
        {
            "name": entry.name,
            "about": entry.about,
            "licence": entry.licence,
            "bytes": entry.size if isinstance(entry, Remote) else None,
            "url": entry.url if isinstance(entry, Remote) else None,
        }
        for entry in CATALOGUE
    ]
    if json_:
        emit(json.dumps(entries) + "\n")
        return
    for entry in entries:
        where = f"{entry['bytes']:>11,} bytes" if entry["bytes"] else "made on the spot "
        emit(f"{entry['name']:<17} {where}  {entry['about']} ({entry['licence']})\n")


def _known(name: str) -> str:
    """A name that is in the catalogue; another one is wrong usage."""
    from charrnn.text import catalogue

    try:
        catalogue.find(name)
    except SettingError as error:
        raise typer.BadParameter(f"{error.reason}; {error.advice}") from None
    return name


@app.command()
def get(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="One of `charrnn corpus list`.", show_default=False, callback=_known),
    ],
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write corpora/NAME.txt and print that path."""
    from charrnn import files
    from charrnn.text import catalogue

    entry = catalogue.find(name)
    path = catalogue.FOLDER / f"{entry.name}.txt"
    if isinstance(entry, catalogue.Made):
        data = entry.make().encode("utf-8")
        there = path.is_file() and path.read_bytes() == data
    else:
        there = path.is_file() and catalogue.matches(entry, path.read_bytes())
    if path.exists() and not there and not force:
        raise FileError(str(path), f"is not {entry.name} as we know it", "move it away or add --force to replace it")
    if not there:
        files.check_writable(path)  # before anything is fetched
        if isinstance(entry, catalogue.Remote):
            data = _download(entry, Console(quiet=quiet))
        files.write_whole(path, data)
    emit(f"{path}\n")


def _download(entry: "Remote", console: Console) -> bytes:
    from charrnn.text import catalogue

    pieces = []
    with console.bar(total=entry.size, unit="B") as bar:
        for piece in catalogue.download(entry):
            pieces.append(piece)
            bar.update(len(piece))
    return b"".join(pieces)


@app.command()
def check(
    text: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Files, directories, or - for stdin.", show_default=False)
    ],
    json_: options.Json = False,
) -> None:
    """Say what a text is made of, and what `train` would make of it on an ordinary laptop."""
    from charrnn.text import sources
    from charrnn.text.corpus import Corpus
    from charrnn.text.vocabulary import describe
    from charrnn.training.plan import make_plan, typical_pace

    source = sources.read(text)
    corpus = Corpus.of(source)
    counts = Counter(source.text)
    rare = sorted((character for character in counts if counts[character] < RARE), key=lambda c: (counts[c], c))
    plan = make_plan(len(corpus.ids), len(corpus.vocabulary), {"device": "cpu"}, typical_pace)
    if json_:
        facts = {
            "files": list(source.files),
            "encoding": source.encoding,
            "line_endings": source.line_endings,
            "characters": len(corpus.ids),
            "distinct": len(corpus.vocabulary),
            "rare": {character: counts[character] for character in rare},
            "sha256": corpus.sha256,
            "plan": plan.summary,
            "notes": list(plan.notes),
        }
        emit(json.dumps(facts) + "\n")
        return
    endings = ", ".join(f"{number:,} {name}" for name, number in source.line_endings.items() if number) or "none"
    emit(f"{'encoding':<14}{source.encoding}\n")
    emit(f"{'line endings':<14}{endings}{' (all become LF)' if 'CR' in endings else ''}\n")
    emit(f"{'characters':<14}{len(corpus.ids):,}, {len(corpus.vocabulary):,} distinct\n")
    emit(f"{'rare':<14}{len(rare):,} seen fewer than {RARE} times\n")
    for character in rare[:SHOWN]:
        emit(f"{'':<14}{counts[character]} x {describe(character)}\n")
    if len(rare) > SHOWN:
        emit(f"{'':<14}and {len(rare) - SHOWN:,} more\n")
    emit(f"{'plan':<14}{plan.summary}\n")
    for note in plan.notes:
        emit(f"{'note':<14}{note}\n")
