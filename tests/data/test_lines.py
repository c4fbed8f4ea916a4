"""Lines of a file or pipe: they do not depend on the blocks, and are returned as soon as they arrive."""

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
from charrnn.data.decoding import MAX_PENDING_BYTES
from charrnn.data.lines import LineFragment, Lines
from charrnn.errors import CorpusError
from tests.conftest import POSIX


def joined(fragments: list[LineFragment]) -> list[bytes]:
    """Return the lines of some fragments, with line endings."""
    lines, partial = [], b""
    for piece in fragments:
        partial += piece.data
        if piece.last:
            lines.append(partial + b"\n" * piece.closed)
            partial = b""
    assert not partial
    return lines


def read_all(path: Path | str, max_fragment: int | None = None, encoding: str | None = None) -> list[LineFragment]:
    return [piece for batch in Lines(str(path), max_fragment, encoding).batches(100) for piece in batch]


@settings(max_examples=60)
@given(data=st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"\xff", b"\r"]), max_size=40).map(b"".join))
@pytest.mark.parametrize(
    ("block_size", "max_fragment"), [(1, None), (3, None), (100, None), (1, 2), (3, 2), (100, 4)]
)
def test_lines_do_not_depend_on_the_block_size(
    block_size: int, max_fragment: int | None, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "READ_SIZE", block_size)
        fragments = read_all(path, max_fragment)
    assert joined(fragments) == [line + b"\n" * closed for line, closed in lines_of(data)]
    if max_fragment is not None:
        assert all(len(fragment.data) <= max_fragment + block_size for fragment in fragments)


def lines_of(data: bytes) -> Iterator[tuple[bytes, bool]]:
    for line in io.BytesIO(data):
        yield line.removesuffix(b"\n"), line.endswith(b"\n")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress], ids=["", "gz", "xz", "bz2"])
def test_compressed_lines_are_decompressed(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack(b"one\ntwo\n" * 50_000))
    assert joined(read_all(tmp_path / "a")) == [b"one\n", b"two\n"] * 50_000


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (codecs.BOM_UTF8 + "né\nя\n".encode(), None),
        ("né\nя\n".encode("utf-16"), None),
        ("né\nя\n".encode("utf-32"), None),
        ("né\nя\n".encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_other_encodings_are_converted_to_utf8(data: bytes, encoding: str | None, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    assert joined(read_all(tmp_path / "a", encoding=encoding)) == ["né\n".encode(), "я\n".encode()]


def test_an_invalid_byte_of_another_encoding_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("one я\n".encode("cp1251") + b"three\x98\n")
    assert joined(read_all(tmp_path / "a", encoding="cp1251")) == ["one я\n".encode(), b"three\x98\n"]


def test_a_decoded_lone_surrogate_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one \\ud800\n")
    with pytest.raises(CorpusError, match="unicode"):
        read_all(tmp_path / "a", encoding="unicode_escape")


def test_a_decoder_does_not_hold_back_bytes_without_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\n+" + b"A" * (MAX_PENDING_BYTES + 2 * module.READ_SIZE))
    with pytest.raises(CorpusError, match="has 1 MiB without a complete character in utf-7"):
        read_all(tmp_path / "a", 100, "utf-7")


def test_a_truncated_file_is_an_error_after_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_SIZE", 64)
    data = gzip.compress(b"".join(b"%d\n" % number for number in range(5000)))
    (tmp_path / "a.gz").write_bytes(data[: len(data) // 2])
    lines, received = Lines(str(tmp_path / "a.gz")), []

    def read() -> None:
        for batch in lines.batches(100):
            time.sleep(0.001)  # so that the error occurs before the lines are read
            received.extend(batch)

    with pytest.raises(CorpusError, match="damaged gzip"):
        read()
    assert len(received) > 1000
    assert [piece.data for piece in received] == [b"%d" % number for number in range(len(received))]


def test_raw_lines_keep_their_bytes(tmp_path: Path) -> None:
    data = "né\n".encode("utf-16") + codecs.BOM_UTF8
    (tmp_path / "a").write_bytes(data)
    assert (
        b"".join(joined([piece for batch in Lines(str(tmp_path / "a"), raw=True).batches(9) for piece in batch]))
        == data
    )


def test_a_missing_file_is_an_immediate_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file"):
        Lines(str(tmp_path / "a"))


@POSIX
@pytest.mark.parametrize("first", [b"a\n", b"B\n", b"(\n", b"\x1f\n", b"\n"])
def test_a_line_is_returned_before_the_next_one_arrives(first: bytes) -> None:
    """Recognizing a compressed file needs a few bytes, but a shorter first line is not delayed."""
    reader, writer = os.pipe()
    os.write(writer, first)
    fallback = threading.Timer(20, os.write, (writer, b"two\n" * 9))  # otherwise a failing test would block forever
    fallback.start()
    lines = Lines(f"/dev/fd/{reader}")
    assert lines.get(block=True) == LineFragment(first[:-1])
    assert fallback.is_alive()
    fallback.cancel()
    assert lines.get(block=False) is None
    os.write(writer, b"two\nthr")
    assert lines.get(block=True) == LineFragment(b"two")
    time.sleep(0.05)
    assert lines.get(block=False) is None
    os.write(writer, b"ee")
    os.close(writer)
    assert lines.get(block=True) == LineFragment(b"three", closed=False)
    assert lines.get(block=True) is None
    os.close(reader)


def test_a_byte_order_mark_where_files_were_joined_is_removed(tmp_path: Path) -> None:
    mark = codecs.BOM_UTF8
    data = mark + b"a\n" + mark + b"b" + mark + b"c\n" + mark + mark + b"d" * 20 + b"\n" + mark
    (tmp_path / "a").write_bytes(data)
    for size in (1, 4, 100):
        lines = Lines(str(tmp_path / "a"), max_fragment=size)
        fragments = [fragment.data for batch in lines.batches(9) for fragment in batch]
        assert b"".join(fragments) == b"ab" + mark + b"c" + b"d" * 20
