from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn.data import vocabulary
from charrnn.data.vocabulary import BOUNDARY, UNKNOWN, Vocabulary, describe, describe_all
from charrnn.errors import UnknownCharacterError

ANY_CHARACTER = st.characters(exclude_categories=("Cs",))  # control characters and unassigned code points, too
ANY_TEXT = st.text(ANY_CHARACTER, min_size=1)


@given(ANY_TEXT, st.sampled_from(["char", "byte"]))
def test_decoding_what_was_encoded_gives_the_text_back(text: str, unit: Any) -> None:
    vocabulary = Vocabulary.from_text(text, unit)
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(st.binary())
def test_any_bytes_are_encoded_as_themselves(data: bytes) -> None:
    vocabulary = Vocabulary.from_text("", "byte")
    text = data.decode("utf-8", "surrogateescape")
    assert vocabulary.encode(text).tolist() == list(data)
    assert vocabulary.decode(list(data)).encode("utf-8", "surrogateescape") == data


def test_what_is_unknown_becomes_the_symbol_for_it() -> None:
    vocabulary = Vocabulary("ab" + UNKNOWN)
    assert vocabulary.encode("axbé").tolist() == [0, 2, 1, 2]
    assert vocabulary.split_unknown("axbé") == ("ab", "xé")


@given(ANY_TEXT)
def test_ids_number_the_distinct_characters_in_the_order_of_their_code_points(text: str) -> None:
    characters = Vocabulary.from_text(text)
    ranks = {character: rank for rank, character in enumerate(sorted(set(text)))}
    assert len(characters) == len(ranks)
    assert characters.encode(text).tolist() == [ranks[character] for character in text]


@given(ANY_TEXT, ANY_TEXT)
@example("\0", "\1")
def test_a_text_is_encoded_only_if_the_vocabulary_knows_all_of_it(known: str, text: str) -> None:
    characters = Vocabulary.from_text(known)
    if set(text) <= set(known):
        assert characters.decode(characters.encode(text)) == text
    else:
        with pytest.raises(UnknownCharacterError):
            characters.encode(text)


@given(ANY_TEXT, ANY_TEXT)
def test_a_text_splits_into_what_the_vocabulary_knows_and_what_it_does_not(known: str, text: str) -> None:
    characters = Vocabulary.from_text(known)
    kept, alien = characters.split_unknown(text)
    assert kept == "".join(character for character in text if character in known)
    assert alien == "".join(sorted(set(text) - set(known)))
    assert characters.decode(characters.encode(kept)) == kept


@pytest.mark.parametrize(
    ("distinct", "dtype"),
    [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)],
)
def test_ids_take_the_narrowest_type_that_holds_the_vocabulary(distinct: int, dtype: type) -> None:
    text = "".join(chr(code) for code in range(distinct + 0x800) if not 0xD800 <= code < 0xE000)[:distinct]
    ids = Vocabulary.from_text(text).encode(text)
    assert ids.dtype == dtype
    assert ids[-1] == distinct - 1


def test_an_empty_text_encodes_to_no_ids() -> None:
    assert Vocabulary.from_text("ab").encode("").tolist() == []


@pytest.mark.parametrize("length", [2, 3, 4, 6, 7])
def test_a_text_longer_than_a_piece_is_encoded_whole(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "SLICE", 3)
    text = "abcdefg"[:length]
    assert Vocabulary.from_text("abcdefg").encode(text).tolist() == list(range(length))


@pytest.mark.parametrize("alien", ["é", "!", "ð", "\U0001f600"])  # among the code points, before them, next, far off
def test_an_unknown_character_is_named_with_its_code_point(alien: str) -> None:
    with pytest.raises(UnknownCharacterError) as caught:
        Vocabulary.from_text("naïve").encode("na" + alien, "poem.txt")
    assert caught.value.subject == "poem.txt"
    assert f"U+{ord(alien):04X}" in caught.value.reason


def test_all_unknown_characters_are_named_even_those_of_later_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "SLICE", 2)
    with pytest.raises(UnknownCharacterError, match=r"U\+0078 .*U\+0079 .*U\+007A "):
        Vocabulary.from_text("a").encode("aazaxaay")


def test_a_vocabulary_contains_its_characters_and_nothing_else() -> None:
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
def test_a_character_is_described_by_code_point_and_name_and_shown_if_it_can_be(
    character: str, description: str
) -> None:
    assert describe(character) == description


@given(ANY_CHARACTER)
def test_a_description_can_be_printed_anywhere(character: str) -> None:
    assert describe(character).isprintable()


def test_of_many_characters_the_first_are_described_and_the_others_counted() -> None:
    assert describe_all("abcdefgh").count("LATIN") == 8
    described = describe_all("abcdefghijk")
    assert described.count("LATIN") == 8
    assert described.endswith("and 3 more")


def test_half_of_a_surrogate_pair_is_no_character() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        Vocabulary("a\ud800")
    with pytest.raises(UnknownCharacterError, match="byte 0x80"):
        Vocabulary("ab").encode("a\udc80")
