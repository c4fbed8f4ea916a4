"""The checks and the defaults of the settings."""

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.charset import compile_charset
from charrnn.config import ModelConfig, ReadConfig, SampleConfig, SaveConfig, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.errors import SettingError, describe_value

INVALID = [
    (ModelConfig, "cell", "transformer"),
    (ModelConfig, "layers", 0),
    (ModelConfig, "hidden", 0),
    (ModelConfig, "hidden", 2.0),
    (ModelConfig, "hidden", True),
    (ModelConfig, "embedding", -1),
    (ModelConfig, "dropout", 1.0),
    (ModelConfig, "dropout", math.nan),
    (TrainConfig, "seq_length", 0),
    (TrainConfig, "batch_size", 0),
    (TrainConfig, "learning_rate", 0),
    (TrainConfig, "learning_rate", math.inf),
    (TrainConfig, "warmup", 1.5),
    (TrainConfig, "weight_decay", -1),
    (TrainConfig, "grad_clip", -1),
    (TrainConfig, "grad_clip", math.inf),
    (TrainConfig, "validation", 1),
    (TrainConfig, "epochs", 0),
    (TrainConfig, "steps", 0),
    (TrainConfig, "minutes", -1),
    (TrainConfig, "minutes", math.nan),
    (TrainConfig, "evaluations", 0),
    (TrainConfig, "patience", -1),
    (TrainConfig, "seed", -1),
    (TrainConfig, "seed", 2**63),
    (TrainConfig, "device", "tpu"),
    (TrainConfig, "precision", "fp8"),
    (TrainConfig, "threads", -1),
    (TrainConfig, "threads", 1025),
    (TrainConfig, "minutes", 10**400),
    (SampleConfig, "length", -1),
    (SampleConfig, "temperature", -0.1),
    (SampleConfig, "temperature", math.nan),
    (SampleConfig, "temperature", math.inf),
    (SampleConfig, "top_k", -1),
    (SampleConfig, "top_p", 0),
    (SampleConfig, "top_p", 1.1),
    (SampleConfig, "min_p", -0.1),
    (SampleConfig, "seed", -1),
    (SampleConfig, "unknown", "guess"),
    (ReadConfig, "unit", "word"),
    (ReadConfig, "encoding", "rot13"),
    (ReadConfig, "min_count", 0),
    (SaveConfig, "save_every", 0),
]
OVERRIDES = [(field, value) for config, field, value in INVALID if config in (ReadConfig, ModelConfig, TrainConfig)]


@pytest.mark.parametrize(("config", "field", "value"), INVALID)
def test_an_invalid_value_is_reported_with_its_field_and_the_valid_values(
    config: type, field: str, value: object
) -> None:
    with pytest.raises(SettingError, match=f"{field}: invalid value {re.escape(describe_value(value))}; give "):
        config(**{field: value})


@pytest.mark.parametrize(("field", "value"), OVERRIDES)
def test_an_invalid_override_is_reported_in_the_same_words(field: str, value: object) -> None:
    with pytest.raises(SettingError, match=f"{field}: invalid value {re.escape(describe_value(value))}; give "):
        Overrides(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 1.0, "steps": 9}, "steps: cannot be combined with --epochs"),
        ({"unit": "byte", "encoding": "utf-8"}, "encoding: applies to characters only"),
        ({"documents": "separated"}, "documents: the separator is empty"),
    ],
)
def test_conflicting_overrides_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Overrides(**settings)


def test_overrides_replace_only_the_given_settings() -> None:
    overrides = Overrides(hidden=64, dropout=0.0, min_count=2)
    assert overrides.apply(ModelConfig(cell="gru", dropout=0.5)) == ModelConfig(cell="gru", hidden=64, dropout=0.0)
    assert overrides.apply(TrainConfig(seed=3)) == TrainConfig(seed=3)
    assert overrides.apply(ReadConfig()) == ReadConfig(min_count=2)
    assert dict(overrides.chosen()) == {"hidden": 64, "dropout": 0.0, "min_count": 2}


@pytest.mark.parametrize("config", [ReadConfig, ModelConfig, TrainConfig, SampleConfig, SaveConfig, Overrides])
def test_every_default_is_valid(config: type) -> None:
    config()


@pytest.mark.parametrize(
    "settings",
    [
        {"stop": 5}, {"stop": ("a", None)}, {"stop": ["a"]}, {"temperature": (0.5,)}, {"temperature": (1, 2, 3)},
        {"repeat_window": 10**15}, {"repeat_penalty": 1e308}, {"length": 10**400}, {"allow": "a\\"},
    ],
)  # fmt: skip
def test_invalid_settings_of_a_sample_are_rejected(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        SampleConfig(**settings)


def test_none_and_an_empty_tuple_mean_no_stop_string() -> None:
    assert (
        SampleConfig().stop_strings
        == SampleConfig(stop=None).stop_strings
        == SampleConfig(stop=()).stop_strings
        == ()
    )


@pytest.mark.parametrize(
    ("charset", "matched"),
    [("[]", "[]"), ("]a", "]a"), ("^]a", "bc()[{}|."), (r"a\]", "a]"), ("()[]{}", "()[]{}"), ("a-c", "abc")],
)
def test_brackets_in_a_character_set_need_no_escape(charset: str, matched: str) -> None:
    pattern = compile_charset("forbid", charset)
    assert {c for c in "abc()[]{}|." if pattern.match(c)} == set(matched)


def test_an_empty_stop_string_is_rejected() -> None:
    with pytest.raises(SettingError, match="stop: is empty"):
        SampleConfig(stop="")


def test_steps_and_epochs_cannot_be_combined() -> None:
    with pytest.raises(SettingError, match="steps: cannot be combined with --epochs"):
        TrainConfig(epochs=1, steps=10)


def test_the_number_of_parameters_of_a_two_layer_lstm_is_as_counted_by_hand() -> None:
    layers = 4 * 128 * (65 + 128 + 2) + 4 * 128 * (128 + 128 + 2)
    assert ModelConfig(layers=2, hidden=128).num_parameters(65) == layers + 65 * 129


@given(
    cell=st.sampled_from(["lstm", "gru", "rnn"]),
    layers=st.integers(1, 5),
    hidden=st.integers(1, 40),
    embedding=st.integers(0, 9),
    vocab_size=st.integers(0, 50),
)
def test_the_number_of_parameters_is_the_total_size_of_the_tensors(
    cell: Any, layers: int, hidden: int, embedding: int, vocab_size: int
) -> None:
    config = ModelConfig(cell=cell, layers=layers, hidden=hidden, embedding=embedding)
    sizes = map(math.prod, config.tensor_shapes(vocab_size).values())
    assert config.num_parameters(vocab_size) == sum(sizes)


def test_parameters_of_a_huge_network_are_counted_exactly_and_at_once() -> None:
    config = ModelConfig(layers=2**63 - 1, hidden=2**63 - 1)
    assert config.num_parameters(3) % (2**63 - 1) == 3  # only the biases of the output are no multiple of H
