"""Checks of values: a check takes the name of a setting and a value, and raises SettingError for a wrong one."""

import codecs
import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Never, get_args

from charrnn.errors import SettingError, describe_value
from charrnn.suggestions import did_you_mean

Check = Callable[[str, Any], object]


def refuse(name: str, value: object, advice: str) -> Never:
    """Raise the error for an invalid value of a setting."""
    raise SettingError(name, f"invalid value {describe_value(value)}", f"give {advice}")


@dataclass(frozen=True)
class Integer:
    """Check for an integer from ``low`` to ``high``."""

    low: int
    high: int = 2**63 - 1

    def __call__(self, name: str, value: Any) -> None:
        """Raise SettingError for any other value."""
        if not isinstance(value, int) or isinstance(value, bool) or value < self.low:
            refuse(name, value, f"an integer, {self.low} or more")
        if value > self.high:
            refuse(name, value, "an integer below 2**63" if self.high == 2**63 - 1 else f"at most {self.high}")

    def parse(self, name: str, text: str) -> int:
        """Return the integer that a user typed.

        Raises:
            SettingError: If the text is not an integer. The range is checked later.
        """
        try:
            return int(text)
        except ValueError:
            refuse(name, text, f"an integer, {self.low} or more")


@dataclass(frozen=True)
class Range:
    """Check for a finite number from ``low`` to ``high``. ``advice`` describes the range."""

    low: float
    high: float
    advice: str
    exclude_low: bool = False

    def __call__(self, name: str, value: Any) -> None:
        """Raise SettingError for any other value."""
        if not _is_finite(value) or not self.low <= value <= self.high or (self.exclude_low and value == self.low):
            refuse(name, value, self.advice)

    def parse(self, name: str, text: str) -> float:
        """Return the number that a user typed.

        Raises:
            SettingError: If the text is not a number. The range is checked later.
        """
        try:
            return float(text)
        except ValueError:
            refuse(name, text, self.advice)


@dataclass(frozen=True)
class Nullable:
    """Check for None, or a value that passes another check."""

    check: Check

    def __call__(self, name: str, value: Any) -> None:
        """Raise SettingError for any other value."""
        if value is not None:
            self.check(name, value)


class OneOf:
    """Check for one of the strings of a Literal."""

    def __init__(self, literal: Any) -> None:
        self.choices: tuple[str, ...] = get_args(literal)

    def __call__(self, name: str, value: Any) -> None:
        """Raise SettingError for any other value."""
        if not isinstance(value, str) or value not in self.choices:
            suggestion = did_you_mean(value, self.choices) if isinstance(value, str) else ""
            refuse(name, value, "one of " + ", ".join(self.choices) + suggestion)


FINITE = Range(-math.inf, math.inf, "a finite number")


def _is_finite(value: object) -> bool:
    """Return whether a value is a number that fits into a float."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of more than 308 digits
        return False


def check_text(name: str, value: Any) -> None:
    """Raise SettingError unless the value is a string that UTF-8 with surrogateescape can encode."""
    if isinstance(value, str):
        with suppress(UnicodeEncodeError):
            value.encode("utf-8", "surrogateescape")
            return
    refuse(name, value, "a string without halves of surrogate pairs")


def check_bool(name: str, value: Any) -> None:
    """Raise SettingError unless the value is True or False."""
    if not isinstance(value, bool):
        refuse(name, value, "True or False")


def check_digest(name: str, value: Any) -> None:
    """Raise SettingError unless the value is a SHA-256 digest in hexadecimal."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        refuse(name, value, "64 hexadecimal digits")


def check_encoding(name: str, value: str) -> None:
    """Raise SettingError unless Python knows this text encoding."""
    try:
        codec = codecs.lookup(value) if isinstance(value, str) else None
    except (LookupError, ValueError):
        codec = None
    # Some of Python's codecs compress, and some cannot decode incrementally.
    if codec is None or not codec._is_text_encoding or codec.incrementaldecoder is None or codec.name == "undefined":
        refuse(name, value, "a text encoding such as utf-8, cp1251 or shift_jis")


def check_temperature(name: str, value: float | tuple[float, ...]) -> None:
    """Raise SettingError unless the value is a finite temperature of at least 0, or a pair of them."""
    if isinstance(value, tuple) and len(value) != 2:
        refuse(name, value, "one temperature, or a pair (first, last)")
    for temperature in value if isinstance(value, tuple) else (value,):
        Range(0, math.inf, "a finite number, 0 (greedy) or more")(name, temperature)


def parse_temperature(text: str) -> float | tuple[float, float]:
    """Return the temperature that a user typed: a number, or two numbers with a colon between them.

    Raises:
        SettingError: If the text is neither.
    """
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        refuse("temperature", text, "a number such as 0.8, or two such as 0.6:1.1")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def check_stop(name: str, value: Any) -> None:
    """Raise SettingError unless the value is a string or a tuple of strings, none of them empty."""
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, tuple) or not all(isinstance(string, str) for string in strings):
        refuse(name, value, "a string or a tuple of strings")
    if "" in strings:  # a shell turns "$(printf '\\n')" into an empty string
        raise SettingError(name, "is empty", "give a string, or leave it out")
