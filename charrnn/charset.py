"""Parses sets of characters such as ``a-z0-9``, written as in the brackets of a regular expression."""

import re
import warnings

from charrnn.errors import SettingError, describe_value

_ADVICE = "give a set of characters such as 'a-z \\n'"


def compile_charset(field: str, characters: str) -> re.Pattern[str]:
    """Return a pattern that matches one character of the set.

    Args:
        field: Name of the setting in error messages.
        characters: Characters and ranges. The pattern of an empty set matches nothing.

    Raises:
        SettingError: If the set is invalid.
    """
    if not isinstance(characters, str):
        raise SettingError(field, f"invalid value {describe_value(characters)}", _ADVICE)
    inside = re.sub(r"\\.|\]", lambda match: match[0].rjust(2, "\\"), characters, flags=re.DOTALL)  # escapes "]"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[" may get another meaning in future Python
            return re.compile(f"[{inside}]" if inside else r"(?!)")
    except re.error as error:
        raise SettingError(field, f"invalid value {describe_value(characters)} ({error.msg})", _ADVICE) from None
