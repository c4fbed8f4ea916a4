"""Reads files into a corpus in one pass, block by block. The text may be larger than memory."""

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
from charrnn.data.token_cache import CachedTokens, CacheWriter, TextMetadata, TokenCache, signature
from charrnn.data.token_store import CountingWriter, TokenWriter
from charrnn.data.vocabulary import BOUNDARY, Vocabulary
from charrnn.errors import CorpusError

DEFAULT_READ_CONFIG = ReadConfig()
KEEP_NEWLINES = ReadConfig(newlines="keep")
MAX_WATCHED_FILES = 100  # maximum number of files that a run checks for changes
_SNIFF_BYTES = 8192  # a NUL byte in the first bytes marks a binary file in a directory
_MIN_BATCH = 1 << 16  # minimum of characters to encode at once, and of bytes to hash in another thread
_SURROGATE = "contains half of a surrogate pair"
_NO_OP: Callable[[Any], object] = lambda _: None  # noqa: E731


@dataclass(frozen=True)
class Hooks:
    """Functions that are called while a text is read."""

    on_bytes: Callable[[int], object] = _NO_OP  # called with the number of bytes of each read
    on_note: Callable[[str], object] = _NO_OP  # called with each notice for the user
    on_text: Callable[[str], object] = _NO_OP  # called with each piece of decoded text
    filter_text: Callable[[str], str] = str  # called with text between boundaries; returns the text to encode
    collect: bool = True  # whether to keep the ids; otherwise the corpus has counts only


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
    """Read files, directories and stdin as one text, in the order given.

    Args:
        paths: Paths of files and directories; ``-`` is stdin.
        config: How to read the text.
        glob: Pattern of the files to read in a directory.
        files: The files at ``paths``, if they are already known.
        cache: Cache for the ids of large texts.
        hooks: Functions to call while reading.

    Raises:
        CorpusError: If a file cannot be read as text, or the text has no document or fewer than two characters.
        SettingError: If the glob is not a valid pattern.
        FileError: If neither the disk nor the memory has room for the ids.
    """
    files = list(sources.find_files(paths, glob)) if files is None else files
    name, label = sources.default_name(paths), ", ".join(paths)
    source_signature = signature(files, config)
    writer: TokenWriter | CacheWriter = TokenWriter(None, _size(files)) if hooks.collect else CountingWriter()
    if cache is not None:
        path = cache.path(name, files, config)
        if source_signature and (tokens := cache.find(path, source_signature)):
            return _corpus(name, label, config, tokens, files, cached=True)
        writer = cache.open_writer(path if source_signature else None, _size(files))
    try:
        metadata, starts = _encode(files, config, writer, hooks, label)
        if source_signature and signature(files, config) != source_signature:
            reason = "changed while it was read" if len(files) == 1 else "a file changed while it was read"
            raise CorpusError(label, reason, "try again when no program is writing to it")
        if isinstance(writer, CacheWriter):
            stored = writer.commit(metadata, starts, source_signature)
        else:
            stored = writer.finish()
    except BaseException:
        writer.discard()
        raise
    return _corpus(name, label, config, CachedTokens(metadata, stored, starts), files)


def corpus_from_text(text: str, config: ReadConfig = KEEP_NEWLINES, name: str = "text") -> Corpus:
    """Return a string as a corpus.

    Args:
        text: The text.
        config: How to read the text.
        name: Name of the corpus, also in error messages.

    Raises:
        CorpusError: If the text has fewer than two characters, no document, or half of a surrogate pair.
    """
    encoder = _CorpusEncoder(config, TokenWriter())
    try:
        if config.unit == "byte":
            text = text.encode("utf-8", "surrogateescape").decode("latin-1")
        encoder.add(clean_text(text, config), last=True)
    except UnicodeEncodeError:
        raise CorpusError(name, _SURROGATE, "decode the text with the right encoding") from None
    metadata, starts = encoder.finish(DecodingStats(), name)
    return _corpus(name, name, config, CachedTokens(metadata, encoder.writer.finish(), starts), [])


class _BackgroundDigest:
    """A SHA-256 digest that is computed in another thread."""

    def __init__(self) -> None:
        self._hash, self._pool = hashlib.sha256(), ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def update(self, data: bytes) -> None:
        """Add bytes. Waits until the previous ones are hashed."""
        self._wait()
        if len(data) < _MIN_BATCH:
            self._hash.update(data)
        else:
            self._pending = self._pool.submit(self._hash.update, data)

    def hexdigest(self) -> str:
        """Return the digest of all bytes."""
        self._wait()
        self._pool.shutdown()
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None


class _CorpusEncoder:
    """Encoder of a text that arrives in pieces. It also computes the digest and the document starts."""

    def __init__(self, config: ReadConfig, writer: TokenWriter, filter_text: Callable[[str], str] = str) -> None:
        self.config, self.writer, self._filter_text = config, writer, filter_text
        self.starts = DocumentStarts()
        self._documents = config.documents != "none"
        self._marker = BoundaryMarker(config)
        self._encoder = Encoder(config.unit, self._marker.boundary if self._documents else "")
        self._digest = _BackgroundDigest()
        # Text that is not encoded yet, so that many small files are encoded in one call.
        self._buffer = [self._marker.boundary] if self._documents else []
        self._buffered = 0

    def add(self, text: str, *, last: bool) -> None:
        """Add a piece of text.

        Args:
            text: Text as `TextDecoder.feed` returns it.
            last: Whether this piece ends its file.
        """
        self._digest.update(text.encode("utf-8" if self.config.unit == "char" else "latin-1"))
        if last and self._documents:
            self._digest.update(b"\xff")  # does not occur in UTF-8
        marked, boundary = self._marker.feed(text, last=last), self._marker.boundary
        if self._filter_text is not str:
            marked = boundary.join(map(self._filter_text, marked.split(boundary)))
        self._buffer.append(marked)
        self._buffered += len(marked)
        if self._buffered >= _MIN_BATCH:
            self._flush()

    def finish(self, decoding_stats: DecodingStats, label: str) -> tuple[TextMetadata, NDArray[np.int64]]:
        """Return the metadata of the text, and the positions of document starts.

        Raises:
            CorpusError: If there is nothing to train on. ``label`` is the name of the text in the error.
        """
        self._flush()
        starts, counts = self.starts.finish(), self._encoder.counts
        _check(label, self.config, counts, self.starts.num_documents, self.writer.length)
        metadata = TextMetadata(
            sha256=self._digest.hexdigest(), counts=counts, num_documents=self.starts.num_documents,
            longest_document=self.starts.longest_document, encodings=decoding_stats.encodings,
            line_ends=decoding_stats.line_ends,
        )  # fmt: skip
        return metadata, starts

    def _flush(self) -> None:
        ids = self._encoder.encode("".join(self._buffer))
        self._buffer, self._buffered = [], 0
        if self._documents:
            self.starts.add(ids, self.writer.length)
        self.writer.append(ids, len(self._encoder.symbols))


def _encode(
    files: Sequence[File],
    config: ReadConfig,
    writer: TokenWriter,
    hooks: Hooks,
    label: str,
) -> tuple[TextMetadata, NDArray[np.int64]]:
    encoder, decoding_stats, skipped = _CorpusEncoder(config, writer, hooks.filter_text), DecodingStats(), list[str]()
    for file in files:
        decoder = TextDecoder(config, file.name, decoding_stats)
        for number, block in enumerate(sources.read_blocks(file, hooks.on_bytes)):
            if number == 0 and file.in_directory and decoder.is_binary(block[:_SNIFF_BYTES]):
                skipped.append(file.name)
                break
            last = len(block) < sources.READ_SIZE
            text = decoder.feed(block, last=last)
            hooks.on_text(text)
            try:
                encoder.add(text, last=last)
            except UnicodeEncodeError:  # some codecs decode surrogates
                raise CorpusError(file.name, _SURROGATE, "give the right --encoding") from None
    if skipped:
        more = f" and {len(skipped) - 1:,} more" if len(skipped) > 1 else ""
        hooks.on_note(f"skipped binary {'files' if more else 'file'} {skipped[0]}{more}")
    if marks := decoding_stats.inner_boms:
        noun = "a byte order mark" if marks == 1 else f"{marks:,} byte order marks"
        hooks.on_note(f"removed {noun} within the text, at the start of a line")
    metadata, starts = encoder.finish(decoding_stats, label)
    if config.documents == "separated" and metadata.num_documents <= len(files):
        hooks.on_note(f"the separator {config.separator!r} does not occur in the text")
    return metadata, starts


def _check(label: str, config: ReadConfig, counts: Mapping[str, int], num_documents: int, length: int) -> None:
    """Raise CorpusError if there is nothing to train on."""
    if config.documents != "none" and num_documents < 1:
        raise CorpusError(label, "contains no document", "give a text that is not empty")
    if length < 2:
        noun = "bytes" if config.unit == "byte" else "characters"
        reason = f"contains fewer than two {noun}, so there is nothing to predict" if length else "is empty"
        raise CorpusError(label, reason, "give a longer text" if length else "give a file with text in it")
    if max(count for symbol, count in counts.items() if symbol != BOUNDARY) < config.min_count:
        reason = f"every character occurs fewer than {config.min_count} times"
        raise CorpusError(label, reason, "give a smaller --min-count")


def _corpus(
    name: str,
    label: str,
    config: ReadConfig,
    tokens: CachedTokens,
    files: Sequence[File],
    *,
    cached: bool = False,
) -> Corpus:
    metadata, counts = tokens.metadata, tokens.metadata.counts
    return Corpus(
        name, label, config, tokens.ids, counts, Vocabulary.from_counts(counts, config.unit, config.min_count),
        metadata.sha256, tokens.starts, metadata.num_documents, metadata.longest_document,
        DecodingStats(dict(metadata.encodings), dict(metadata.line_ends)), cached,
        tuple((file, file.identity) for file in files[:MAX_WATCHED_FILES]),
    )  # fmt: skip


def _size(files: Iterable[File]) -> int:
    """Return the size of the files on disk in bytes, without pipes."""
    return sum(identity[1] for file in files if (identity := file.identity))
