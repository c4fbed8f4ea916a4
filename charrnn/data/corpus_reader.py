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
from charrnn.data.decoding import DecodingStats, TextDecoder, clean_text
from charrnn.data.encoder import BoundaryMarker, DocumentStarts, Encoder
from charrnn.data.sources import File
from charrnn.data.token_cache import CachedTokens, CacheWriter, TokenCache, signature
from charrnn.data.token_store import CountingWriter, TokenWriter
from charrnn.data.vocabulary import BOUNDARY, Vocabulary
from charrnn.errors import CorpusError

DEFAULT_READ_CONFIG = ReadConfig()
KEEP_NEWLINES = ReadConfig(newlines="keep")
MAX_WATCHED_FILES = 100  # files that are looked at again while a run goes on
_SNIFFED = 8192  # bytes in which a NUL tells a binary file among those of a folder
_MIN_BATCH = 1 << 16  # characters that are numbered at once, at least, and bytes that another core is asked to hash
_SURROGATE = "holds half of a surrogate pair"
_NOTHING: Callable[[Any], object] = lambda _: None  # noqa: E731


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to see of a text while it is read, and to do to it."""

    on_bytes: Callable[[int], object] = _NOTHING  # is called with each number of bytes that were read
    on_note: Callable[[str], object] = _NOTHING  # is called with what a person should know
    on_text: Callable[[str], object] = (
        _NOTHING  # called with each piece of the text, as `TextDecoder.feed` returns it
    )
    filter_text: Callable[[str], str] = (
        str  # is given text between two boundaries, and returns what is to be read of it
    )
    collect: bool = True  # whether ids are wanted; without them there are only counts


NO_HOOKS = Hooks()


def read_corpus(
    paths: Sequence[str],
    config: ReadConfig = DEFAULT_READ_CONFIG,
    *,
    glob: str = sources.GLOB,
    files: Sequence[File] | None = None,
    cache: TokenCache | None = None,
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
    files = list(sources.find_files(paths, glob)) if files is None else files
    name, label = sources.default_name(paths), ", ".join(paths)
    mine = signature(files, config)
    writer: TokenWriter | CacheWriter = TokenWriter(None, _size(files)) if hooks.collect else CountingWriter()
    if cache is not None:
        path = cache.path(name, files, config)
        if mine and (kept := cache.find(path, mine)):
            return _corpus(name, label, config, kept, files, cached=True)
        writer = cache.open_writer(path if mine else None, _size(files))
    try:
        facts, starts = _encode(files, config, writer, hooks)
        _check(label, config, facts, writer.length)
        if mine and signature(files, config) != mine:
            changed = "changed while it was read" if len(files) == 1 else "hold a file that changed while it was read"
            raise CorpusError(label, changed, "try again once nothing writes to it")
        facts |= {"signature": mine}
        stored = writer.commit(facts, starts) if isinstance(writer, CacheWriter) else writer.finish()
    except BaseException:
        writer.discard()
        raise
    return _corpus(name, label, config, (facts, stored, starts), files)


def corpus_from_text(text: str, config: ReadConfig = KEEP_NEWLINES, name: str = "text") -> Corpus:
    """A text that is there already.

    Raises:
        CorpusError: fewer than two characters to predict from, no document, or a text that cannot be written.
    """
    encoding = _Encoding(config, TokenWriter())
    try:
        if config.unit == "byte":
            text = text.encode("utf-8", "surrogateescape").decode("latin-1")
        encoding.add(clean_text(text, config), last=True)
    except UnicodeEncodeError:
        raise CorpusError(name, _SURROGATE, "decode the text with its encoding") from None
    facts, starts = encoding.finish(DecodingStats())
    _check(name, config, facts, encoding.writer.length)
    return _corpus(name, name, config, (facts, encoding.writer.finish(), starts), [])


class _Digest:
    """SHA-256, computed by another core while this one goes on."""

    def __init__(self) -> None:
        self._sum, self._pool = hashlib.sha256(), ThreadPoolExecutor(1)
        self._begun: Future[None] | None = None

    def update(self, data: bytes) -> None:
        """Takes more bytes; at most one piece waits."""
        self._settle()
        if len(data) < _MIN_BATCH:
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

    def __init__(self, config: ReadConfig, writer: TokenWriter, filter_text: Callable[[str], str] = str) -> None:
        self.config, self.writer, self._filter_text = config, writer, filter_text
        self.starts = DocumentStarts()
        self._documents = config.documents != "none"
        self._marker = BoundaryMarker(config)
        self._encoder = Encoder(config.unit, self._marker.boundary if self._documents else "")
        self._digest = _Digest()
        # Text that is not numbered yet: small files are numbered together.
        self._waiting = [self._marker.boundary] if self._documents else []
        self._waits = 0

    def add(self, text: str, *, last: bool) -> None:
        """Takes more text, with which a file ends if it is the last of it; as of `TextDecoder.feed`."""
        self._digest.update(text.encode("utf-8" if self.config.unit == "char" else "latin-1"))
        if last and self._documents:
            self._digest.update(b"\xff")  # which no text holds
        marked, boundary = self._marker.feed(text, last=last), self._marker.boundary
        if self._filter_text is not str:
            marked = boundary.join(map(self._filter_text, marked.split(boundary)))
        self._waiting.append(marked)
        self._waits += len(marked)
        if self._waits >= _MIN_BATCH:
            self._number()

    def finish(self, decoding_stats: DecodingStats) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """What is known once all of it came, and where documents start."""
        self._number()
        starts = self.starts.finish()
        facts = {
            "sha256": self._digest.hexdigest(),
            "counts": self._encoder.counts,
            "num_documents": self.starts.num_documents,
            "longest_document": self.starts.longest_document,
            "encodings": decoding_stats.encodings,
            "line_ends": decoding_stats.line_ends,
        }
        return facts, starts

    def _number(self) -> None:
        ids = self._encoder.encode("".join(self._waiting))
        self._waiting, self._waits = [], 0
        if self._documents:
            self.starts.add(ids, self.writer.length)
        self.writer.append(ids, len(self._encoder.symbols))


def _encode(
    files: Sequence[File],
    config: ReadConfig,
    writer: TokenWriter,
    hooks: Hooks,
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    encoding, decoding_stats, skipped = _Encoding(config, writer, hooks.filter_text), DecodingStats(), list[str]()
    for file in files:
        decoder = TextDecoder(config, file.name, decoding_stats)
        for number, piece in enumerate(sources.read_blocks(file, hooks.on_bytes)):
            if number == 0 and file.in_directory and decoder.is_binary(piece[:_SNIFFED]):
                skipped.append(file.name)
                break
            last = len(piece) < sources.READ_SIZE
            text = decoder.feed(piece, last=last)
            hooks.on_text(text)
            try:
                encoding.add(text, last=last)
            except UnicodeEncodeError:  # some codecs let it pass
                raise CorpusError(file.name, _SURROGATE, "give its own --encoding") from None
    if skipped:
        more = f" and {len(skipped) - 1:,} more" if len(skipped) > 1 else ""
        hooks.on_note(f"left out what is binary: {skipped[0]}{more}")
    facts, starts = encoding.finish(decoding_stats)
    if config.documents == "separated" and facts["num_documents"] <= len(files):
        hooks.on_note(f"the separator {config.separator!r} never comes")
    return facts, starts


def _check(label: str, config: ReadConfig, facts: Mapping[str, Any], length: int) -> None:
    if config.documents != "none" and facts["num_documents"] < 1:
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
    kept: CachedTokens,
    files: Sequence[File],
    *,
    cached: bool = False,
) -> Corpus:
    facts, stored, starts = kept
    counts = dict(facts["counts"])
    return Corpus(
        name, label, config, stored, counts, Vocabulary.from_counts(counts, config.unit, config.min_count),
        facts["sha256"], starts, facts["num_documents"], facts["longest_document"],
        DecodingStats(facts["encodings"], facts["line_ends"]), cached,
        tuple((file, file.identity) for file in files[:MAX_WATCHED_FILES]),
    )  # fmt: skip


def _size(files: Iterable[File]) -> int:
    """Bytes on disk, as far as that can be known."""
    return sum(identity[1] for file in files if (identity := file.identity))
