"""Converts JSON data from untrusted files to dataclasses, and checks it.

A digest shows that a file is unchanged, not that its contents are valid. So a dataclass declares every field of a
file, with its type and a check of its range (`settings.setting`, `settings.checked`). Relations between fields are
checked in ``__post_init__``. `from_json` does all these checks.

    header = from_json(Header, strict_json.parse_json(text))
"""

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Never, TypeVar, Union, get_args, get_origin, get_type_hints

from charrnn.config.settings import check
from charrnn.errors import SettingError, describe_value

_T = TypeVar("_T")
_MAX_INTEGER = 2**63 - 1  # larger numbers do not fit into arrays


class SchemaError(ValueError):
    """JSON data that does not fit its schema. The message names the field."""


def from_json(kind: type[_T], data: Any, name: str = "") -> _T:
    """Return JSON data as an instance of a dataclass. The inverse of `to_json`.

    The names in the data must be exactly those of the fields; the field ``from_`` has the name ``from``. An integer
    is accepted for a float. Numbers must be finite, and integers must fit into 64 bits.

    Args:
        kind: The dataclass. Its fields are integers, floats, booleans, strings, literals, None, tuples, mappings from
            strings, dataclasses, and unions of them.
        data: The data.
        name: Name of the data in errors.

    Raises:
        SchemaError: If a name is missing or unknown, or a value has the wrong type, is out of range, or contradicts
            another value.
    """
    try:
        return _convert_object(kind, data, name)
    except RecursionError:
        raise SchemaError(f"{name or 'the data'} is nested too deeply") from None


def to_json(instance: Any) -> dict[str, Any]:
    """Return a dataclass as JSON data. The inverse of `from_json`."""
    return {field.name.rstrip("_"): _plain(getattr(instance, field.name)) for field in fields(instance)}


def _convert_object(kind: type[_T], data: Any, name: str) -> _T:
    if not isinstance(data, dict):
        _refuse(name, data, "an object")
    hints = _hints(kind)  # type: ignore[arg-type]
    if missing := hints.keys() - data.keys():
        raise SchemaError(f"{_join(name, min(missing))} is missing")
    if unknown := data.keys() - hints.keys():
        raise SchemaError(f"{describe_value(_join(name, min(unknown)))} is unknown")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    values = [_convert(hint, data[key], _join(name, key)) for key, hint in hints.items()]
    try:
        instance = kind(**dict(zip(names, values, strict=True)))
        check(instance)  # type: ignore[arg-type]
    except SettingError as error:
        raise SchemaError(f"{_join(name, error.subject)}: {error.reason}") from None
    except ValueError as error:  # from __post_init__
        raise SchemaError(f"{name}: {error}" if name else str(error)) from None
    return instance


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_json(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Return JSON data as a value of a type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, name)
    if is_dataclass(hint):
        return _convert_object(hint, value, name)  # type: ignore[arg-type]
    if origin is Literal:
        if not isinstance(value, str) or value not in args:
            _refuse(name, value, "one of " + ", ".join(args))
        return value
    if origin is tuple:
        if not isinstance(value, list):
            _refuse(name, value, "a list")
        return tuple(_convert(args[0], item, f"{name}.{index}") for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            _refuse(name, value, "an object")
        return {key: _convert(args[1], item, _join(name, key)) for key, item in value.items()}
    return _convert_scalar(hint, value, name)


def _convert_union(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    error = None
    for kind in kinds:
        if kind is not type(None):
            try:
                return _convert(kind, value, name)
            except SchemaError as failure:
                error = error or failure
    assert error is not None
    raise error


def _convert_scalar(kind: type, value: Any, name: str) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_INTEGER:
        _refuse(name, value, "a number below 2**63")
    if kind is float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            _refuse(name, value, "a finite number")
        return float(value)
    if type(value) is not kind:
        nouns = {int: "an integer", bool: "true or false", str: "a string"}
        _refuse(name, value, nouns[kind])
    return value


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    """Return the type of each field by its name in JSON."""
    hints = get_type_hints(kind)
    return {field.name.rstrip("_"): hints[field.name] for field in fields(kind)}


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _refuse(name: str, value: Any, expected: str) -> Never:
    raise SchemaError(f"{name or 'the data'} is {describe_value(value)}, not {expected}")
