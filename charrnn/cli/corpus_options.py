"""Options that describe the text of a command, and reading this text with a progress bar."""

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

BAR_BYTES = 20_000_000  # smaller texts are read without a progress bar

Glob = Annotated[
    str | None,
    typer.Option(
        "--glob", metavar="PATTERN", help=f"Files to read in a directory.  [default: {GLOB}]", rich_help_panel="Text"
    ),
]


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Options that select the files of a text and divide it into documents."""

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
        """Return the overrides with these document options.

        Raises:
            SettingError: If two kinds of documents are chosen, or the separator is empty.
        """
        flags = {"lines": self.lines, "files": self.files, "documents": self.separated_by is not None}
        chosen = [name for name, is_chosen in flags.items() if is_chosen]
        if len(chosen) > 1:
            raise SettingError(chosen[1], f"cannot be combined with --{chosen[0]}", "give one of them")
        if self.lines or self.files:
            return replace(overrides, documents="lines" if self.lines else "files", separator="")
        if self.separated_by is not None:
            return replace(overrides, documents="separated", separator=self.separated_by)
        return overrides


@dataclass(frozen=True)
class Source:
    """The paths of a text, and the files found there."""

    paths: Sequence[str]
    files: "Sequence[File]"


def cli_args(config: "ReadConfig") -> list[str]:
    """Return the command-line options that set a reading configuration."""
    args = [] if config.documents == "none" else [f"--{config.documents}"]
    if config.separator:
        args = ["--documents", config.separator]
    for name in ("unit", "encoding", "newlines", "normalize", "min_count"):
        if (value := getattr(config, name)) != getattr(type(config), name):
            args += [options.flag(name), str(value)]
    return args


def find_files(paths: Sequence[str], glob: str | None) -> Source:
    """Find the files of a text.

    Raises:
        CorpusError: If a directory contains no file that matches.
        SettingError: If the glob pattern is invalid.
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
    """Read a text; show a progress bar if it is large. See `charrnn.data.corpus_reader.read_corpus`.

    Args:
        source: Files of the text.
        config: Reading configuration.
        console: Console for notes and the progress bar.
        cache: Cache for the ids of a large text.
        on_text: Callback for each piece of the text. If given, the ids are not collected.
        filter_text: Function that removes symbols before the text is encoded.

    Raises:
        CharrnnError: If the text cannot be read.
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
