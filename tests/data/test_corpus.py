import gzip
import hashlib
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from charrnn.config import ReadConfig
from charrnn.data import corpus_reader, encoder, sources, token_store
from charrnn.data.corpus import Corpus
from charrnn.data.token_cache import TokenCache
from charrnn.data.token_store import FileTokens
from charrnn.data.token_view import TokenView
from charrnn.data.vocabulary import BOUNDARY, UNKNOWN, Vocabulary
from charrnn.errors import CacheWarning, CorpusError, FileError, UnknownCharacterError
from tests.conftest import POSIX

ANY_CHARACTER = st.characters(exclude_categories=("Cs",))
ANY_TEXT = st.text(ANY_CHARACTER, min_size=2)
UNITS = st.sampled_from(["char", "byte"])
SEPARATORS = st.sampled_from(["\n", "--", "aab", "é"])


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read texts in blocks of a few bytes."""
    monkeypatch.setattr(sources, "READ_SIZE", 7)


def write(name: str, data: str | bytes) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    return name


def string_of(text: TokenView, vocabulary: Vocabulary) -> str:
    return vocabulary.symbols_at(text.take(np.arange(len(text))).tolist())


def read(*paths: str, cache: TokenCache | None = None, **config: Any) -> Corpus:
    return corpus_reader.read_corpus(paths, ReadConfig(**config), cache=cache)


def text_of(read: Corpus) -> str:
    return string_of(read.tokens(), read.vocabulary)


def documents_of(read: Corpus) -> list[str]:
    first, *documents, last = text_of(read).split(BOUNDARY)
    assert (first, last) == ("", "")
    return documents


@given(ANY_TEXT, UNITS)
def test_a_corpus_holds_the_ids_of_the_text(text: str, unit: Any) -> None:
    corpus = corpus_reader.corpus_from_text(text, ReadConfig(unit=unit, newlines="keep"))
    ids = corpus.tokens().take(np.arange(len(corpus.tokens())))
    assert corpus.vocabulary.decode(ids.tolist()) == text
    assert np.array_equal(ids, corpus.vocabulary.encode(text))
    assert corpus.characters == len(text if unit == "char" else text.encode())
    assert corpus.num_documents == 0


@given(ANY_TEXT)
def test_the_vocabulary_contains_the_sorted_characters_of_the_text(text: str) -> None:
    assert corpus_reader.corpus_from_text(text).vocabulary.symbols == "".join(sorted(set(text)))


def test_a_byte_vocabulary_contains_every_byte() -> None:
    corpus = corpus_reader.corpus_from_text("ab", ReadConfig(unit="byte"))
    assert len(corpus.vocabulary) == 256
    assert corpus.vocabulary.encode("é").tolist() == list("é".encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(ANY_CHARACTER.filter(lambda c: c not in "\r\0\ufeff"), min_size=2))
def test_plain_and_compressed_files_give_the_same_text_and_digest(small_blocks: None, text: str) -> None:
    plain, packed = read(write("a.txt", text)), read(write("b.txt", gzip.compress(text.encode())))
    assert text_of(plain) == text_of(packed) == text
    assert plain.sha256 == packed.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_bytes_are_read_unchanged_with_the_digest_of_the_file() -> None:
    data = b"\x89PNG\r\n\x1a\n\0\0\xff" + bytes(range(256))
    corpus = read(write("picture.png", data), unit="byte")
    assert text_of(corpus).encode("utf-8", "surrogateescape") == data
    assert corpus.sha256 == hashlib.sha256(data).hexdigest()


def test_several_files_are_joined_in_the_given_order() -> None:
    corpus = read(
        write("b.txt", b"\xef\xbb\xbffirst\r\n"), write("a.txt", b"\xef\xbb\xbfsecond\r"), write("c.txt", "\n")
    )
    assert text_of(corpus) == "first\nsecond\n\n"
    assert corpus.name == "b"
    assert corpus.decoding_stats.line_ends == {"LF": 1, "CRLF": 1, "CR": 1}
    assert corpus.decoding_stats.encodings == {"UTF-8 with a byte order mark": 2, "UTF-8": 1}


def test_an_empty_file_among_others_is_accepted() -> None:
    assert text_of(read(write("a.txt", ""), write("b.txt", "bb"))) == "bb"


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_empty_files_are_rejected(data: bytes) -> None:
    with pytest.raises(CorpusError, match=r"^a\.txt, b\.txt: is empty"):
        read(write("a.txt", data), write("b.txt", data))


def test_a_single_character_is_rejected() -> None:
    with pytest.raises(CorpusError, match="nothing to predict"):
        read(write("a.txt", "a"))


def test_a_lone_surrogate_is_rejected() -> None:
    with pytest.raises(CorpusError, match="surrogate"):
        corpus_reader.corpus_from_text("ab\ud800c")


def test_binary_files_in_a_directory_are_skipped_with_a_note() -> None:
    write("all/a.txt", "text ")
    write("all/b.png", b"\x89PNG\0\0")
    write("all/c.bin", b"\0\1")
    write("all/d.md", "more")
    notes: list[str] = []
    corpus = corpus_reader.read_corpus(["all"], glob="**/*", hooks=corpus_reader.Hooks(on_note=notes.append))
    assert text_of(corpus) == "text more"
    assert notes == [f"skipped binary files {Path('all', 'b.png')} and 1 more"]


def test_no_file_is_skipped_if_the_unit_is_a_byte() -> None:
    write("all/a.txt", "text")
    write("all/b.png", b"\0\xff")
    assert text_of(corpus_reader.read_corpus(["all"], ReadConfig(unit="byte"), glob="**/*")) == "text\0\udcff"


@given(st.text(st.sampled_from("aabbbcd"), min_size=2), st.integers(2, 4))
def test_rare_characters_become_the_unknown_character(text: str, min_count: int) -> None:
    expected = "".join(char if text.count(char) >= min_count else UNKNOWN for char in text)
    assume(set(expected) != {UNKNOWN})
    assert text_of(corpus_reader.corpus_from_text(text, ReadConfig(min_count=min_count))) == expected


def test_a_text_of_only_rare_characters_is_rejected() -> None:
    with pytest.raises(CorpusError, match=r"fewer than 3 times"):
        corpus_reader.corpus_from_text("abab", ReadConfig(min_count=3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.sampled_from("ab-é\n"), max_size=9), min_size=1, max_size=4), SEPARATORS, UNITS,
    st.sampled_from(["lines", "files", "separated"]),
)  # fmt: skip
def test_documents_are_split_at_separators_and_between_files(
    small_blocks: None, texts: list[str], separator: str, unit: Any, kind: Any
) -> None:
    delimiter = {"lines": "\n", "files": "\0", "separated": separator}[kind]
    expected = [document for text in texts for document in text.split(delimiter) if document]
    files = [write(f"{number}.txt", text) for number, text in enumerate(texts)]
    config = ReadConfig(unit=unit, documents=kind, separator=separator if kind == "separated" else "")
    if not expected:
        with pytest.raises(CorpusError, match="contains no document"):
            corpus_reader.read_corpus(files, config)
        return
    corpus = corpus_reader.read_corpus(files, config)
    as_text = [document.encode("utf-8", "surrogateescape").decode() for document in documents_of(corpus)]
    assert as_text == expected
    assert corpus.num_documents == len(expected)
    assert corpus.longest_document == max(map(len, documents_of(corpus)))
    assert corpus.characters == sum(map(len, documents_of(corpus)))


def test_the_number_of_stored_document_starts_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder, "MAX_STARTS", 10)
    monkeypatch.setattr(sources, "READ_SIZE", 16)
    corpus = read(write("a.txt", "".join(f"{number}\n" for number in range(100))), documents="lines")
    assert corpus.num_documents == 100
    assert len(corpus.document_starts) <= 10
    order = text_of(corpus)
    training, measured = corpus.split(0)
    assert len(measured) == 0
    shuffled = string_of(training.shuffled(1), corpus.vocabulary)
    assert shuffled != order
    assert sorted(shuffled.split(BOUNDARY)) == sorted(order.split(BOUNDARY))


@given(ANY_TEXT, st.data())
def test_the_validation_text_is_the_end_of_the_text(text: str, data: st.DataObject) -> None:
    validation = data.draw(st.integers(0, len(text)))
    corpus = corpus_reader.corpus_from_text(text)
    training, held_out = corpus.split(validation)
    assert len(held_out) == validation
    assert string_of(training, corpus.vocabulary) + string_of(held_out, corpus.vocabulary) == text


@given(st.lists(st.integers(1, 12), min_size=1, max_size=60), st.floats(0, 0.9))
def test_complete_documents_of_about_the_requested_size_are_held_out(lengths: list[int], share: float) -> None:
    corpus = corpus_reader.corpus_from_text(
        "\n".join(chr(200 + n) * length for n, length in enumerate(lengths)), ReadConfig(documents="lines")
    )
    validation = int(share * len(corpus.stored_ids))
    training, held_out = (string_of(part, corpus.vocabulary) for part in corpus.split(validation))
    documents = [document for part in (training, held_out) for document in part.split(BOUNDARY) if document]
    assert sum(map(len, documents)) == sum(lengths)
    assert len(held_out) <= 2 * validation + 2
    short = sum(length + 1 for length in lengths if length + 1 <= validation)
    if validation and short > validation + 12:
        assert len(held_out) >= validation
        assert sorted(documents) == sorted(documents_of(corpus))  # no document is cut
        assert training.startswith(BOUNDARY)
        assert held_out.startswith(BOUNDARY)


def test_the_held_out_documents_are_reproducible() -> None:
    corpus = corpus_reader.corpus_from_text("\n".join(map(str, range(500))), ReadConfig(documents="lines"))
    assert string_of(corpus.split(200)[1], corpus.vocabulary) == string_of(corpus.split(200)[1], corpus.vocabulary)
    assert string_of(corpus.split(200)[1], corpus.vocabulary).split(BOUNDARY)[1:-1] != documents_of(corpus)[-40:]


def test_a_text_can_be_encoded_with_another_vocabulary() -> None:
    corpus = corpus_reader.corpus_from_text("abba").with_vocabulary(Vocabulary("zbay"))
    assert corpus.tokens().take(np.arange(4)).tolist() == [2, 1, 1, 2]
    with pytest.raises(UnknownCharacterError, match=r"U\+0062"):
        corpus.with_vocabulary(Vocabulary("a"))
    assert (
        string_of(corpus.with_vocabulary(Vocabulary("a" + UNKNOWN)).tokens(), Vocabulary("a" + UNKNOWN))
        == f"a{UNKNOWN * 2}a"
    )


def test_a_file_that_changes_while_it_is_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def growing(*arguments: Any) -> Iterator[bytes]:
        yield b"text"
        with open("a.txt", "ab") as file:
            file.write(b"more")

    write("a.txt", "text")
    monkeypatch.setattr(sources, "read_blocks", growing)
    with pytest.raises(CorpusError, match=r"^a\.txt: changed while it was read"):
        read("a.txt")


# The cache


TEXT = "Dies ist ein TokenView, né à Zürich.\n" * 9


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> TokenCache:
    """A cache that stores every text and is read from disk."""
    monkeypatch.setattr(token_store, "MAX_MEMORY_BYTES", 0)
    monkeypatch.setattr("charrnn.data.token_cache.MAX_MEMORY_BYTES", 0)
    return TokenCache(Path("cache"), always=True)


def cached_files() -> list[Path]:
    return list(Path().glob("cache/*.ids"))


@pytest.mark.parametrize("documents", ["none", "lines"])
def test_a_cached_text_is_equal_and_is_not_read_again(
    cache: TokenCache, documents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.txt", TEXT)
    first = read("a.txt", cache=cache, documents=documents)
    monkeypatch.setattr(sources, "read_blocks", None)
    second = read("a.txt", cache=cache, documents=documents)
    assert (first.cached, second.cached) == (False, True)
    assert isinstance(second.stored_ids, FileTokens)
    assert text_of(first) == text_of(second)
    assert (first.sha256, first.counts, first.decoding_stats) == (second.sha256, second.counts, second.decoding_stats)
    assert np.array_equal(first.document_starts, second.document_starts)
    assert (first.num_documents, first.longest_document) == (second.num_documents, second.longest_document)


def test_another_min_count_uses_the_same_cache_file(cache: TokenCache) -> None:
    write("a.txt", TEXT + "Q")
    read("a.txt", cache=cache)
    second = read("a.txt", cache=cache, min_count=2)
    assert second.cached
    assert text_of(second) == TEXT + UNKNOWN


@pytest.mark.parametrize("settings", [{"newlines": "keep"}, {"documents": "lines"}, {"unit": "byte"}])
def test_other_read_settings_use_another_cache_file(cache: TokenCache, settings: dict[str, Any]) -> None:
    write("a.txt", TEXT)
    read("a.txt", cache=cache)
    assert not read("a.txt", cache=cache, **settings).cached
    assert read("a.txt", cache=cache).cached


def test_a_changed_text_is_read_again_and_replaces_the_cache_file(cache: TokenCache) -> None:
    write("a.txt", TEXT)
    read("a.txt", cache=cache)
    times = Path("a.txt").stat()
    write("a.txt", TEXT.upper())  # has the same size
    os.utime("a.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = read("a.txt", cache=cache)
    assert not changed.cached
    assert text_of(changed) == TEXT.upper()
    assert len(cached_files()) == 1


@pytest.mark.parametrize("damage", ["cut", "longer", "nothing", "other", "an id", "a start", "no length", "header"])
def test_a_damaged_cache_file_is_replaced(cache: TokenCache, damage: str) -> None:
    write("a.txt", TEXT)
    read("a.txt", cache=cache, documents="lines")
    (path,) = cached_files()
    data, times = path.read_bytes(), path.stat()
    damaged = {
        "cut": data[:-20], "longer": data + b"x", "nothing": b"", "other": data[20:], "an id": b"\x01" + data[1:],
        "a start": data[: len(TEXT) + 2] + b"\x01" + data[len(TEXT) + 3 :],
        "header": data.replace(b'"LF": 9', b'"LF": 8'),
        "no length": data[:-16] + b"\xff" * 8 + data[-8:],
    }[damage]  # fmt: skip
    assert damaged != data
    path.write_bytes(damaged)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.warns(CacheWarning, match=r"^cache/a-\w+\.ids: is damaged \(.*\), so the text is encoded again$"):
        second = read("a.txt", cache=cache, documents="lines")
    assert not second.cached
    assert text_of(second) == text_of(read("a.txt", documents="lines"))
    assert read("a.txt", cache=cache, documents="lines").cached


def test_cached_ids_of_no_symbol_are_rejected_even_if_their_digest_is_valid(cache: TokenCache) -> None:
    write("a.txt", TEXT)
    read("a.txt", cache=cache)
    (path,) = cached_files()
    with open(path, "r+b") as file:
        file.write(b"\xff")
    rewrite_digests(path)
    with pytest.warns(CacheWarning, match="it contains ids without a symbol"):
        second = read("a.txt", cache=cache)
    assert text_of(second) == TEXT


@POSIX
def test_a_named_pipe_in_the_cache_is_not_waited_for(cache: TokenCache) -> None:
    write("a.txt", TEXT)
    read("a.txt", cache=cache)
    (path,) = cached_files()
    path.unlink()
    os.mkfifo(path)
    with pytest.warns(CacheWarning, match="is not a regular file"):
        assert text_of(read("a.txt", cache=cache)) == TEXT


@POSIX
def test_a_cache_file_whose_name_is_too_long_is_reported(cache: TokenCache) -> None:
    name = "x" * 245 + ".txt"
    write(name, TEXT)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert text_of(read(name, cache=cache)) == TEXT
    assert str(caught[-1].message) == (
        "cache: cannot be written (file name too long), so the encoded text is not cached"
    )


def test_another_file_format_is_replaced_silently(cache: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.txt", TEXT)
    read("a.txt", cache=cache)
    monkeypatch.setattr("charrnn.data.token_cache.FORMAT", 99)
    assert not read("a.txt", cache=cache).cached
    assert read("a.txt", cache=cache).cached


def test_ids_that_change_during_use_are_never_out_of_range(cache: TokenCache) -> None:
    write("a.txt", TEXT)
    corpus = read("a.txt", cache=cache)
    (path,) = cached_files()
    with open(path, "r+b") as file:
        file.write(b"\xff")
    with pytest.raises(FileError, match=r"\.ids: was changed while it was in use"):
        text_of(corpus)


def rewrite_digests(path: Path) -> None:
    """Make the digests of a cache file valid again."""
    data = path.read_bytes()
    size = int.from_bytes(data[-16:-8], "little")
    body, header = data[: -48 - size], json.loads(data[-48 - size : -48])
    header["digest"] = hashlib.sha256(hashlib.sha256(body).digest()).hexdigest()
    encoded = json.dumps(header).encode()
    path.write_bytes(
        body + encoded + hashlib.sha256(encoded).digest() + len(encoded).to_bytes(8, "little") + data[-8:]
    )


def test_a_small_text_is_cached_only_on_request() -> None:
    write("a.txt", TEXT)
    assert text_of(read("a.txt", cache=TokenCache(Path("cache")))) == TEXT
    assert not Path("cache").exists()


def test_a_failed_read_leaves_no_cache_files(cache: TokenCache) -> None:
    write("a.txt", TEXT.encode() + b"\xff")
    with pytest.raises(CorpusError):
        read("a.txt", cache=cache)
    assert not list(Path().rglob("cache/*"))


def test_a_cache_file_that_changes_during_use_is_an_error(cache: TokenCache) -> None:
    write("a.txt", TEXT)
    corpus = read("a.txt", cache=cache)
    corpus.check()
    (path,) = cached_files()
    os.truncate(path, 5)
    with pytest.raises(FileError, match=r"\.ids: was changed while it was in use"):
        corpus.check()
    with pytest.raises(FileError, match=r"\.ids: was changed while it was in use"):
        text_of(corpus)


@POSIX
def test_a_cache_file_can_be_deleted_during_use(cache: TokenCache) -> None:
    write("a.txt", TEXT)
    corpus = read("a.txt", cache=cache)
    cached_files()[0].unlink()
    corpus.check()
    assert text_of(corpus) == TEXT


@pytest.mark.parametrize("enough_memory", [True, False])
def test_ids_stay_in_memory_if_the_disk_is_full_and_they_fit(
    cache: TokenCache, enough_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_store.TokenWriter, "_write", full)
    monkeypatch.setattr(token_store, "available_memory", lambda: 1e9 if enough_memory else 100)
    write("a.txt", TEXT)
    if enough_memory:
        with pytest.warns(CacheWarning, match="cache: cannot be written .*, so the encoded text is not cached"):
            assert text_of(read("a.txt", cache=cache)) == TEXT
    else:
        with pytest.raises(FileError, match=r"^cache: .*no space left.*they take about .* MB, and .*--cache"):
            read("a.txt", cache=cache)
    assert not list(Path().rglob("cache/*"))


def test_a_text_is_equal_with_any_storage_and_width_of_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT + "".join(map(chr, range(0x4E00, 0x4E00 + 400))) + TEXT  # the vocabulary grows beyond 256 late
    write("a.txt", text)
    monkeypatch.setattr(sources, "READ_SIZE", 100)
    monkeypatch.setattr(token_store, "_COPY_BYTES", 64)
    monkeypatch.setattr("charrnn.data.corpus_reader._MIN_BATCH", 100)  # otherwise the text is encoded in one batch
    for in_memory in (0, 200, 1000, 1 << 20):
        monkeypatch.setattr(token_store, "MAX_MEMORY_BYTES", in_memory)
        monkeypatch.setattr("charrnn.data.token_cache.MAX_MEMORY_BYTES", in_memory)
        cache = TokenCache(Path("cache"))
        for _ in range(2):
            assert text_of(read("a.txt", cache=cache)) == text
        for path in cached_files():
            path.unlink()


def test_a_compressed_text_is_cached_by_its_uncompressed_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.data.token_cache.MAX_MEMORY_BYTES", 1000)
    monkeypatch.setattr(sources, "READ_SIZE", 500)
    cache = TokenCache(Path("cache"))
    write("a.gz", gzip.compress(TEXT.encode() * 20))
    read("a.gz", cache=cache)
    second = read("a.gz", cache=cache)
    assert second.cached
    assert text_of(second) == TEXT * 20


def test_stdin_is_not_cached(cache: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert text_of(read("-", cache=cache)) == TEXT
    assert cached_files() == []


def test_cached_ids_are_found_from_another_directory(
    cache: TokenCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.txt", TEXT)
    write("other/b.txt", "")
    path = str(tmp_path / "a.txt")
    elsewhere = TokenCache(tmp_path / "cache", always=True)
    read(path, cache=elsewhere)
    monkeypatch.chdir("other")
    assert read(path, cache=elsewhere).cached


def test_two_processes_can_cache_the_same_text_at_once(cache: TokenCache) -> None:
    files = [sources.File(write("a.txt", TEXT))]
    path = cache.path("a", files, ReadConfig())
    first = cache.open_writer(path, 0)
    first.append(np.arange(3), 3)
    assert text_of(read("a.txt", cache=cache)) == TEXT
    first.discard()
    assert text_of(read("a.txt", cache=cache)) == TEXT
    assert [path.name for path in Path("cache").iterdir()] == [path.name]


def test_temporary_files_of_a_killed_process_are_removed(cache: TokenCache) -> None:
    files = [sources.File(write("a.txt", TEXT))]
    path = cache.path("a", files, ReadConfig())
    write(f"cache/.{path.name}.tmp", b"half")
    read("a.txt", cache=cache)
    assert [path.name for path in Path("cache").iterdir()] == [path.name]


def test_a_separator_is_normalized_like_the_text() -> None:
    write("a.txt", "one\r\n\r\ntwo é".replace("é", "e\u0301") + "\r\n\r\nthree")
    for separator in ("\r\n\r\n", "\n\n"):
        assert read("a.txt", documents="separated", separator=separator).num_documents == 3
    assert read("a.txt", documents="separated", separator="e\u0301", normalize="nfc").num_documents == 2


def test_a_separator_that_does_not_occur_causes_a_note() -> None:
    notes: list[str] = []
    config = ReadConfig(documents="separated", separator="%%")
    corpus_reader.read_corpus([write("a.txt", TEXT)], config, hooks=corpus_reader.Hooks(on_note=notes.append))
    assert notes == ["the separator '%%' does not occur in the text"]


def test_the_digest_depends_on_the_document_boundaries() -> None:
    one = read(write("a.txt", "x"), write("b.txt", "y\nzz\n"), documents="lines")
    other = read(write("c.txt", "xy\nzz\n"), documents="lines")
    assert one.sha256 != other.sha256


@given(st.lists(st.integers(1, 400), min_size=2, max_size=5), st.floats(0, 0.9))
def test_a_split_always_leaves_text_to_train_on(lengths: list[int], share: float) -> None:
    corpus = corpus_reader.corpus_from_text(
        "\n".join("a" * length for length in lengths), ReadConfig(documents="lines")
    )
    training, held_out = corpus.split(int(share * len(corpus.stored_ids)))
    assert len(training) >= 2
    assert len(training) + len(held_out) >= len(corpus.stored_ids)


@pytest.mark.parametrize(("encoding", "data"), [("unicode_escape", rb"ab\ud800c"), ("utf-7", b"ab+2AA-c")])
def test_a_lone_surrogate_is_rejected_in_every_encoding(encoding: str, data: bytes) -> None:
    with pytest.raises(CorpusError, match="surrogate"):
        read(write("a.txt", data), encoding=encoding)


def test_a_text_of_many_blocks_has_the_correct_digest_and_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "READ_SIZE", 1 << 17)
    text = "".join(f"{number} né\n" for number in range(60_000))
    corpus = read(write("a.txt", text))
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert text_of(corpus) == text


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no such system")
def test_a_system_file_of_size_zero_is_read_completely() -> None:
    with open("/proc/self/maps") as file:
        assert os.fstat(file.fileno()).st_size == 0
    assert text_of(read("/proc/self/maps")).count("\n") > 20


def test_each_of_many_small_files_is_a_document() -> None:
    files = [write(f"{number}.txt", f"file {number}") for number in range(200)]
    assert documents_of(read(*files, documents="files")) == [f"file {number}" for number in range(200)]
