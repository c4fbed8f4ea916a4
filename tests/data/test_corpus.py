import gzip
import hashlib
import io
import os
import sys
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
from charrnn.errors import CorpusError, FileError, UnknownCharacterError
from tests.conftest import POSIX

ANY_CHARACTER = st.characters(exclude_categories=("Cs",))
ANY_TEXT = st.text(ANY_CHARACTER, min_size=2)
UNITS = st.sampled_from(["char", "byte"])
SEPARATORS = st.sampled_from(["\n", "--", "aab", "é"])


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that texts of a few bytes have several."""
    monkeypatch.setattr(sources, "READ_SIZE", 7)


def write(name: str, data: str | bytes) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    return name


def whole(text: TokenView, vocabulary: Vocabulary) -> str:
    return vocabulary.symbols_at(text.take(np.arange(len(text))).tolist())


def read(*paths: str, cache: TokenCache | None = None, **config: Any) -> Corpus:
    return corpus_reader.read_corpus(paths, ReadConfig(**config), cache=cache)


def text_of(read: Corpus) -> str:
    return whole(read.tokens(), read.vocabulary)


def documents_of(read: Corpus) -> list[str]:
    first, *documents, last = text_of(read).split(BOUNDARY)
    assert (first, last) == ("", "")
    return documents


@given(ANY_TEXT, UNITS)
def test_a_corpus_is_its_text_in_ids(text: str, unit: Any) -> None:
    made = corpus_reader.corpus_from_text(text, ReadConfig(unit=unit, newlines="keep"))
    ids_of_it = made.tokens().take(np.arange(len(made.tokens())))
    assert made.vocabulary.decode(ids_of_it.tolist()) == text
    assert np.array_equal(ids_of_it, made.vocabulary.encode(text))
    assert made.characters == len(text if unit == "char" else text.encode())
    assert made.num_documents == 0


@given(ANY_TEXT)
def test_the_vocabulary_of_a_text_is_its_characters_sorted(text: str) -> None:
    assert corpus_reader.corpus_from_text(text).vocabulary.symbols == "".join(sorted(set(text)))


def test_every_byte_is_in_a_vocabulary_of_bytes() -> None:
    made = corpus_reader.corpus_from_text("ab", ReadConfig(unit="byte"))
    assert len(made.vocabulary) == 256
    assert made.vocabulary.encode("é").tolist() == list("é".encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(ANY_CHARACTER.filter(lambda c: c not in "\r\0\ufeff"), min_size=2))
def test_a_text_is_the_same_from_a_file_of_any_kind_in_any_pieces(small_pieces: None, text: str) -> None:
    plain, packed = read(write("a.txt", text)), read(write("b.txt", gzip.compress(text.encode())))
    assert text_of(plain) == text_of(packed) == text
    assert plain.sha256 == packed.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_bytes_are_read_as_they_are_and_identified_by_their_own_sha256() -> None:
    data = b"\x89PNG\r\n\x1a\n\0\0\xff" + bytes(range(256))
    made = read(write("picture.png", data), unit="byte")
    assert text_of(made).encode("utf-8", "surrogateescape") == data
    assert made.sha256 == hashlib.sha256(data).hexdigest()


def test_several_files_are_one_text_in_the_order_given() -> None:
    made = read(
        write("b.txt", b"\xef\xbb\xbffirst\r\n"), write("a.txt", b"\xef\xbb\xbfsecond\r"), write("c.txt", "\n")
    )
    assert text_of(made) == "first\nsecond\n\n"
    assert made.name == "b"
    assert made.decoding_stats.line_ends == {"LF": 1, "CRLF": 1, "CR": 1}
    assert made.decoding_stats.encodings == {"UTF-8 with a byte order mark": 2, "UTF-8": 1}


def test_an_empty_file_among_others_is_no_harm() -> None:
    assert text_of(read(write("a.txt", ""), write("b.txt", "bb"))) == "bb"


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_files_without_a_character_are_refused(data: bytes) -> None:
    with pytest.raises(CorpusError, match=r"^a\.txt, b\.txt: is empty"):
        read(write("a.txt", data), write("b.txt", data))


def test_a_single_character_is_no_corpus() -> None:
    with pytest.raises(CorpusError, match="nothing to predict"):
        read(write("a.txt", "a"))


def test_half_of_a_surrogate_pair_is_told() -> None:
    with pytest.raises(CorpusError, match="surrogate"):
        corpus_reader.corpus_from_text("ab\ud800c")


def test_binary_files_in_a_directory_are_left_out_and_told() -> None:
    write("all/a.txt", "text ")
    write("all/b.png", b"\x89PNG\0\0")
    write("all/c.bin", b"\0\1")
    write("all/d.md", "more")
    told: list[str] = []
    made = corpus_reader.read_corpus(["all"], glob="**/*", hooks=corpus_reader.Hooks(on_note=told.append))
    assert text_of(made) == "text more"
    assert told == [f"skipped binary files {Path('all', 'b.png')} and 1 more"]


def test_no_file_is_left_out_where_bytes_are_read() -> None:
    write("all/a.txt", "text")
    write("all/b.png", b"\0\xff")
    assert text_of(corpus_reader.read_corpus(["all"], ReadConfig(unit="byte"), glob="**/*")) == "text\0\udcff"


@given(st.text(st.sampled_from("aabbbcd"), min_size=2), st.integers(2, 4))
def test_rare_characters_become_one_that_is_unknown(text: str, least: int) -> None:
    expected = "".join(one if text.count(one) >= least else UNKNOWN for one in text)
    assume(set(expected) != {UNKNOWN})
    assert text_of(corpus_reader.corpus_from_text(text, ReadConfig(min_count=least))) == expected


def test_a_text_of_nothing_but_rare_characters_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"fewer than 3 times"):
        corpus_reader.corpus_from_text("abab", ReadConfig(min_count=3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.sampled_from("ab-é\n"), max_size=9), min_size=1, max_size=4), SEPARATORS, UNITS,
    st.sampled_from(["lines", "files", "separated"]),
)  # fmt: skip
def test_documents_are_what_stands_between_separators_and_files(
    small_pieces: None, texts: list[str], separator: str, unit: Any, kind: Any
) -> None:
    between = {"lines": "\n", "files": "\0", "separated": separator}[kind]
    expected = [document for text in texts for document in text.split(between) if document]
    files = [write(f"{number}.txt", text) for number, text in enumerate(texts)]
    config = ReadConfig(unit=unit, documents=kind, separator=separator if kind == "separated" else "")
    if not expected:
        with pytest.raises(CorpusError, match="contains no document"):
            corpus_reader.read_corpus(files, config)
        return
    made = corpus_reader.read_corpus(files, config)
    as_text = [one.encode("utf-8", "surrogateescape").decode() for one in documents_of(made)]
    assert as_text == expected
    assert made.num_documents == len(expected)
    assert made.longest_document == max(map(len, documents_of(made)))
    assert made.characters == sum(map(len, documents_of(made)))


def test_where_documents_begin_is_remembered_for_as_many_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder, "MAX_STARTS", 10)
    monkeypatch.setattr(sources, "READ_SIZE", 16)
    made = read(write("a.txt", "".join(f"{number}\n" for number in range(100))), documents="lines")
    assert made.num_documents == 100
    assert len(made.document_starts) <= 10
    order = text_of(made)
    training, measured = made.split(0)
    assert len(measured) == 0
    shuffled = whole(training.shuffled(1), made.vocabulary)
    assert shuffled != order
    assert sorted(shuffled.split(BOUNDARY)) == sorted(order.split(BOUNDARY))


@given(ANY_TEXT, st.data())
def test_training_and_validation_text_are_the_whole_text_and_validation_is_its_end(
    text: str, data: st.DataObject
) -> None:
    validation = data.draw(st.integers(0, len(text)))
    made = corpus_reader.corpus_from_text(text)
    training, held_out = made.split(validation)
    assert len(held_out) == validation
    assert whole(training, made.vocabulary) + whole(held_out, made.vocabulary) == text


@given(st.lists(st.integers(1, 12), min_size=1, max_size=60), st.floats(0, 0.9))
def test_documents_are_held_out_whole_and_about_as_many_symbols_as_were_asked_for(
    lengths: list[int], share: float
) -> None:
    made = corpus_reader.corpus_from_text(
        "\n".join(chr(200 + n) * length for n, length in enumerate(lengths)), ReadConfig(documents="lines")
    )
    validation = int(share * len(made.stored_ids))
    training, held_out = (whole(part, made.vocabulary) for part in made.split(validation))
    both = [one for part in (training, held_out) for one in part.split(BOUNDARY) if one]
    assert sum(map(len, both)) == sum(lengths)
    assert len(held_out) <= 2 * validation + 2
    short = sum(length + 1 for length in lengths if length + 1 <= validation)
    if validation and short > validation + 12:
        assert len(held_out) >= validation
        assert sorted(both) == sorted(documents_of(made))  # none is cut
        assert training.startswith(BOUNDARY)
        assert held_out.startswith(BOUNDARY)


def test_the_same_documents_are_held_out_each_time() -> None:
    made = corpus_reader.corpus_from_text("\n".join(map(str, range(500))), ReadConfig(documents="lines"))
    assert whole(made.split(200)[1], made.vocabulary) == whole(made.split(200)[1], made.vocabulary)
    assert whole(made.split(200)[1], made.vocabulary).split(BOUNDARY)[1:-1] != documents_of(made)[-40:]


def test_a_text_in_another_vocabulary_has_its_ids() -> None:
    made = corpus_reader.corpus_from_text("abba").with_vocabulary(Vocabulary("zbay"))
    assert made.tokens().take(np.arange(4)).tolist() == [2, 1, 1, 2]
    with pytest.raises(UnknownCharacterError, match=r"U\+0062"):
        made.with_vocabulary(Vocabulary("a"))
    assert (
        whole(made.with_vocabulary(Vocabulary("a" + UNKNOWN)).tokens(), Vocabulary("a" + UNKNOWN))
        == f"a{UNKNOWN * 2}a"
    )


def test_a_file_that_changes_while_it_is_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """One that keeps whatever it gets, and is read from disk."""
    monkeypatch.setattr(token_store, "MAX_MEMORY_BYTES", 0)
    monkeypatch.setattr("charrnn.data.token_cache.MAX_MEMORY_BYTES", 0)
    return TokenCache(Path("kept"), always=True)


def kept() -> list[Path]:
    return list(Path().glob("kept/*.ids"))


@pytest.mark.parametrize("documents", ["none", "lines"])
def test_a_text_from_the_cache_is_the_same_and_is_not_read(
    cache: TokenCache, documents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.txt", TEXT)
    first = read("a.txt", cache=cache, documents=documents)
    monkeypatch.setattr(sources, "read_blocks", None)
    again = read("a.txt", cache=cache, documents=documents)
    assert (first.cached, again.cached) == (False, True)
    assert isinstance(again.stored_ids, FileTokens)
    assert text_of(first) == text_of(again)
    assert (first.sha256, first.counts, first.decoding_stats) == (again.sha256, again.counts, again.decoding_stats)
    assert np.array_equal(first.document_starts, again.document_starts)
    assert (first.num_documents, first.longest_document) == (again.num_documents, again.longest_document)


def test_a_rarer_vocabulary_is_made_of_the_same_cache(cache: TokenCache) -> None:
    write("a.txt", TEXT + "Q")
    read("a.txt", cache=cache)
    again = read("a.txt", cache=cache, min_count=2)
    assert again.cached
    assert text_of(again) == TEXT + UNKNOWN


@pytest.mark.parametrize("settings", [{"newlines": "keep"}, {"documents": "lines"}, {"unit": "byte"}])
def test_a_text_read_otherwise_is_another_one(cache: TokenCache, settings: dict[str, Any]) -> None:
    write("a.txt", TEXT)
    read("a.txt", cache=cache)
    assert not read("a.txt", cache=cache, **settings).cached
    assert read("a.txt", cache=cache).cached


def test_a_text_that_changed_is_read_again_and_takes_the_place_of_the_older(cache: TokenCache) -> None:
    write("a.txt", TEXT)
    read("a.txt", cache=cache)
    write("a.txt", TEXT.upper())
    os.utime("a.txt", ns=(0, 0))
    changed = read("a.txt", cache=cache)
    assert not changed.cached
    assert text_of(changed) == TEXT.upper()
    assert len(kept()) == 1


@pytest.mark.parametrize("damage", ["cut", "longer", "nothing", "other", "an id", "no length"])
def test_a_damaged_cache_is_made_again(cache: TokenCache, damage: str) -> None:
    write("a.txt", TEXT)
    read("a.txt", cache=cache)
    (path,) = kept()
    data = path.read_bytes()
    damaged = {
        "cut": data[:-20], "longer": data + b"x", "nothing": b"", "other": data[20:], "an id": b"\xff" + data[1:],
        "no length": data[:-16] + b"\xff" * 8 + data[-8:],
    }[damage]  # fmt: skip
    path.write_bytes(damaged)
    again = read("a.txt", cache=cache)
    assert not again.cached
    assert text_of(again) == TEXT
    assert read("a.txt", cache=cache).cached


def test_a_small_text_is_kept_only_if_somebody_asks() -> None:
    write("a.txt", TEXT)
    assert text_of(read("a.txt", cache=TokenCache(Path("kept")))) == TEXT
    assert not Path("kept").exists()


def test_nothing_half_done_is_left_behind(cache: TokenCache) -> None:
    write("a.txt", TEXT.encode() + b"\xff")
    with pytest.raises(CorpusError):
        read("a.txt", cache=cache)
    assert not list(Path().rglob("kept/*"))


def test_a_cache_that_somebody_writes_to_stops_the_run(cache: TokenCache) -> None:
    write("a.txt", TEXT)
    made = read("a.txt", cache=cache)
    made.check()
    (path,) = kept()
    os.truncate(path, 5)
    with pytest.raises(FileError, match=r"\.ids: was changed while it was in use"):
        made.check()
    with pytest.raises(FileError, match=r"\.ids: was changed while it was in use"):
        text_of(made)


@POSIX
def test_a_cache_that_is_deleted_does_no_harm_to_whoever_reads_it(cache: TokenCache) -> None:
    write("a.txt", TEXT)
    made = read("a.txt", cache=cache)
    kept()[0].unlink()
    made.check()
    assert text_of(made) == TEXT


@pytest.mark.parametrize("room", [True, False])
def test_without_room_on_disk_ids_stay_in_memory_if_they_fit(
    cache: TokenCache, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_store.TokenWriter, "_write", full)
    monkeypatch.setattr(token_store, "available_memory", lambda: 1e9 if room else 100)
    write("a.txt", TEXT)
    if room:
        assert text_of(read("a.txt", cache=cache)) == TEXT
    else:
        with pytest.raises(FileError, match=r"^kept: .*no space left.*they take about .* MB, and .*--cache"):
            read("a.txt", cache=cache)
    assert not list(Path().rglob("kept/*"))


def test_a_text_is_the_same_whatever_is_kept_where_and_however_wide_its_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT + "".join(map(chr, range(0x4E00, 0x4E00 + 400))) + TEXT  # more than 256 characters come late
    write("a.txt", text)
    monkeypatch.setattr(sources, "READ_SIZE", 100)
    monkeypatch.setattr(token_store, "_COPY_BYTES", 64)
    monkeypatch.setattr("charrnn.data.corpus_reader._MIN_BATCH", 100)  # or the whole text would come at once
    for in_memory in (0, 200, 1000, 1 << 20):
        monkeypatch.setattr(token_store, "MAX_MEMORY_BYTES", in_memory)
        monkeypatch.setattr("charrnn.data.token_cache.MAX_MEMORY_BYTES", in_memory)
        cache = TokenCache(Path("kept"))
        for _ in range(2):
            assert text_of(read("a.txt", cache=cache)) == text
        for path in kept():
            path.unlink()


def test_a_packed_text_is_kept_by_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.data.token_cache.MAX_MEMORY_BYTES", 1000)
    monkeypatch.setattr(sources, "READ_SIZE", 500)
    cache = TokenCache(Path("kept"))
    write("a.gz", gzip.compress(TEXT.encode() * 20))
    read("a.gz", cache=cache)
    again = read("a.gz", cache=cache)
    assert again.cached
    assert text_of(again) == TEXT * 20


def test_nothing_is_kept_that_could_not_be_found_again(cache: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert text_of(read("-", cache=cache)) == TEXT
    assert kept() == []


def test_what_is_kept_is_found_from_another_folder(
    cache: TokenCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.txt", TEXT)
    write("other/b.txt", "")
    path = str(tmp_path / "a.txt")
    away = TokenCache(tmp_path / "kept", always=True)
    read(path, cache=away)
    monkeypatch.chdir("other")
    assert read(path, cache=away).cached


def test_two_that_keep_the_same_text_at_once_are_in_nobodys_way(cache: TokenCache) -> None:
    files = [sources.File(write("a.txt", TEXT))]
    path = cache.path("a", files, ReadConfig())
    first = cache.open_writer(path, 0)
    first.append(np.arange(3), 3)
    assert text_of(read("a.txt", cache=cache)) == TEXT
    first.discard()
    assert text_of(read("a.txt", cache=cache)) == TEXT
    assert [path.name for path in Path("kept").iterdir()] == [path.name]


def test_what_was_left_behind_by_a_killed_one_is_cleared_away(cache: TokenCache) -> None:
    files = [sources.File(write("a.txt", TEXT))]
    path = cache.path("a", files, ReadConfig())
    write(f"kept/.{path.name}.tmp", b"half")
    read("a.txt", cache=cache)
    assert [path.name for path in Path("kept").iterdir()] == [path.name]


def test_a_separator_is_read_as_the_text_is() -> None:
    write("a.txt", "one\r\n\r\ntwo é".replace("é", "e\u0301") + "\r\n\r\nthree")
    for separator in ("\r\n\r\n", "\n\n"):
        assert read("a.txt", documents="separated", separator=separator).num_documents == 3
    assert read("a.txt", documents="separated", separator="e\u0301", normalize="nfc").num_documents == 2


def test_a_separator_that_never_comes_is_told() -> None:
    told: list[str] = []
    config = ReadConfig(documents="separated", separator="%%")
    corpus_reader.read_corpus([write("a.txt", TEXT)], config, hooks=corpus_reader.Hooks(on_note=told.append))
    assert told == ["the separator '%%' does not occur in the text"]


def test_other_documents_are_another_text() -> None:
    one = read(write("a.txt", "x"), write("b.txt", "y\nzz\n"), documents="lines")
    other = read(write("c.txt", "xy\nzz\n"), documents="lines")
    assert one.sha256 != other.sha256


@given(st.lists(st.integers(1, 400), min_size=2, max_size=5), st.floats(0, 0.9))
def test_there_is_always_something_to_train_on(lengths: list[int], share: float) -> None:
    made = corpus_reader.corpus_from_text(
        "\n".join("a" * length for length in lengths), ReadConfig(documents="lines")
    )
    training, held_out = made.split(int(share * len(made.stored_ids)))
    assert len(training) >= 2
    assert len(training) + len(held_out) >= len(made.stored_ids)


@pytest.mark.parametrize(("encoding", "data"), [("unicode_escape", rb"ab\ud800c"), ("utf-7", b"ab+2AA-c")])
def test_half_of_a_surrogate_pair_is_told_whatever_lets_it_pass(encoding: str, data: bytes) -> None:
    with pytest.raises(CorpusError, match="surrogate"):
        read(write("a.txt", data), encoding=encoding)


def test_a_text_of_many_pieces_has_its_own_sha256_and_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "READ_SIZE", 1 << 17)
    text = "".join(f"{number} né\n" for number in range(60_000))
    made = read(write("a.txt", text))
    assert made.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert text_of(made) == text


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no such system")
def test_a_file_of_the_system_that_tells_no_size_is_read_whole() -> None:
    with open("/proc/self/maps") as file:
        assert os.fstat(file.fileno()).st_size == 0
    assert text_of(read("/proc/self/maps")).count("\n") > 20


def test_small_files_are_one_text_each_with_its_end() -> None:
    files = [write(f"{number}.txt", f"file {number}") for number in range(200)]
    assert documents_of(read(*files, documents="files")) == [f"file {number}" for number in range(200)]
