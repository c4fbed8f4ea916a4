"""From files to a corpus in one pass, by the piece, whatever the size of the text.

Knows nothing about networks or batches.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.config import ReadConfig
from charrnn.data import sources
from charrnn.data.corpus import Corpus
from charrnn.data.decoding import Decoder, Noticed, tidied
from charrnn.data.encoder import Encoder, Marker, Starts
from charrnn.data.sources import File
from charrnn.data.token_cache import Cache, Kept, Writing, signature
from charrnn.data.token_store import TokenWriter, Uncollected
from charrnn.data.vocabulary import BOUNDARY, Vocabulary
from charrnn.errors import CorpusError

USUALLY = ReadConfig()
AS_IT_STANDS = ReadConfig(newlines="keep")
WATCHED = 100  # files that are looked at again while a run goes on
_SNIFFED = 8192  # bytes in which a NUL tells a binary file among those of a folder
_WORTH_IT = 1 << 16  # characters that are numbered at once, at least, and bytes that another core is asked to hash
_SURROGATE = "holds half of a surrogate pair"
_NOTHING: Callable[[Any], object] = lambda _: None  # noqa: E731


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to see of a text while it is read, and to do to it."""

    advance: Callable[[int], object] = _NOTHING  # is called with each number of bytes that were read
    note: Callable[[str], object] = _NOTHING  # is called with what a person should know
    look: Callable[[str], object] = _NOTHING  # called with each piece of the text, as `Decoder.feed` returns it
    sift: Callable[[str], str] = str  # is given text between two boundaries, and returns what is to be read of it
    collect: bool = True  # whether ids are wanted; without them there are only counts


NO_HOOKS = Hooks()


def read(
    paths: Sequence[str],
    config: ReadConfig = USUALLY,
    *,
    glob: str = sources.GLOB,
    files: Sequence[File] | None = None,
    cache: Cache | None = None,
    hooks: Hooks = NO_HOOKS,
) -> Corpus:
    """Read files, folders and stdin as one text, in the order given.

    Args:
        paths: of files and folders, and ``-`` for stdin.
        config: how they are read.
        glob: which files of a folder.
        files: behind the paths, where that is known already.
        cache: where the ids of a large text are kept, and found again.
        hooks: what is called on the way.

    Raises:
        CorpusError: what cannot be read as a text, fewer than two characters to predict from, or no document.
        SettingError: there is no such glob.
        FileError: no room for the ids.
    """
    files = list(sources.find(paths, glob)) if files is None else files
    name, label = sources.name_of(paths), ", ".join(paths)
    mine = signature(files, config)
    spool: TokenWriter | Writing = TokenWriter(None, _size(files)) if hooks.collect else Uncollected()
    if cache is not None:
        path = cache.path(name, files, config)
        if mine and (kept := cache.find(path, mine)):
            return _corpus(name, label, config, kept, files, cached=True)
        spool = cache.begin(path if mine else None, _size(files))
    try:
        facts, starts = _encode(files, config, spool, hooks)
        _check(label, config, facts, spool.length)
        if mine and signature(files, config) != mine:
            changed = "changed while it was read" if len(files) == 1 else "hold a file that changed while it was read"
            raise CorpusError(label, changed, "try again once nothing writes to it")
        facts |= {"signature": mine}
        stored = spool.keep(facts, starts) if isinstance(spool, Writing) else spool.finish()
    except BaseException:
        spool.discard()
        raise
    return _corpus(name, label, config, (facts, stored, starts), files)


def of(text: str, config: ReadConfig = AS_IT_STANDS, name: str = "text") -> Corpus:
    """A text that is there already.

    Raises:
        CorpusError: fewer than two characters to predict from, no document, or a text that cannot be written.
    """
    encoding = _Encoding(config, TokenWriter())
    try:
        if config.unit == "byte":
            text = text.encode("utf-8", "surrogateescape").decode("latin-1")
        encoding.add(tidied(text, config), last=True)
    except UnicodeEncodeError:
        raise CorpusError(name, _SURROGATE, "decode the text with its encoding") from None
    facts, starts = encoding.finish(Noticed())
    _check(name, config, facts, encoding.spool.length)
    return _corpus(name, name, config, (facts, encoding.spool.finish(), starts), [])


class _Digest:
    """SHA-256, computed by another core while this one goes on."""

    def __init__(self) -> None:
        self._sum, self._pool = hashlib.sha256(), ThreadPoolExecutor(1)
        self._begun: Future[None] | None = None

    def update(self, data: bytes) -> None:
        """Takes more bytes; at most one piece waits."""
        self._settle()
        if len(data) < _WORTH_IT:
            self._sum.update(data)
        else:
            self._begun = self._pool.submit(self._sum.update, data)

    def hexdigest(self) -> str:
        """Of all of them."""
        self._settle()
        self._pool.shutdown()
        return self._sum.hexdigest()

    def _settle(self) -> None:
        if self._begun is not None:
            self._begun.result()
            self._begun = None


class _Encoding:
    """Text on its way into ids."""

    def __init__(self, config: ReadConfig, spool: TokenWriter, sift: Callable[[str], str] = str) -> None:
        self.config, self.spool, self._sift = config, spool, sift
        self.starts = Starts()
        self._documents = config.documents != "none"
        self._marker = Marker(config)
        self._encoder = Encoder(config.unit, self._marker.boundary if self._documents else "")
        self._digest = _Digest()
        # Text that is not numbered yet: small files are numbered together.
        self._waiting = [self._marker.boundary] if self._documents else []
        self._waits = 0

    def add(self, text: str, *, last: bool) -> None:
        """Takes more text, with which a file ends if it is the last of it; as of `Decoder.feed`."""
        self._digest.update(text.encode("utf-8" if self.config.unit == "char" else "latin-1"))
        if last and self._documents:
            self._digest.update(b"\xff")  # which no text holds
        marked, boundary = self._marker.feed(text, last=last), self._marker.boundary
        if self._sift is not str:
            marked = boundary.join(map(self._sift, marked.split(boundary)))
        self._waiting.append(marked)
        self._waits += len(marked)
        if self._waits >= _WORTH_IT:
            self._number()

    def finish(self, noticed: Noticed) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """What is known once all of it came, and where documents start."""
        self._number()
        starts = self.starts.finish()
        facts = {
            "sha256": self._digest.hexdigest(), "counts": self._encoder.counts, "documents": self.starts.documents,
            "longest": self.starts.longest, "encodings": noticed.encodings, "line_ends": noticed.line_ends,
        }  # fmt: skip
        return facts, starts

    def _number(self) -> None:
        ids = self._encoder.encode("".join(self._waiting))
        self._waiting, self._waits = [], 0
        if self._documents:
            self.starts.add(ids, self.spool.length)
        self.spool.append(ids, len(self._encoder.symbols))


def _encode(
    files: Sequence[File],
    config: ReadConfig,
    spool: TokenWriter,
    hooks: Hooks,
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    encoding, noticed, skipped = _Encoding(config, spool, hooks.sift), Noticed(), list[str]()
    for file in files:
        decoder = Decoder(config, file.name, noticed)
        for number, piece in enumerate(sources.pieces(file, hooks.advance)):
            if number == 0 and file.found and decoder.is_binary(piece[:_SNIFFED]):
                skipped.append(file.name)
                break
            last = len(piece) < sources.PIECE
            text = decoder.feed(piece, last=last)
            hooks.look(text)
            try:
                encoding.add(text, last=last)
            except UnicodeEncodeError:  # some codecs let it pass
                raise CorpusError(file.name, _SURROGATE, "give its own --encoding") from None
    if skipped:
        more = f" and {len(skipped) - 1:,} more" if len(skipped) > 1 else ""
        hooks.note(f"left out what is binary: {skipped[0]}{more}")
    facts, starts = encoding.finish(noticed)
    if config.documents == "separated" and facts["documents"] <= len(files):
        hooks.note(f"the separator {config.separator!r} never comes")
    return facts, starts


def _check(label: str, config: ReadConfig, facts: Mapping[str, Any], length: int) -> None:
    if config.documents != "none" and facts["documents"] < 1:
        raise CorpusError(label, "holds no document", "give a text with something in it")
    if length < 2:
        noun = "bytes" if config.unit == "byte" else "characters"
        reason = f"holds fewer than two {noun}, so there is nothing to predict" if length else "is empty"
        raise CorpusError(label, reason, "give a longer text" if length else "give a file with text in it")
    if max(count for symbol, count in facts["counts"].items() if symbol != BOUNDARY) < config.min_count:
        reason = f"has no character but those that come fewer than {config.min_count} times"
        raise CorpusError(label, reason, "give a smaller --min-count")


def _corpus(
    name: str,
    label: str,
    config: ReadConfig,
    kept: Kept,
    files: Sequence[File],
    *,
    cached: bool = False,
) -> Corpus:
    facts, stored, starts = kept
    counts = dict(facts["counts"])
    return Corpus(
        name, label, config, stored, counts, Vocabulary.counted(counts, config.unit, config.min_count),
        facts["sha256"], starts, facts["documents"], facts["longest"],
        Noticed(facts["encodings"], facts["line_ends"]), cached,
        tuple((file, file.identity) for file in files[:WATCHED]),
    )  # fmt: skip


def _size(files: Iterable[File]) -> int:
    """Bytes on disk, as far as that can be known."""
    return sum(identity[1] for file in files if (identity := file.identity))
