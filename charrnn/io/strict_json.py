"""Parses JSON from untrusted files."""

import json
from typing import Any, Never


def parse_json(text: str | bytes) -> Any:
    """Return JSON data. Infinity and NaN, which Python accepts by default, are not JSON.

    Raises:
        ValueError: If the text is not valid JSON, is nested too deeply, or contains an integer of thousands of
            digits.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _refuse_constant(constant: str) -> Never:
    raise ValueError(f"{constant} is not a JSON number")
