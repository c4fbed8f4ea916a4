import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from charrnn.data import sources
from charrnn.data.sources import File
from charrnn.errors import CorpusError, SettingError
from tests.conftest import POSIX

ZSTD = sources.zstd()
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": partial(ZSTD.compress, options={ZSTD.CompressionParameter.checksum_flag: 1}),
}


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, data: str | bytes = "text") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return name


def find(*paths: str, glob: str = sources.GLOB) -> list[str]:
    return [file.name for file in sources.find_files(paths, glob)]


def read_bytes(path: str) -> bytes:
    return sources.read_bytes(path, 1 << 30)


def refusal(path: str) -> CorpusError:
    with pytest.raises(CorpusError) as caught:
        read_bytes(path)
    return caught.value


def test_a_directory_yields_its_txt_files_sorted_by_name() -> None:
    for name in ("b.txt", "a.txt", "deeper/c.txt", "ignored.md", "a.txt.gz"):
        write(f"poems/{name}")
    assert find("poems") == [str(Path("poems", name)) for name in ("a.txt", "b.txt", "deeper/c.txt")]


def test_a_glob_selects_files_of_a_directory() -> None:
    for name in ("a.py", "deep/er/b.py", "deep/c.txt", "d.pyc"):
        write(f"code/{name}")
    assert find("code", glob="**/*.py") == [str(Path("code", name)) for name in ("a.py", "deep/er/b.py")]
    assert find("code", glob="*.py") == [str(Path("code", "a.py"))]


BEFORE_3_13 = pytest.mark.skipif(sys.version_info >= (3, 13), reason="a pattern like any other since Python 3.13")


@pytest.mark.parametrize("glob", ["", "/etc/*", pytest.param("**x/*.py", marks=BEFORE_3_13)])
def test_an_invalid_glob_is_rejected(glob: str) -> None:
    write("code/a.py")
    with pytest.raises(SettingError) as caught:
        find("code", glob=glob)
    assert caught.value.subject == "glob"


def test_files_and_directories_keep_the_given_order() -> None:
    write("poems/a.txt")
    assert find("z.txt", "poems", "-", "z.txt") == ["z.txt", str(Path("poems", "a.txt")), "-", "z.txt"]


def test_a_loop_of_symbolic_links_ends() -> None:
    write("poems/a.txt")
    os.symlink("..", "poems/up")
    os.symlink("loop", "poems/loop")
    assert find("poems", glob="**/*") == [str(Path("poems", "a.txt"))]


@POSIX
def test_special_files_in_a_directory_are_skipped() -> None:
    write("poems/a.txt")
    os.mkfifo("poems/b.txt")
    assert find("poems") == [str(Path("poems", "a.txt"))]


def test_a_directory_without_text_is_rejected() -> None:
    write("pictures/a.png")
    with pytest.raises(CorpusError, match=r"no \.txt file in it.*--glob") as caught:
        find("pictures")
    assert caught.value.subject == "pictures"


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_files_are_recognized_by_content(kind: str) -> None:
    data = os.urandom(3 * sources.READ_SIZE // 2) * 2
    assert read_bytes(write("a.txt", COMPRESSORS[kind](data))) == data


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_concatenated_compressed_streams_are_all_read(kind: str) -> None:
    compress = COMPRESSORS[kind]
    assert read_bytes(write("a.txt", compress(b"first ") + compress(b"second"))) == b"first second"


def xz_with_dictionary(code: int) -> bytes:
    """Return xz data that asks for a dictionary of (2 or 3) << (code // 2 + 11) bytes."""
    data = bytearray(lzma.compress(b"text " * 1000))
    end = 12 + 4 * (data[12] + 1)  # of the block header, which follows the stream header of 12 bytes
    assert data[14:16] == b"\x21\x01"  # an LZMA2 filter, whose only property is the size of the dictionary
    data[16] = code
    data[end - 4 : end] = zlib.crc32(data[12 : end - 4]).to_bytes(4, "little")
    return bytes(data)


def zstd_with_window(log: int) -> bytes:
    setting = ZSTD.CompressionParameter
    compressor = ZSTD.ZstdCompressor(options={setting.window_log: log, setting.content_size_flag: 0})
    return bytes(compressor.compress(b"text " * 1000) + compressor.flush())


@pytest.mark.parametrize("data", [xz_with_dictionary(32), zstd_with_window(28)], ids=["xz", "zstd"])
def test_a_dictionary_of_256_mib_is_allowed(data: bytes) -> None:
    assert read_bytes(write("a.txt", data)) == b"text " * 1000


@pytest.mark.parametrize(
    ("data", "command"),
    [
        (xz_with_dictionary(33), "xz -dc 'my file'"),
        (xz_with_dictionary(37), "xz -dc 'my file'"),
        (lzma.compress(b"first stream") + xz_with_dictionary(37), "xz -dc 'my file'"),
        (zstd_with_window(29), "zstd -dc --long=31 'my file'"),
        (zstd_with_window(31), "zstd -dc --long=31 'my file'"),
    ],
)
def test_a_larger_dictionary_is_refused_with_the_command_that_decompresses(data: bytes, command: str) -> None:
    error = refusal(write("my file", data))
    assert "needs a dictionary of more than 256 MiB to decompress" in error.reason
    assert error.advice == f"decompress it first, and give - for stdin: {command} | charrnn ..."


def test_damage_in_a_later_xz_stream_is_an_error() -> None:
    second = bytearray(lzma.compress(b"text " * 1000))
    second[20] ^= 0xFF
    assert refusal(write("a.txt", lzma.compress(b"first") + second)).reason.startswith("is damaged xz")


@pytest.mark.parametrize("padding", [4, 4 * sources.READ_SIZE])
def test_padding_between_xz_streams_is_skipped(padding: int) -> None:
    data = lzma.compress(b"first ") + bytes(padding) + lzma.compress(b"second") + bytes(8)
    assert read_bytes(write("a.txt", data)) == b"first second"


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_truncated_compressed_file_is_an_error(kind: str) -> None:
    compressed = COMPRESSORS[kind](os.urandom(10_000))
    for size in (len(compressed) - 1, len(compressed) // 2):
        assert refusal(write("a.txt", compressed[:size])).reason.startswith(f"is damaged {kind}")


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_damaged_compressed_file_is_an_error(kind: str) -> None:
    compressed = bytearray(COMPRESSORS[kind](b"text " * 10_000))
    compressed[len(compressed) // 2] ^= 0xFF
    assert refusal(write("a.txt", bytes(compressed))).reason.startswith(f"is damaged {kind}")


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_any_damaged_byte_of_a_compressed_file_is_harmless_or_an_error(kind: str) -> None:
    compressed = COMPRESSORS[kind](b"text " * 1000)
    for index in range(len(compressed)):
        damaged = bytearray(compressed)
        damaged[index] ^= 0xFF
        with suppress(CorpusError):  # and no other exception
            read_bytes(write("a.txt", bytes(damaged)))


@pytest.mark.parametrize(
    "size", [0, 1, sources.READ_SIZE - 1, sources.READ_SIZE, sources.READ_SIZE + 1, 2 * sources.READ_SIZE]
)
def test_all_blocks_but_the_last_are_full(size: int) -> None:
    blocks = list(sources.read_blocks(File(write("a.txt", b"x" * size))))
    assert b"".join(blocks) == b"x" * size
    assert all(len(block) == sources.READ_SIZE for block in blocks[:-1])
    assert len(blocks[-1]) < sources.READ_SIZE


def test_progress_counts_compressed_bytes() -> None:
    reported: list[int] = []
    compressed = gzip.compress(os.urandom(5000))
    list(sources.read_blocks(File(write("a.txt", compressed)), reported.append))
    assert sum(reported) == len(compressed)


def test_a_dash_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("naïve\r\n".encode()), encoding="ascii"))
    assert read_bytes("-") == "naïve\r\n".encode()


def test_a_closed_stdin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal("-").reason == "stdin is closed"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("poem.txt", "poem"), ("deep/poem.txt", "poem"), ("poem", "poem"), ("poem.v2.txt", "poem.v2"), ("-", "stdin"),
        ("poem.txt.gz", "poem"), ("poem.zst", "poem"),
    ],
)  # fmt: skip
def test_the_default_name_is_the_first_file_without_suffix(path: str, name: str) -> None:
    assert sources.default_name([path, "other.txt"]) == name


def test_the_default_name_of_the_current_directory_is_its_name() -> None:
    assert sources.default_name(["."]) == Path.cwd().name


@pytest.mark.parametrize("path", ["missing.txt", ""])
def test_a_missing_file_is_named(path: str) -> None:
    error = refusal(path)
    assert error.subject == (path or "''")
    assert "no such file" in error.reason


@POSIX
def test_a_symbolic_link_to_itself_is_an_error() -> None:
    os.symlink("loop", "loop")
    assert "symbolic links" in refusal("loop").reason


@pytest.mark.parametrize("text", ["BZhang wrote", "BZh9", "\x1f\x8b is not all"])
def test_a_text_that_only_starts_like_a_compressed_file_is_a_text(text: str) -> None:
    assert read_bytes(write("a.txt", text)) == text.encode()


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_streams_after_each_other_are_read_and_damaged_ones_are_errors(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "text"
    first, second = compress(b"first " * 50), compress(b"second")

    def read() -> bytes:
        return b"".join(sources.read_blocks(File(str(path))))

    for zeros in (b"", b"\0" * 4, b"\0" * 40_000):
        path.write_bytes(first + zeros + second + zeros)
        assert read() == b"first " * 50 + b"second"
    for damaged in (bytes([second[0] ^ 1]) + second[1:], b"more text", second[:4], b"\0\0\0\0x"):
        path.write_bytes(first + damaged)
        with pytest.raises(CorpusError, match="is damaged"):
            read()
