"""The text that a command reads: its options, a bar while it is read, and what was noticed on the way."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charrnn.cli import options
from charrnn.cli.console import Console
from charrnn.errors import SettingError

if TYPE_CHECKING:
    from charrnn.config import ReadConfig
    from charrnn.data.corpus import Corpus
    from charrnn.data.sources import File
    from charrnn.data.token_cache import Cache

LARGE = 20_000_000  # bytes, which take long enough for a bar

Unit = Annotated[str | None, typer.Option("--unit", metavar="char|byte", help="What is predicted.  [default: char]")]
Glob = Annotated[
    str | None, typer.Option("--glob", metavar="PATTERN", help="Files of a directory.  [default: **/*.txt]")
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", metavar="NAME", help="Of the text, such as cp1251.  [default: utf-8]")
]
Newlines = Annotated[
    str | None,
    typer.Option("--newlines", metavar="unix|keep", help="CR and CRLF become LF, or stay.  [default: unix]"),
]
Normalize = Annotated[
    str | None, typer.Option("--normalize", metavar="none|nfc|nfkc", help="Unicode's forms.  [default: none]")
]
MinCount = Annotated[
    int | None,
    typer.Option("--min-count", metavar="N", help="Rarer characters become one unknown one.  [default: 1]"),
]
Lines = Annotated[bool, typer.Option("--lines", help="Every line is a document.")]
Files = Annotated[bool, typer.Option("--files", help="Every file is a document.")]
Documents = Annotated[
    str | None, typer.Option("--documents", metavar="SEPARATOR", help="This stands between documents.")
]
CacheFolder = Annotated[
    str | None,
    typer.Option("--cache", metavar="DIR", help="Keep ids here.  [default: of a large text, beside the model]"),
]


def asked(*, lines: bool, files: bool, documents: str | None, **others: Any) -> dict[str, Any]:
    """The fields of `ReadConfig` that the user gave, by the options above.

    Raises:
        SettingError: two ways to tell documents apart.
    """
    given = [
        name for name, value in (("lines", lines), ("files", files), ("documents", documents is not None)) if value
    ]
    if len(given) > 1:
        raise SettingError(given[1], f"given together with --{given[0]}", "give one of them")
    ways: Mapping[str, Any] = {}
    if given:
        kind = "separated" if documents is not None else given[0]
        ways = {"documents": kind, "separator": documents or ""}
    return {**options.given(**others), **ways}


def words(config: "ReadConfig") -> list[str]:
    """The options by which a text is read so."""
    words = [] if config.documents == "none" else [f"--{config.documents}"]
    if config.separator:
        words = ["--documents", config.separator]
    for name in ("unit", "encoding", "newlines", "normalize", "min_count"):
        if (value := getattr(config, name)) != getattr(type(config), name):
            words += [options.flag(name), str(value)]
    return words


def files(paths: Sequence[str], glob: str | None) -> "list[File]":
    """The files behind some paths.

    Raises:
        CorpusError: a folder without any.
        SettingError: there is no such glob.
    """
    from charrnn.data import sources

    return list(sources.find(paths, sources.GLOB if glob is None else glob))


def read(
    paths: Sequence[str],
    files: "Sequence[File]",
    config: "ReadConfig",
    console: Console,
    cache: "Cache | None" = None,
    look: Callable[[str], object] | None = None,
    sift: Callable[[str], str] = str,
    collect: bool = True,
) -> "Corpus":
    """Reads a text, with a bar if that takes a while; see `charrnn.data.reading.read`.

    Raises:
        CharrnnError: it cannot be read.
    """
    from charrnn.data import reading

    size = sum(identity[1] for file in files if (identity := file.identity))

    def note(text: str) -> None:
        console.line(f"note: {text}")

    ways: dict[str, Any] = {"files": files, "cache": cache, "note": note, "sift": sift, "collect": collect}
    if look is not None:
        ways["look"] = look
    if size < LARGE and "-" not in paths:
        return reading.read(paths, config, **ways)
    with console.bar(total=size or None, unit="B") as bar:
        return reading.read(paths, config, advance=bar.update, **ways)
