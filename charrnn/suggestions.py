"""Suggestions for misspelled names."""

from collections.abc import Iterable


def did_you_mean(name: object, choices: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` for the choice closest to a misspelled name, or an empty string."""
    from difflib import get_close_matches  # only a wrong name pays for this import

    matches = get_close_matches(str(name), list(choices), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""
