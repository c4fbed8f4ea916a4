import unicodedata
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn.config import ReadConfig
from charrnn.data import encoding_guess
from charrnn.data.decoding import (
    MAX_PENDING_BYTES,
    MAX_PENDING_CHARACTERS,
    DecodingStats,
    TextDecoder,
    can_cut_before,
)
from charrnn.errors import CorpusError

CYRILLIC = "Мама мыла раму, и было хорошо. "
FRENCH = "Le café était très joli, à côté. "
BLOCK_SIZES = st.lists(st.integers(1, 9), max_size=12)


def decode(data: bytes, sizes: list[int] | None = None, **settings: Any) -> tuple[str, DecodingStats]:
    """Return the text and the statistics of a file that is read in blocks of these sizes."""
    decoding_stats = DecodingStats()
    decoder = TextDecoder(ReadConfig(**settings), "my poem.txt", decoding_stats)
    text = ""
    for size in sizes or []:
        text += decoder.feed(data[:size], last=False)
        data = data[size:]
    return text + decoder.feed(data, last=True), decoding_stats


def refusal(data: bytes, sizes: list[int] | None = None, **settings: Any) -> CorpusError:
    with pytest.raises(CorpusError) as caught:
        decode(data, sizes, **settings)
    assert caught.value.subject == "my poem.txt"
    return caught.value


@pytest.mark.parametrize(
    ("text", "unix", "ends"),
    [
        ("a\nb\n", "a\nb\n", {"LF": 2, "CRLF": 0, "CR": 0}),
        ("a\r\nb\r\n", "a\nb\n", {"LF": 0, "CRLF": 2, "CR": 0}),
        ("a\rb\r", "a\nb\n", {"LF": 0, "CRLF": 0, "CR": 2}),
        ("a\r\r\nb\n\rc", "a\n\nb\n\nc", {"LF": 1, "CRLF": 1, "CR": 2}),
        ("no line", "no line", {"LF": 0, "CRLF": 0, "CR": 0}),
    ],
)
@given(sizes=st.lists(st.integers(1, 3), max_size=5))
def test_line_endings_are_counted_and_converted_or_kept(
    text: str, unix: str, ends: dict[str, int], sizes: list[int]
) -> None:
    for newlines, expected in (("unix", unix), ("keep", text)):
        decoded, decoding_stats = decode(text.encode(), sizes, newlines=newlines)
        assert decoded == expected
        assert decoding_stats.line_ends == ends


def test_other_line_separators_of_python_are_kept() -> None:
    text = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"
    assert decode(text.encode())[0] == text


@pytest.mark.parametrize(
    ("encoding", "label"),
    [
        ("utf-8-sig", "UTF-8 with a byte order mark"),
        ("utf-16", "UTF-16 with a byte order mark"),
        ("utf-32", "UTF-32 with a byte order mark"),
    ],
)
def test_a_byte_order_mark_determines_the_encoding_and_is_removed(encoding: str, label: str) -> None:
    text, decoding_stats = decode("\ufeffnaïve".removeprefix("\ufeff").encode(encoding))
    assert text == "naïve"
    assert decoding_stats.encodings == {label: 1}


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be"])
def test_both_byte_orders_are_decoded(mark: str) -> None:
    assert decode("\ufeff".encode(mark) + "Ode".encode(mark))[0] == "Ode"


def test_a_byte_order_mark_within_a_text_is_kept() -> None:
    text, decoding_stats = decode("ab\ufeffc".encode())
    assert text == "ab\ufeffc"
    assert decoding_stats.encodings == {"UTF-8": 1}
    assert decoding_stats.inner_boms == 0


@given(BLOCK_SIZES, st.sampled_from(["utf-8", "utf-16"]), st.sampled_from(["\n", "\r", "\r\n"]))
def test_a_byte_order_mark_where_files_were_joined_is_removed_and_counted(
    sizes: list[int], encoding: str, end: str
) -> None:
    joined = f"a{end}\ufeffb{end}\ufeff\ufeff{end}\ufeff".encode(encoding)
    text, decoding_stats = decode(joined, sizes, encoding=encoding)
    assert text == "a\nb\n\n"
    assert decoding_stats.inner_boms >= 3


@given(st.text(), BLOCK_SIZES, st.sampled_from(["utf-8", "utf-16", "utf-32", "gb18030", "utf-7"]))
def test_decoding_does_not_depend_on_the_blocks(text: str, sizes: list[int], encoding: str) -> None:
    text = text.replace("\0", "0").replace("\ufeff", "x")
    data = text.encode(encoding)
    if encoding == "utf-8":
        assert decode(data, sizes, newlines="keep")[0] == text
    assert decode(data, sizes, encoding=encoding, newlines="keep")[0] == text


@given(st.text(st.sampled_from("aeé\u0301\u0327한\u1100\u1161\u11a8が\u3099ﬁ\uff76\uff9e\n")), BLOCK_SIZES)
@pytest.mark.parametrize("form", ["nfc", "nfkc"])
def test_normalization_does_not_depend_on_the_blocks(form: Any, text: str, sizes: list[int]) -> None:
    assert decode(text.encode(), sizes, normalize=form)[0] == unicodedata.normalize(form.upper(), text)


@given(st.binary(), BLOCK_SIZES)
def test_bytes_are_not_changed(data: bytes, sizes: list[int]) -> None:
    assert decode(data, sizes, unit="byte")[0].encode("latin-1") == data


@given(
    st.lists(st.sampled_from(["é", "x", "\n", "\r\n", "\r", "中"]), max_size=30).map("".join),
    st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\xc3\n", b"\0"]),
    BLOCK_SIZES,
)
def test_an_error_gives_line_column_and_offset_of_the_first_wrong_byte(
    before: str, wrong: bytes, sizes: list[int]
) -> None:
    error = refusal(before.encode() + wrong + b"and more" * 9, sizes)
    lines = before.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    where = f"at line {len(lines)}, column {len(lines[-1]) + 1} (byte {len(before.encode())})"
    assert error.reason.endswith(where)
    reason = "contains a NUL byte" if wrong == b"\0" else f"is not UTF-8: byte 0x{wrong[0]:02x}"
    assert error.reason.startswith(reason)


def test_an_invalid_byte_in_a_given_encoding_is_an_error() -> None:
    error = refusal(b"a\nb\x98", encoding="cp1251")
    assert error.reason == "is not CP1251: byte 0x98 at line 2, column 2 (byte 3)"


def test_a_nul_byte_is_accepted_in_a_given_encoding() -> None:
    assert decode(b"a\0b", encoding="utf-8")[0] == "a\0b"


@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [
        (CYRILLIC, "cp1251", "cp1251"),
        (CYRILLIC, "koi8_r", "koi8-r"),
        (CYRILLIC, "cp866", "cp866"),
        (FRENCH, "utf-16-le", "utf-16-le"),
        (FRENCH, "utf-16-be", "utf-16-be"),
        (FRENCH, "latin-1", "cp1252"),
        ("café\n", "latin-1", "cp1252"),
        ("Zażółć gęślą jaźń, proszę pana. ", "cp1250", "cp1250"),
        ("Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί. ", "cp1253", "cp1253"),
        ("これは日本語の文章です。とても長いです。", "shift_jis", "cp932"),
        ("白日依山尽，黄河入海流。欲穷千里目，更上一层楼。\n", "gb18030", "gb18030"),
        ("다람쥐 헌 쳇바퀴에 타고파. 안녕하세요 여러분. ", "cp949", "cp949"),
    ],
)
def test_another_encoding_is_guessed_and_the_advice_works(text: str, encoding: str, guess: str) -> None:
    data = (text * 20).encode(encoding)
    error = refusal(data)
    assert error.advice == f"add --encoding {guess}, the most likely one"
    assert decode(data, encoding=guess, newlines="keep")[0] == text * 20


def test_another_encoding_is_guessed_from_lines_that_are_not_ascii() -> None:
    ascii_lines = b"GET /index.html 200\n" * (encoding_guess.SAMPLE_BYTES // 8)
    error = refusal(ascii_lines + (CYRILLIC + "\n").encode("cp1251") * 3 + ascii_lines)
    assert "--encoding cp1251" in error.advice


def test_a_binary_file_is_reported_as_binary() -> None:
    error = refusal(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert error.advice == "give a text file, or add --unit byte to train on a binary file"


@pytest.mark.parametrize(
    "data",
    [(CYRILLIC * 50).encode()[:-3], (CYRILLIC * 20).encode() + b"\xff" + (CYRILLIC * 20).encode()],
    ids=["cut in a character", "a wrong byte"],
)
def test_damaged_utf_8_is_reported_with_a_repair_command(data: bytes) -> None:
    error = refusal(data)
    assert "damaged UTF-8" in error.advice
    assert error.advice.endswith("iconv -c -f utf-8 -t utf-8 'my poem.txt'")


@given(st.binary(), BLOCK_SIZES)
@example(b"\xff", [])
@example(b"# -*- coding: latin-1 -*-\ncaf\xe9\n", [])
@example(b"<meta charset=utf-8>caf\xe9\n", [])
@example(b"\x84\x31\x95\x33caf\xe9", [])  # the byte order mark of gb18030
@example(b"\xa0\xad" * 40, [])
@example(bytes(range(1, 256)), [])
@example(b"\xff\xfe\x00", [])
@example(b"\xff\xfe\x00\xd8a\x00", [])
def test_any_bytes_are_decoded_or_rejected_with_a_corpus_error(data: bytes, sizes: list[int]) -> None:
    with suppress(CorpusError):
        text, _ = decode(data, sizes, newlines="keep")
        marked = data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe"))
        assert marked or text == data.decode().removeprefix("\ufeff")


def test_no_character_composes_across_a_cut() -> None:
    """No character that may follow a cut is the second part of a composition in any normalization form."""
    seconds = set()
    for code in range(0x110000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(chr(int(parts[1], 16)))
    seconds |= {chr(code) for code in range(0x1161, 0x11C3)}  # vowels and final consonants of Hangul compose by rule
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or not can_cut_before(chr(code)):
            continue
        for form in ("NFD", "NFKD"):
            first = unicodedata.normalize(form, chr(code))[0]  # type: ignore[arg-type]
            assert unicodedata.combining(first) == 0, hex(code)
            assert first not in seconds, hex(code)


BLOCK = 1 << 15


def decode_blocks(data: bytes, **settings: Any) -> list[int]:
    """Decode a file block by block without its end, and return the number of characters of each block."""
    decoder = TextDecoder(ReadConfig(**settings), "my poem.txt", DecodingStats())
    return [len(decoder.feed(data[start : start + BLOCK], last=False)) for start in range(0, len(data), BLOCK)]


@pytest.mark.parametrize(("encoding", "start"), [("utf-7", b"+"), ("unicode_escape", rb"\N{"), ("idna", b"")])
def test_a_decoder_does_not_hold_back_bytes_without_end(encoding: str, start: bytes) -> None:
    with pytest.raises(CorpusError, match=r"^my poem.txt: has 1 MiB without a complete character in"):
        decode_blocks(start + b"A" * (MAX_PENDING_BYTES + 2 * BLOCK), encoding=encoding)


def test_combining_characters_without_end_are_refused() -> None:
    marks = "e" + "\u0301" * MAX_PENDING_CHARACTERS
    with pytest.raises(CorpusError, match="has more than 65,536 combining characters in a row"):
        decode_blocks(marks.encode(), normalize="nfc")


@pytest.mark.parametrize("character", ["\U00013000", "\u1200", "\u1100", "\u0b95", "\u2801"])
def test_a_script_without_spaces_is_normalized_block_by_block(character: str) -> None:
    sizes = decode_blocks(character.encode() * (4 * BLOCK), normalize="nfkc")
    assert min(sizes) > BLOCK // 5


@pytest.mark.parametrize("encoding", ["unicode_escape", "raw_unicode_escape"])
def test_codecs_that_report_another_name_in_errors_are_supported(encoding: str) -> None:
    decoder = TextDecoder(ReadConfig(encoding=encoding), "text", DecodingStats())
    with pytest.raises(CorpusError, match=r"is not .*: byte 0x5c"):
        decoder.feed(b"hello\nworld \\uZZZZ end", last=True)
