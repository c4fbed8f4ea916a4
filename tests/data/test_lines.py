"""Lines as they come: whatever the pieces, the same lines; whatever is there, at once."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.data import lines as module
from charrnn.data.lines import LineFragment, Lines
from charrnn.errors import CorpusError
from tests.conftest import POSIX


def joined(pieces: list[LineFragment]) -> list[bytes]:
    """The lines of some pieces, with their ends."""
    lines, begun = [], b""
    for piece in pieces:
        begun += piece.data
        if piece.last:
            lines.append(begun + b"\n" * piece.closed)
            begun = b""
    assert not begun
    return lines


def all_of(path: Path | str, max_fragment: int | None = None, encoding: str | None = None) -> list[LineFragment]:
    return [piece for batch in Lines(str(path), max_fragment, encoding).batches(100) for piece in batch]


@settings(max_examples=60)
@given(data=st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"\xff", b"\r"]), max_size=40).map(b"".join))
@pytest.mark.parametrize(("piece", "max_fragment"), [(1, None), (3, None), (100, None), (1, 2), (3, 2), (100, 4)])
def test_the_lines_of_a_file_are_its_lines(
    piece: int, max_fragment: int | None, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "READ_SIZE", piece)
        pieces = all_of(path, max_fragment)
    assert joined(pieces) == [line + b"\n" * closed for line, closed in lines_of(data)]
    if max_fragment is not None:
        assert all(len(one.data) <= max_fragment + piece for one in pieces)


def lines_of(data: bytes) -> Iterator[tuple[bytes, bool]]:
    for line in io.BytesIO(data):
        yield line.removesuffix(b"\n"), line.endswith(b"\n")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress], ids=["", "gz", "xz", "bz2"])
def test_packed_lines_are_unpacked(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack(b"one\ntwo\n" * 50_000))
    assert joined(all_of(tmp_path / "a")) == [b"one\n", b"two\n"] * 50_000


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (codecs.BOM_UTF8 + "né\nя\n".encode(), None),
        ("né\nя\n".encode("utf-16"), None),
        ("né\nя\n".encode("utf-32"), None),
        ("né\nя\n".encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_other_encodings_come_as_utf8(data: bytes, encoding: str | None, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    assert joined(all_of(tmp_path / "a", encoding=encoding)) == ["né\n".encode(), "я\n".encode()]


def test_a_wrong_byte_of_another_encoding_comes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("one я\n".encode("cp1251") + b"three\x98\n")
    assert joined(all_of(tmp_path / "a", encoding="cp1251")) == ["one я\n".encode(), b"three\x98\n"]


def test_what_an_encoding_makes_of_it_may_be_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one \\ud800\n")
    with pytest.raises(CorpusError, match="unicode"):
        all_of(tmp_path / "a", encoding="unicode_escape")


def test_what_breaks_off_is_told_after_the_lines_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_SIZE", 64)
    data = gzip.compress(b"".join(b"%d\n" % number for number in range(5000)))
    (tmp_path / "a.gz").write_bytes(data[: len(data) // 2])
    lines, taken = Lines(str(tmp_path / "a.gz")), []

    def read() -> None:
        for batch in lines.batches(100):
            time.sleep(0.001)  # so that the error is there before the lines are
            taken.extend(batch)

    with pytest.raises(CorpusError, match="damaged gzip"):
        read()
    assert len(taken) > 1000
    assert [piece.data for piece in taken] == [b"%d" % number for number in range(len(taken))]


def test_bytes_may_be_wanted_as_they_are(tmp_path: Path) -> None:
    data = "né\n".encode("utf-16") + codecs.BOM_UTF8
    (tmp_path / "a").write_bytes(data)
    assert (
        b"".join(joined([piece for batch in Lines(str(tmp_path / "a"), raw=True).batches(9) for piece in batch]))
        == data
    )


def test_a_missing_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file"):
        Lines(str(tmp_path / "a"))


@POSIX
@pytest.mark.parametrize("first", [b"a\n", b"B\n", b"(\n", b"\x1f\n", b"\n"])
def test_a_line_need_not_wait_for_the_next(first: bytes) -> None:
    """Not even for the few bytes by which a packed file is known."""
    reading, writing = os.pipe()
    os.write(writing, first)
    rescue = threading.Timer(20, os.write, (writing, b"two\n" * 9))  # or a failure would wait for ever
    rescue.start()
    lines = Lines(f"/dev/fd/{reading}")
    assert lines.get(block=True) == LineFragment(first[:-1])
    assert rescue.is_alive()
    rescue.cancel()
    assert lines.get(block=False) is None
    os.write(writing, b"two\nthr")
    assert lines.get(block=True) == LineFragment(b"two")
    time.sleep(0.05)
    assert lines.get(block=False) is None
    os.write(writing, b"ee")
    os.close(writing)
    assert lines.get(block=True) == LineFragment(b"three", closed=False)
    assert lines.get(block=True) is None
    os.close(reading)
