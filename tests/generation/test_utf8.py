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
# Prefixes of characters with different sets of allowed next bytes.
PREFIXES = [
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
def byte_model() -> Checkpoint:
    """An untrained model of bytes, all about equally likely."""
    config = ModelConfig(layers=1, hidden=16)
    network = CharRNN(config, len(VOCABULARY))
    network.initialize(seed=0)
    return Checkpoint(config, VOCABULARY, network.tensors(), None, ReadConfig(unit="byte", documents="files"))


def state_after(utf8: UTF8Automaton, data: bytes) -> Any:
    state = np.array([START])
    for byte in data:
        state = utf8.after(state, np.array([byte]))
    return state


SUFFIXES = (
    b"",
    b"\x80",
    b"\x80\x80",
    b"\x80\x80\x80",
    b"\xa0\x80",
    b"\x90\x80\x80",
)  # one of these completes any valid prefix


def is_valid_prefix(data: bytes) -> bool:
    for suffix in SUFFIXES:
        with suppress(UnicodeDecodeError):
            (data + suffix).decode("utf-8")
            return True
    return False


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_byte_is_allowed_if_python_can_decode_it(prefix: bytes) -> None:
    utf8 = UTF8Automaton(VOCABULARY)
    forbidden = utf8.forbidden(state_after(utf8, prefix), np.array([np.inf]))[0]
    for byte in range(256):
        assert forbidden[byte] != is_valid_prefix(prefix + bytes([byte])), byte
    assert forbidden[VOCABULARY.boundary_id] == (prefix != b"")


@given(st.characters(exclude_categories=("Cs",)), st.integers(1, 4))
def test_a_character_starts_only_if_it_fits_into_the_length(character: str, remaining: int) -> None:
    utf8 = UTF8Automaton(VOCABULARY)
    data = character.encode()
    forbidden = utf8.forbidden(np.array([START]), np.array([float(remaining)]))[0]
    assert forbidden[data[0]] == (len(data) > remaining)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_generated_bytes_are_valid_utf_8(byte_model: Checkpoint, length: int, seed: int) -> None:
    network = NumPyRNN(byte_model.model_config, byte_model.tensors, "fp32")
    config = SampleConfig(length=length, seed=seed, utf8=True)
    symbols = "".join(chunk.text for chunk in generate(network, VOCABULARY, config))
    symbols.encode("ascii", "surrogateescape").decode("utf-8")
    assert len(symbols) <= length
    for sample in generate_batch(network, VOCABULARY, config, RequestList(Request(n) for n in range(3))):
        assert sample.text.isprintable() or sample.text.encode().decode() == sample.text
        assert len(sample.text.encode()) == sample.size


def test_without_the_option_bytes_may_be_invalid(byte_model: Checkpoint) -> None:
    network = NumPyRNN(byte_model.model_config, byte_model.tensors, "fp32")
    chunks = generate(network, VOCABULARY, SampleConfig(length=50, seed=0))
    with pytest.raises(UnicodeDecodeError):
        "".join(chunk.text for chunk in chunks).encode("ascii", "surrogateescape").decode("utf-8")


def test_an_incomplete_character_of_the_prompt_is_completed(byte_model: Checkpoint) -> None:
    network = NumPyRNN(byte_model.model_config, byte_model.tensors, "fp32")
    prefix = "é".encode()[:1].decode("utf-8", "surrogateescape")
    for seed in range(5):
        config = SampleConfig(length=9, seed=seed, utf8=True)
        symbols = prefix + "".join(chunk.text for chunk in generate(network, VOCABULARY, config, prefix))
        symbols.encode("ascii", "surrogateescape").decode("utf-8")


def test_a_character_model_rejects_the_utf8_option(tiny: Checkpoint) -> None:
    with pytest.raises(SettingError, match="models that predict bytes"):
        generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(utf8=True))


def test_filters_that_allow_no_continuation_are_an_error(byte_model: Checkpoint) -> None:
    network = NumPyRNN(byte_model.model_config, byte_model.tensors, "fp32")
    prefix = "é".encode()[:1].decode("utf-8", "surrogateescape")
    with pytest.raises(SettingError, match="no allowed byte continues"):
        list(generate(network, VOCABULARY, SampleConfig(length=9, utf8=True, allow="a"), prefix))


@pytest.mark.parametrize("field", ["allow", "forbid"])
def test_multi_byte_characters_cannot_be_allowed_or_forbidden(byte_model: Checkpoint, field: str) -> None:
    network = NumPyRNN(byte_model.model_config, byte_model.tensors, "fp32")
    with pytest.raises(SettingError, match="only ASCII characters"):
        generate(network, VOCABULARY, SampleConfig(**{field: "é"}))


def test_samples_with_different_prompts_in_a_batch_are_valid_utf_8(byte_model: Checkpoint) -> None:
    network = NumPyRNN(byte_model.model_config, byte_model.tensors, "fp32")
    requests = RequestList(Request(number, "a" * (7 * number % 40)) for number in range(30))
    for sample in generate_batch(network, VOCABULARY, SampleConfig(length=20, seed=1, utf8=True), requests, width=8):
        assert sample.error is None
        assert len(sample.text.encode()) == sample.size


def test_an_incomplete_character_that_does_not_fit_is_continued(byte_model: Checkpoint) -> None:
    network = NumPyRNN(byte_model.model_config, byte_model.tensors, "fp32")
    prefix = "中".encode()[:1].decode("utf-8", "surrogateescape")
    (chunk,) = generate(network, VOCABULARY, SampleConfig(length=1, seed=1, utf8=True), prefix)
    assert "\udc80" <= chunk.text < "\udcc0"
