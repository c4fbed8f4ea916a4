import io
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn.errors import CorpusError
from charrnn.text import sources

CYRILLIC = "Мама мыла раму, и было хорошо. "
FRENCH = "Le café était très joli, à côté. "


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, data: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return name


def refusal(*paths: str) -> CorpusError:
    with pytest.raises(CorpusError) as caught:
        sources.read(paths)
    return caught.value


@pytest.mark.parametrize(
    ("data", "text", "endings"),
    [
        ("a\nb\n", "a\nb\n", {"LF": 2, "CRLF": 0, "CR": 0}),
        ("a\r\nb\r\n", "a\nb\n", {"LF": 0, "CRLF": 2, "CR": 0}),
        ("a\rb\r", "a\nb\n", {"LF": 0, "CRLF": 0, "CR": 2}),
        ("a\r\r\nb\n\rc", "a\n\nb\n\nc", {"LF": 1, "CRLF": 1, "CR": 2}),
        ("no line", "no line", {"LF": 0, "CRLF": 0, "CR": 0}),
    ],
)
def test_line_endings_become_line_feeds_and_are_counted(data: str, text: str, endings: dict[str, int]) -> None:
    source = sources.read([write("a.txt", data)])
    assert source.text == text
    assert source.line_endings == endings


def test_other_characters_that_end_lines_for_python_are_left_alone() -> None:
    text = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"
    assert sources.read([write("a.txt", text)]).text == text


def test_a_byte_order_mark_is_removed_and_told() -> None:
    source = sources.read([write("a.txt", b"\xef\xbb\xbfabc")])
    assert source.text == "abc"
    assert source.encoding == "UTF-8 with a byte order mark"


def test_every_file_loses_its_own_byte_order_mark() -> None:
    marked = b"\xef\xbb\xbfabc"
    source = sources.read([write("a.txt", "x"), write("b.txt", marked), write("c.txt", marked), write("d.txt", "y")])
    assert source.text == "xabcabcy"
    assert source.encoding == "UTF-8 with a byte order mark"


def test_the_same_character_within_a_text_is_kept() -> None:
    source = sources.read([write("a.txt", "ab\ufeffc")])
    assert source.text == "ab\ufeffc"
    assert source.encoding == "UTF-8"


def test_several_files_are_one_text_in_the_order_given() -> None:
    source = sources.read([write("b.txt", "first\r\n"), write("a.txt", "second\n")])
    assert source.text == "first\nsecond\n"
    assert source.files == ("b.txt", "a.txt")
    assert source.name == "b"
    assert source.line_endings == {"LF": 1, "CRLF": 1, "CR": 0}


def test_a_line_end_cut_by_the_border_of_two_files_is_two() -> None:
    assert sources.read([write("a.txt", "a\r"), write("b.txt", "\nb")]).text == "a\n\nb"


def test_a_directory_gives_its_txt_files_in_the_order_of_their_names() -> None:
    for name in ("b.txt", "a.txt", "deeper/c.txt", "ignored.md", "a.txt.gz"):
        write(f"poems/{name}", f"<{name}>")
    source = sources.read(["poems"])
    assert source.text == "<a.txt><b.txt><deeper/c.txt>"
    assert source.files == tuple(str(Path("poems", name)) for name in ("a.txt", "b.txt", "deeper/c.txt"))
    assert source.name == "poems"


def test_files_and_directories_mix() -> None:
    write("poems/a.txt", "a")
    assert sources.read([write("z.txt", "z"), "poems", "z.txt"]).text == "zaz"


def test_a_dash_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("naïve\r\n".encode()), encoding="ascii"))
    source = sources.read(["-"])
    assert source.text == "naïve\n"
    assert source.name == "stdin"


def test_a_closed_stdin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal("-").reason == "stdin is closed"


@pytest.mark.parametrize(
    ("path", "name"),
    [("poem.txt", "poem"), ("deep/poem.txt", "poem"), ("poem", "poem"), ("poem.v2.txt", "poem.v2"), ("-", "stdin")],
)
def test_a_model_is_called_as_the_first_file_without_its_suffix(path: str, name: str) -> None:
    assert sources.name_of([path, "other.txt"]) == name


def test_the_current_directory_goes_by_its_own_name() -> None:
    assert sources.name_of(["."]) == Path.cwd().name


def test_a_missing_file_is_named() -> None:
    error = refusal(write("a.txt", "a"), "missing.txt")
    assert error.subject == "missing.txt"
    assert "no such file" in error.reason


def test_an_empty_name_is_not_the_current_directory() -> None:
    write("a.txt", "not asked for")
    assert "no such file" in refusal("").reason


def test_a_directory_without_text_is_refused() -> None:
    write("pictures/a.png", "a")
    error = refusal("pictures")
    assert error.subject == "pictures"
    assert "no .txt file" in error.reason


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_files_without_a_character_are_refused(data: bytes) -> None:
    error = refusal(write("a.txt", data), write("b.txt", data))
    assert error.subject == "a.txt, b.txt"
    assert error.reason == "is empty"


def test_an_empty_file_among_others_is_no_harm() -> None:
    assert sources.read([write("a.txt", ""), write("b.txt", "b")]).text == "b"


def test_the_first_wrong_byte_is_named_with_its_offset() -> None:
    error = refusal(write("good.txt", "a"), write("poem.txt", "naïve ".encode() + b"caf\xe9 \xff"))
    assert error.subject == "poem.txt"
    assert error.reason == "is not UTF-8: byte 0xe9 at offset 10"


@pytest.mark.parametrize(
    ("text", "written_in", "guess"),
    [
        (CYRILLIC, "cp1251", "cp1251"),
        (CYRILLIC, "koi8_r", "koi8-r"),
        (CYRILLIC, "cp866", "cp866"),
        (CYRILLIC, "utf-16", "utf-16"),
        (FRENCH, "utf-16", "utf-16"),
        (FRENCH, "latin-1", "cp1252"),
        ("café\n", "latin-1", "cp1252"),
        ("Zażółć gęślą jaźń, proszę pana. ", "cp1250", "cp1250"),
        ("Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί. ", "cp1253", "cp1253"),
        ("これは日本語の文章です。とても長いです。", "shift_jis", "cp932"),
        ("白日依山尽，黄河入海流。欲穷千里目，更上一层楼。\n", "gb18030", "gb18030"),
        ("다람쥐 헌 쳇바퀴에 타고파. 안녕하세요 여러분. ", "cp949", "cp949"),
    ],
)
def test_a_foreign_encoding_is_guessed_with_the_command_that_converts_it(
    text: str, written_in: str, guess: str
) -> None:
    error = refusal(write("poem.txt", (text * 20).encode(written_in)))
    assert error.advice == f"it looks like {guess}, so try: iconv -f {guess} -t utf-8 poem.txt"


def test_a_foreign_encoding_is_guessed_from_the_lines_that_show_it() -> None:
    ascii_lines = b"GET /index.html 200\n" * (sources.GUESSED_ON // 8)
    error = refusal(write("log.txt", ascii_lines + (CYRILLIC + "\n").encode("cp1251") * 3 + ascii_lines))
    assert "looks like cp1251" in error.advice


def test_a_binary_file_is_called_one() -> None:
    error = refusal(write("picture.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"))
    assert error.advice == "it looks like a binary file; give a text"


@pytest.mark.parametrize(
    "data",
    [(CYRILLIC * 50).encode()[:-3], (CYRILLIC * 20).encode() + b"\xff" + (CYRILLIC * 20).encode()],
    ids=["cut in a character", "a wrong byte"],
)
def test_utf_8_with_little_wrong_is_called_damaged_and_no_foreign_encoding(data: bytes) -> None:
    error = refusal(write("poem.txt", data))
    assert "damaged UTF-8" in error.advice
    assert error.advice.endswith("iconv -c -f utf-8 -t utf-8 poem.txt")


def test_the_command_can_be_pasted_whatever_the_name_of_the_file() -> None:
    error = refusal(write("my poem.txt", (CYRILLIC * 20).encode("cp1251")))
    assert error.advice.endswith("iconv -f cp1251 -t utf-8 'my poem.txt'")


@given(st.text())
def test_utf_8_is_decoded_whatever_it_says(text: str) -> None:
    assert sources.decode(text.encode(), "poem.txt") == text


@given(st.binary())
@example(b"\xff")
@example(b"# -*- coding: latin-1 -*-\ncaf\xe9\n")
@example(b"<meta charset=utf-8>caf\xe9\n")
@example(b"\x84\x31\x95\x33caf\xe9")  # the byte order mark of gb18030
@example(b"\xa0\xad" * 40)
@example(bytes(range(1, 256)))
def test_bytes_of_any_kind_are_decoded_or_refused_in_our_own_words(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(CorpusError, match=r"is not UTF-8: .*; it looks like "):
            sources.decode(data, "poem.txt")
    else:
        assert sources.decode(data, "poem.txt").encode() == data
