"""The text that a command reads: its options, a bar while it is read, and what was decoding_stats on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from charrnn.cli import options
from charrnn.cli.console import Console
from charrnn.config import GLOB
from charrnn.config.overrides import Overrides
from charrnn.errors import SettingError

if TYPE_CHECKING:
    from charrnn.config import ReadConfig
    from charrnn.data.corpus import Corpus
    from charrnn.data.sources import File
    from charrnn.data.token_cache import TokenCache

BAR_BYTES = 20_000_000  # bytes, which take long enough for a bar

Glob = Annotated[
    str | None,
    typer.Option(
        "--glob", metavar="PATTERN", help=f"Files to read in a directory.  [default: {GLOB}]", rich_help_panel="Text"
    ),
]


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Which files a text consists of, and what its documents are."""

    lines: Annotated[bool, typer.Option("--lines", help="Every line is a document.", rich_help_panel="Text")] = False
    files: Annotated[bool, typer.Option("--files", help="Every file is a document.", rich_help_panel="Text")] = False
    separated_by: Annotated[
        str | None,
        typer.Option(
            "--documents", metavar="SEPARATOR", help="This string separates documents.", rich_help_panel="Text"
        ),
    ] = None
    glob: Glob = None

    def apply_to(self, overrides: Overrides) -> Overrides:
        """Return the overrides with the documents that were chosen.

        Raises:
            SettingError: two kinds of documents, or an empty separator.
        """
        kinds = {"lines": self.lines, "files": self.files, "documents": self.separated_by is not None}
        chosen = [name for name, given in kinds.items() if given]
        if len(chosen) > 1:
            raise SettingError(chosen[1], f"given together with --{chosen[0]}", "give one of them")
        if self.lines or self.files:
            return replace(overrides, documents="lines" if self.lines else "files", separator="")
        if self.separated_by is not None:
            return replace(overrides, documents="separated", separator=self.separated_by)
        return overrides


@dataclass(frozen=True)
class Source:
    """The files that were found behind some paths."""

    paths: Sequence[str]
    files: "Sequence[File]"


def cli_args(config: "ReadConfig") -> list[str]:
    """The options by which a text is read so."""
    cli_args = [] if config.documents == "none" else [f"--{config.documents}"]
    if config.separator:
        cli_args = ["--documents", config.separator]
    for name in ("unit", "encoding", "newlines", "normalize", "min_count"):
        if (value := getattr(config, name)) != getattr(type(config), name):
            cli_args += [options.flag(name), str(value)]
    return cli_args


def find_files(paths: Sequence[str], glob: str | None) -> Source:
    """Find the files behind some paths.

    Raises:
        CorpusError: a folder without any.
        SettingError: there is no such glob.
    """
    from charrnn.data import sources

    return Source(paths, list(sources.find_files(paths, GLOB if glob is None else glob)))


def read_corpus(
    source: Source,
    config: "ReadConfig",
    console: Console,
    cache: "TokenCache | None" = None,
    on_text: Callable[[str], object] | None = None,
    filter_text: Callable[[str], str] = str,
) -> "Corpus":
    """Read a text, with a bar if that takes a while; see `charrnn.data.corpus_reader.read`.

    Args:
        source: its files.
        config: how it is read.
        console: shows the bar.
        cache: where the ids of a large text are kept.
        on_text: called with each piece of the text; the ids are not kept then.
        filter_text: leaves out what is not to be read.

    Raises:
        CharrnnError: it cannot be read.
    """
    from charrnn.data import corpus_reader

    size = sum(identity[1] for file in source.files if (identity := file.identity))

    def read_all(advance: Callable[[int], object]) -> "Corpus":
        hooks = corpus_reader.Hooks(
            advance,
            lambda text: console.line(f"note: {text}"),
            on_text or (lambda _: None),
            filter_text,
            collect=on_text is None,
        )
        return corpus_reader.read_corpus(source.paths, config, files=source.files, cache=cache, hooks=hooks)

    if size < BAR_BYTES and "-" not in source.paths:
        return read_all(lambda _: None)
    with console.bar(total=size or None, unit="B") as bar:
        return read_all(bar.update)
