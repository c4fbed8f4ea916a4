"""Checks of values: each takes the name of a setting and a value, and raises an error for a wrong one."""

import codecs
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Never, get_args

from charrnn.errors import SettingError

Check = Callable[[str, Any], object]


def refuse(name: str, value: object, advice: str) -> Never:
    """Raise the error for a value that a setting cannot have."""
    raise SettingError(name, f"cannot be {value}", f"give {advice}")


@dataclass(frozen=True)
class Integer:
    """Checks for a whole number."""

    low: int
    high: int = 2**63 - 1

    def __call__(self, name: str, value: Any) -> None:
        """Raise SettingError for anything else."""
        if not isinstance(value, int) or isinstance(value, bool) or value < self.low:
            refuse(name, value, f"a whole number, {self.low} or more")
        if value > self.high:
            refuse(name, value, "a whole number below 2**63" if self.high == 2**63 - 1 else f"at most {self.high}")


@dataclass(frozen=True)
class Range:
    """Checks for a finite number in a range; ``advice`` describes it."""

    low: float
    high: float
    advice: str
    exclude_low: bool = False  # the lower limit itself is wrong

    def __call__(self, name: str, value: Any) -> None:
        """Raise SettingError for anything else."""
        finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        if not finite or not self.low <= value <= self.high or (self.exclude_low and value == self.low):
            refuse(name, value, self.advice)


class OneOf:
    """Checks for one of the strings of a Literal."""

    def __init__(self, literal: Any) -> None:
        self.choices: tuple[str, ...] = get_args(literal)

    def __call__(self, name: str, value: Any) -> None:
        """Raise SettingError for anything else."""
        if value not in self.choices:
            refuse(name, value, "one of " + ", ".join(self.choices))


def check_encoding(name: str, value: str) -> None:
    """Raise SettingError for what is no encoding of text that Python knows."""
    try:
        codec = codecs.lookup(value)
    except (LookupError, ValueError):
        codec = None
    # some codecs of Python compress, and some cannot decode a text piece by piece
    if codec is None or not codec._is_text_encoding or codec.incrementaldecoder is None or codec.name == "undefined":
        refuse(name, value, "a text encoding such as utf-8, cp1251 or shift_jis")


def check_temperature(name: str, value: float | tuple[float, ...]) -> None:
    """Raise SettingError for anything but one finite temperature, 0 or more, or two of them."""
    if isinstance(value, tuple) and len(value) != 2:
        refuse(name, value, "one, or two between which to go")
    for temperature in value if isinstance(value, tuple) else (value,):
        Range(0, math.inf, "a finite number, 0 (greedy) or more")(name, temperature)


def parse_temperature(text: str) -> float | tuple[float, float]:
    """Return a number, or two that are given with a colon between."""
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        refuse("temperature", text, "a number such as 0.8, or two such as 0.6:1.1")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def check_stop(name: str, value: Any) -> None:
    """Raise SettingError for anything but one string, or several, none of them empty."""
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, tuple) or not all(isinstance(string, str) for string in strings):
        refuse(name, value, "a string, or several")
    if "" in strings:  # what a shell makes of "$(printf '\\n')"
        raise SettingError(name, "cannot be empty", "give a string, or leave it out")
