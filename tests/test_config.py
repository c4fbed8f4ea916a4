"""Every check of a value."""

import math
from typing import Any

import pytest

from charrnn.charset import compile_charset
from charrnn.config import ModelConfig, ReadConfig, SampleConfig, SaveConfig, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.errors import SettingError

WRONG = [
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
OVERRIDES = [(field, value) for config, field, value in WRONG if config in (ReadConfig, ModelConfig, TrainConfig)]


@pytest.mark.parametrize(("config", "field", "value"), WRONG)
def test_a_wrong_value_names_its_field_itself_and_what_would_do(config: type, field: str, value: object) -> None:
    with pytest.raises(SettingError, match=f"{field}: invalid value {value}; give "):
        config(**{field: value})


@pytest.mark.parametrize(("field", "value"), OVERRIDES)
def test_a_wrong_override_is_refused_in_the_same_words(field: str, value: object) -> None:
    with pytest.raises(SettingError, match=f"{field}: invalid value {value}; give "):
        Overrides(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"epochs": 1.0, "steps": 9}, "steps: cannot be combined with --epochs"),
        ({"unit": "byte", "encoding": "utf-8"}, "encoding: applies to characters only"),
        ({"documents": "separated"}, "documents: the separator is empty"),
    ],
)
def test_overrides_that_exclude_each_other_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        Overrides(**settings)


def test_overrides_replace_what_was_chosen_and_nothing_else() -> None:
    overrides = Overrides(hidden=64, dropout=0.0, min_count=2)
    assert overrides.apply(ModelConfig(cell="gru", dropout=0.5)) == ModelConfig(cell="gru", hidden=64, dropout=0.0)
    assert overrides.apply(TrainConfig(seed=3)) == TrainConfig(seed=3)
    assert overrides.apply(ReadConfig()) == ReadConfig(min_count=2)
    assert dict(overrides.chosen()) == {"hidden": 64, "dropout": 0.0, "min_count": 2}


@pytest.mark.parametrize("config", [ReadConfig, ModelConfig, TrainConfig, SampleConfig, SaveConfig, Overrides])
def test_every_default_is_a_good_value(config: type) -> None:
    config()


@pytest.mark.parametrize(
    "settings",
    [
        {"stop": 5}, {"stop": ("a", None)}, {"stop": ["a"]}, {"temperature": (0.5,)}, {"temperature": (1, 2, 3)},
        {"repeat_window": 10**15}, {"repeat_penalty": 1e308}, {"length": 10**400}, {"allow": "a\\"},
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_with_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        SampleConfig(**settings)


def test_no_stop_string_may_be_said_in_three_ways() -> None:
    assert (
        SampleConfig().stop_strings
        == SampleConfig(stop=None).stop_strings
        == SampleConfig(stop=()).stop_strings
        == ()
    )


@pytest.mark.parametrize(
    ("inside", "matched"),
    [("[]", "[]"), ("]a", "]a"), ("^]a", "bc()[{}|."), (r"a\]", "a]"), ("()[]{}", "()[]{}"), ("a-c", "abc")],
)
def test_characters_are_given_as_inside_brackets_and_no_bracket_ends_them(inside: str, matched: str) -> None:
    pattern = compile_charset("forbid", inside)
    assert {c for c in "abc()[]{}|." if pattern.match(c)} == set(matched)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(SettingError, match="stop: is empty"):
        SampleConfig(stop="")


def test_steps_and_epochs_are_one_budget_too_many() -> None:
    with pytest.raises(SettingError, match="steps: cannot be combined with --epochs"):
        TrainConfig(epochs=1, steps=10)


def test_a_two_by_128_lstm_over_65_characters_has_as_many_parameters_as_counted_by_hand() -> None:
    layers = 4 * 128 * (65 + 128 + 2) + 4 * 128 * (128 + 128 + 2)
    assert ModelConfig(layers=2, hidden=128).num_parameters(65) == layers + 65 * 129
