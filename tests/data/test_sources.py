import bz2
import gzip
import io
import lzma
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from charrnn.data import sources
from charrnn.data.sources import File
from charrnn.errors import CorpusError, SettingError
from tests.conftest import POSIX

ZSTD = sources.zstd()
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": partial(ZSTD.compress, options={ZSTD.CompressionParameter.checksum_flag: 1}),
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, data: str | bytes = "text") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return name


def found(*paths: str, glob: str = sources.GLOB) -> list[str]:
    return [file.name for file in sources.find_files(paths, glob)]


def refusal(path: str) -> CorpusError:
    with pytest.raises(CorpusError) as caught:
        sources.read_bytes(path)
    return caught.value


def test_a_directory_gives_its_txt_files_in_the_order_of_their_names() -> None:
    for name in ("b.txt", "a.txt", "deeper/c.txt", "ignored.md", "a.txt.gz"):
        write(f"poems/{name}")
    assert found("poems") == [str(Path("poems", name)) for name in ("a.txt", "b.txt", "deeper/c.txt")]


def test_a_pattern_says_which_files_of_a_directory() -> None:
    for name in ("a.py", "deep/er/b.py", "deep/c.txt", "d.pyc"):
        write(f"code/{name}")
    assert found("code", glob="**/*.py") == [str(Path("code", name)) for name in ("a.py", "deep/er/b.py")]
    assert found("code", glob="*.py") == [str(Path("code", "a.py"))]


BEFORE_3_13 = pytest.mark.skipif(sys.version_info >= (3, 13), reason="a pattern like any other since Python 3.13")


@pytest.mark.parametrize("glob", ["", "/etc/*", pytest.param("**x/*.py", marks=BEFORE_3_13)])
def test_what_is_no_pattern_is_refused(glob: str) -> None:
    write("code/a.py")
    with pytest.raises(SettingError) as caught:
        found("code", glob=glob)
    assert caught.value.subject == "glob"


def test_files_and_directories_mix_in_the_order_given() -> None:
    write("poems/a.txt")
    assert found("z.txt", "poems", "-", "z.txt") == ["z.txt", str(Path("poems", "a.txt")), "-", "z.txt"]


def test_a_loop_of_directories_ends() -> None:
    write("poems/a.txt")
    os.symlink("..", "poems/up")
    os.symlink("loop", "poems/loop")
    assert found("poems", glob="**/*") == [str(Path("poems", "a.txt"))]


@POSIX
def test_what_is_no_file_in_a_directory_is_passed_by() -> None:
    write("poems/a.txt")
    os.mkfifo("poems/b.txt")
    assert found("poems") == [str(Path("poems", "a.txt"))]


def test_a_directory_without_text_is_refused() -> None:
    write("pictures/a.png")
    with pytest.raises(CorpusError, match=r"no \.txt file in it.*--glob") as caught:
        found("pictures")
    assert caught.value.subject == "pictures"


@pytest.mark.parametrize("kind", PACKERS)
def test_what_is_packed_is_unpacked_whatever_its_name_says(kind: str) -> None:
    data = os.urandom(3 * sources.READ_SIZE // 2) * 2
    assert sources.read_bytes(write("a.txt", PACKERS[kind](data))) == data


@pytest.mark.parametrize("kind", PACKERS)
def test_several_packed_streams_one_behind_the_other_are_all_read(kind: str) -> None:
    pack = PACKERS[kind]
    assert sources.read_bytes(write("a.txt", pack(b"first ") + pack(b"second"))) == b"first second"


@pytest.mark.parametrize("kind", PACKERS)
def test_what_is_packed_and_cut_is_told(kind: str) -> None:
    packed = PACKERS[kind](os.urandom(10_000))
    for size in (len(packed) - 1, len(packed) // 2):
        assert refusal(write("a.txt", packed[:size])).reason.startswith(f"is damaged {kind}")


@pytest.mark.parametrize("kind", PACKERS)
def test_what_is_packed_and_damaged_is_told(kind: str) -> None:
    packed = bytearray(PACKERS[kind](b"text " * 10_000))
    packed[len(packed) // 2] ^= 0xFF
    assert refusal(write("a.txt", bytes(packed))).reason.startswith(f"is damaged {kind}")


@pytest.mark.parametrize(
    "size", [0, 1, sources.READ_SIZE - 1, sources.READ_SIZE, sources.READ_SIZE + 1, 2 * sources.READ_SIZE]
)
def test_pieces_are_whole_but_for_the_last_which_is_shorter(size: int) -> None:
    pieces = list(sources.read_blocks(File(write("a.txt", b"x" * size))))
    assert b"".join(pieces) == b"x" * size
    assert all(len(piece) == sources.READ_SIZE for piece in pieces[:-1])
    assert len(pieces[-1]) < sources.READ_SIZE


def test_it_is_told_how_much_was_read_of_what_is_on_disk() -> None:
    told: list[int] = []
    packed = gzip.compress(os.urandom(5000))
    list(sources.read_blocks(File(write("a.txt", packed)), told.append))
    assert sum(told) == len(packed)


def test_a_dash_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("naïve\r\n".encode()), encoding="ascii"))
    assert sources.read_bytes("-") == "naïve\r\n".encode()


def test_a_closed_stdin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal("-").reason == "stdin is closed"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("poem.txt", "poem"), ("deep/poem.txt", "poem"), ("poem", "poem"), ("poem.v2.txt", "poem.v2"), ("-", "stdin"),
        ("poem.txt.gz", "poem"), ("poem.zst", "poem"),
    ],
)  # fmt: skip
def test_a_model_is_called_as_the_first_file_without_its_suffix(path: str, name: str) -> None:
    assert sources.default_name([path, "other.txt"]) == name


def test_the_current_directory_goes_by_its_own_name() -> None:
    assert sources.default_name(["."]) == Path.cwd().name


@pytest.mark.parametrize("path", ["missing.txt", ""])
def test_a_missing_file_is_named(path: str) -> None:
    error = refusal(path)
    assert error.subject == (path or "''")
    assert "no such file" in error.reason


@POSIX
def test_a_link_to_itself_is_told() -> None:
    os.symlink("loop", "loop")
    assert "symbolic links" in refusal("loop").reason


@pytest.mark.parametrize("text", ["BZhang wrote", "BZh9", "\x1f\x8b is not all"])
def test_a_text_that_only_begins_like_something_packed_is_a_text(text: str) -> None:
    assert sources.read_bytes(write("a.txt", text)) == text.encode()
