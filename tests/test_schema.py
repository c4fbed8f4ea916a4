"""JSON data becomes dataclasses only if every field is valid."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.config.checks import Integer, check_text
from charrnn.config.schema import SchemaError, from_json, to_json
from charrnn.config.settings import checked
from charrnn.io.strict_json import parse_json


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = checked(Integer(1))
    name: str = checked(check_text)


@dataclass(frozen=True, kw_only=True)
class Chain:
    next: "Chain | None"


@dataclass(frozen=True, kw_only=True)
class Outer:
    kind: Literal["a", "b"]
    share: float
    flag: bool
    inner: Inner
    items: tuple[Inner, ...]
    counts: Mapping[str, int]
    from_: Inner | None
    chain: Chain | None = None

    def __post_init__(self) -> None:
        if len(self.items) > self.inner.size:
            raise ValueError("there are too many items")


INNER = st.builds(Inner, size=st.integers(1, 2**63 - 1), name=st.text())
OUTER = st.builds(
    Outer, kind=st.sampled_from(["a", "b"]), share=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(), inner=INNER, items=st.just(()), counts=st.dictionaries(st.text(), st.integers(0, 9)),
    from_=st.none() | INNER,
)  # fmt: skip
DATA: dict[str, Any] = {
    "kind": "a", "share": 0.5, "flag": True, "inner": {"size": 2, "name": "x"}, "items": [{"size": 1, "name": ""}],
    "counts": {"x": 1}, "from": None, "chain": None,
}  # fmt: skip


def chain(length: int) -> Any:
    value = None
    for _ in range(length):
        value = {"next": value}
    return value


@given(OUTER)
def test_writing_and_reading_preserves_an_object(value: Outer) -> None:
    assert from_json(Outer, parse_json(json.dumps(to_json(value)))) == value


def test_a_number_without_a_fraction_is_a_float() -> None:
    assert isinstance(from_json(Outer, DATA | {"share": 1}).share, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "c"}, "kind is c, not one of a, b"),
        ({"kind": []}, "kind is [], not one of a, b"),
        ({"share": "1"}, "share is 1, not a finite number"),
        ({"share": True}, "share is True, not a finite number"),
        ({"share": math.nan}, "share is nan, not a finite number"),
        ({"share": 10**400}, "share is 1" + "0" * 76 + "..., not a number below 2**63"),
        ({"flag": 1}, "flag is 1, not true or false"),
        ({"inner": None}, "inner is None, not an object"),
        ({"inner": {"size": 0, "name": ""}}, "inner.size: invalid value 0"),
        ({"inner": {"size": True, "name": ""}}, "inner.size is True, not an integer"),
        ({"inner": {"size": 1.0, "name": ""}}, "inner.size is 1.0, not an integer"),
        ({"inner": {"size": 2**63, "name": ""}}, "inner.size is 9223372036854775808, not a number below 2**63"),
        ({"inner": {"size": 1, "name": "\ud800"}}, "inner.name: invalid value \ud800"),
        ({"inner": {"size": 1}}, "inner.name is missing"),
        ({"inner": {"size": 1, "name": "", "more": 1}}, "inner.more is unknown"),
        ({"items": {}}, "items is {}, not a list"),
        ({"items": [{"size": 1, "name": "x"}, 5]}, "items.1 is 5, not an object"),
        ({"items": [{"size": 1, "name": "x"}] * 3}, "there are too many items"),
        ({"counts": {"x": "1"}}, "counts.x is 1, not an integer"),
        ({"counts": []}, "counts is [], not an object"),
        ({"from": 5}, "from is 5, not an object"),
        ({"from_": None}, "from_ is unknown"),
        ({"chain": chain(900)}, "the data is nested too deeply"),
        ({"x" * 500: 1}, "x" * 77 + "... is unknown"),
    ],
)
def test_invalid_data_is_rejected_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as raised:
        from_json(Outer, DATA | change)
    assert str(raised.value) == message


@pytest.mark.parametrize("data", [None, [], "x", 1, math.nan])
def test_data_that_is_no_object_is_rejected(data: Any) -> None:
    with pytest.raises(SchemaError, match="not an object"):
        from_json(Outer, data)


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", "-Infinity", "[" * 100_000, "9" * 5000, b"\xff", '"\x00"']
)
def test_invalid_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_json(text)
    assert len(str(raised.value)) < 200
