from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn.data import vocabulary
from charrnn.data.vocabulary import BOUNDARY, UNKNOWN, Vocabulary, describe, describe_all
from charrnn.errors import UnknownCharacterError

ANY_CHARACTER = st.characters(exclude_categories=("Cs",))  # includes control characters and unassigned code points
ANY_TEXT = st.text(ANY_CHARACTER, min_size=1)


@given(ANY_TEXT, st.sampled_from(["char", "byte"]))
def test_decoding_reverses_encoding(text: str, unit: Any) -> None:
    vocabulary = Vocabulary.from_text(text, unit)
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(st.binary())
def test_bytes_are_encoded_as_their_values(data: bytes) -> None:
    vocabulary = Vocabulary.from_text("", "byte")
    text = data.decode("utf-8", "surrogateescape")
    assert vocabulary.encode(text).tolist() == list(data)
    assert vocabulary.decode(list(data)).encode("utf-8", "surrogateescape") == data


def test_unknown_characters_are_encoded_as_the_unknown_symbol() -> None:
    vocabulary = Vocabulary("ab" + UNKNOWN)
    assert vocabulary.encode("axbé").tolist() == [0, 2, 1, 2]
    assert vocabulary.split_unknown("axbé") == ("ab", "xé")


@given(ANY_TEXT)
def test_ids_follow_the_order_of_code_points(text: str) -> None:
    characters = Vocabulary.from_text(text)
    ranks = {character: rank for rank, character in enumerate(sorted(set(text)))}
    assert len(characters) == len(ranks)
    assert characters.encode(text).tolist() == [ranks[character] for character in text]


@given(ANY_TEXT, ANY_TEXT)
@example("\0", "\1")
def test_a_text_with_unknown_characters_is_not_encoded(known: str, text: str) -> None:
    characters = Vocabulary.from_text(known)
    if set(text) <= set(known):
        assert characters.decode(characters.encode(text)) == text
    else:
        with pytest.raises(UnknownCharacterError):
            characters.encode(text)


@given(ANY_TEXT, ANY_TEXT)
def test_splitting_separates_known_and_unknown_characters(known: str, text: str) -> None:
    characters = Vocabulary.from_text(known)
    encodable, unknown = characters.split_unknown(text)
    assert encodable == "".join(character for character in text if character in known)
    assert unknown == "".join(sorted(set(text) - set(known)))
    assert characters.decode(characters.encode(encodable)) == encodable


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)],
)
def test_ids_have_the_smallest_integer_type_that_fits(vocab_size: int, dtype: type) -> None:
    text = "".join(chr(code) for code in range(vocab_size + 0x800) if not 0xD800 <= code < 0xE000)[:vocab_size]
    ids = Vocabulary.from_text(text).encode(text)
    assert ids.dtype == dtype
    assert ids[-1] == vocab_size - 1


def test_an_empty_text_encodes_to_no_ids() -> None:
    assert Vocabulary.from_text("ab").encode("").tolist() == []


@pytest.mark.parametrize("length", [2, 3, 4, 6, 7])
def test_a_text_longer_than_a_slice_is_encoded(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "SLICE", 3)
    text = "abcdefg"[:length]
    assert Vocabulary.from_text("abcdefg").encode(text).tolist() == list(range(length))


@pytest.mark.parametrize(
    "unknown", ["é", "!", "ð", "\U0001f600"]
)  # between, before, right after and far beyond the known code points
def test_an_unknown_character_is_named_with_its_code_point(unknown: str) -> None:
    with pytest.raises(UnknownCharacterError) as caught:
        Vocabulary.from_text("naïve").encode("na" + unknown, "poem.txt")
    assert caught.value.subject == "poem.txt"
    assert f"U+{ord(unknown):04X}" in caught.value.reason


def test_unknown_characters_of_later_slices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "SLICE", 2)
    with pytest.raises(UnknownCharacterError, match=r"U\+0078 .*U\+0079 .*U\+007A "):
        Vocabulary.from_text("a").encode("aazaxaay")


def test_a_vocabulary_contains_only_its_characters() -> None:
    characters = Vocabulary("abc")
    assert "b" in characters
    for other in ("d", "ab", "", 1, None):
        assert other not in characters


@pytest.mark.parametrize("characters", ["", "aba"])
def test_a_vocabulary_needs_distinct_characters(characters: str) -> None:
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary(characters)


@pytest.mark.parametrize(
    ("character", "description"),
    [
        ("é", "'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)"),
        ("\U0001f600", "'\U0001f600' (U+1F600 GRINNING FACE)"),
        ("\u200b", "U+200B ZERO WIDTH SPACE"),
        ("\x1b", "U+001B"),
        ("\ud800", "U+D800"),
        ("\udcff", "byte 0xff"),
        (BOUNDARY, "the end of a document"),
        (UNKNOWN, "the unknown character"),
    ],
)
def test_a_character_is_described_by_code_point_and_name(character: str, description: str) -> None:
    assert describe(character) == description


@given(ANY_CHARACTER)
def test_a_description_is_printable(character: str) -> None:
    assert describe(character).isprintable()


def test_a_long_list_of_characters_is_abbreviated() -> None:
    assert describe_all("abcdefgh").count("LATIN") == 8
    described = describe_all("abcdefghijk")
    assert described.count("LATIN") == 8
    assert described.endswith("and 3 more")


def test_a_lone_surrogate_is_not_a_character() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        Vocabulary("a\ud800")
    with pytest.raises(UnknownCharacterError, match="byte 0x80"):
        Vocabulary("ab").encode("a\udc80")
