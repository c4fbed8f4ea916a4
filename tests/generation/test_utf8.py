from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.checkpoint import Checkpoint
from charrnn.config import ModelConfig, ReadConfig, SampleConfig
from charrnn.data.vocabulary import BOUNDARY, BYTES, Vocabulary
from charrnn.errors import SettingError
from charrnn.generation.generate import Request, RequestList, generate, generate_batch
from charrnn.generation.utf8 import START, UTF8Automaton
from charrnn.rnn.numpy_rnn import NumPyRNN
from charrnn.rnn.torch_rnn import CharRNN

VOCABULARY = Vocabulary(BYTES + BOUNDARY, "byte")
# Beginnings after which something else may follow each time.
BEGINNINGS = [
    b"",
    b"\xc3",
    b"\xe0",
    b"\xe1",
    b"\xe1\x80",
    b"\xed",
    b"\xf0",
    b"\xf1",
    b"\xf1\x80",
    b"\xf4",
    b"\xf4\x80\x80",
]


@pytest.fixture(scope="module")
def noise() -> Checkpoint:
    """An untrained model of bytes: all of them are about as likely."""
    config = ModelConfig(layers=1, hidden=16)
    network = CharRNN(config, len(VOCABULARY))
    network.initialize(seed=0)
    return Checkpoint(config, VOCABULARY, network.tensors(), {}, ReadConfig(unit="byte", documents="files"))


def state_after(utf8: UTF8Automaton, data: bytes) -> Any:
    state = np.array([START])
    for byte in data:
        state = utf8.after(state, np.array([byte]))
    return state


ENDS = (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80")  # one of them ends any character


def is_legal_so_far(data: bytes) -> bool:
    for end in ENDS:
        with suppress(UnicodeDecodeError):
            (data + end).decode("utf-8")
            return True
    return False


@pytest.mark.parametrize("begun", BEGINNINGS)
def test_a_byte_is_allowed_where_python_can_decode_it(begun: bytes) -> None:
    utf8 = UTF8Automaton(VOCABULARY)
    forbidden = utf8.forbidden(state_after(utf8, begun), np.array([np.inf]))[0]
    for byte in range(256):
        assert forbidden[byte] != is_legal_so_far(begun + bytes([byte])), byte
    assert forbidden[VOCABULARY.boundary_id] == (begun != b"")


@given(st.characters(exclude_categories=("Cs",)), st.integers(1, 4))
def test_a_character_begins_only_where_there_is_room_for_it(character: str, left: int) -> None:
    utf8 = UTF8Automaton(VOCABULARY)
    data = character.encode()
    forbidden = utf8.forbidden(np.array([START]), np.array([float(left)]))[0]
    assert forbidden[data[0]] == (len(data) > left)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_whatever_the_model_thinks_what_it_writes_is_utf_8(noise: Checkpoint, length: int, seed: int) -> None:
    network = NumPyRNN(noise.model_config, noise.tensors, "fp32")
    config = SampleConfig(length=length, seed=seed, utf8=True)
    symbols = "".join(piece.text for piece in generate(network, VOCABULARY, config))
    symbols.encode("ascii", "surrogateescape").decode("utf-8")
    assert len(symbols) <= length
    for sample in generate_batch(network, VOCABULARY, config, RequestList(Request(n) for n in range(3))):
        assert sample.text.isprintable() or sample.text.encode().decode() == sample.text
        assert len(sample.text.encode()) == sample.size


def test_without_it_bytes_come_as_they_may(noise: Checkpoint) -> None:
    network = NumPyRNN(noise.model_config, noise.tensors, "fp32")
    pieces = generate(network, VOCABULARY, SampleConfig(length=50, seed=0))
    with pytest.raises(UnicodeDecodeError):
        "".join(piece.text for piece in pieces).encode("ascii", "surrogateescape").decode("utf-8")


def test_a_character_that_the_prompt_began_is_finished(noise: Checkpoint) -> None:
    network = NumPyRNN(noise.model_config, noise.tensors, "fp32")
    begun = "é".encode()[:1].decode("utf-8", "surrogateescape")
    for seed in range(5):
        config = SampleConfig(length=9, seed=seed, utf8=True)
        symbols = begun + "".join(piece.text for piece in generate(network, VOCABULARY, config, begun))
        symbols.encode("ascii", "surrogateescape").decode("utf-8")


def test_a_model_of_characters_has_no_bytes_to_keep_whole(tiny: Checkpoint) -> None:
    with pytest.raises(SettingError, match="models that predict bytes"):
        generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(utf8=True))


def test_bytes_that_are_forbidden_may_leave_no_way_on(noise: Checkpoint) -> None:
    network = NumPyRNN(noise.model_config, noise.tensors, "fp32")
    begun = "é".encode()[:1].decode("utf-8", "surrogateescape")
    with pytest.raises(SettingError, match="no allowed byte continues"):
        list(generate(network, VOCABULARY, SampleConfig(length=9, utf8=True, allow="a"), begun))


@pytest.mark.parametrize("field", ["allow", "forbid"])
def test_characters_of_several_bytes_cannot_be_allowed_or_forbidden(noise: Checkpoint, field: str) -> None:
    network = NumPyRNN(noise.model_config, noise.tensors, "fp32")
    with pytest.raises(SettingError, match="only ASCII characters"):
        generate(network, VOCABULARY, SampleConfig(**{field: "é"}))


def test_samples_of_different_lengths_side_by_side_stay_utf_8(noise: Checkpoint) -> None:
    network = NumPyRNN(noise.model_config, noise.tensors, "fp32")
    requests = RequestList(Request(number, "a" * (7 * number % 40)) for number in range(30))
    for sample in generate_batch(network, VOCABULARY, SampleConfig(length=20, seed=1, utf8=True), requests, width=8):
        assert sample.error is None
        assert len(sample.text.encode()) == sample.size


def test_a_begun_character_for_which_there_is_no_room_goes_on_as_far_as_it_may(noise: Checkpoint) -> None:
    network = NumPyRNN(noise.model_config, noise.tensors, "fp32")
    begun = "中".encode()[:1].decode("utf-8", "surrogateescape")
    (piece,) = generate(network, VOCABULARY, SampleConfig(length=1, seed=1, utf8=True), begun)
    assert "\udc80" <= piece.text < "\udcc0"
