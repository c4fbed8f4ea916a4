"""Colours that show the surprisal of each character, for ``charrnn sample --show surprisal``."""

from collections.abc import Iterable
from itertools import groupby, pairwise

from charrnn.generation.batch import SampledCharacter
from charrnn.units import nats_to_bits

_LEVELS = ((0.5, "dim"), (2.0, ""), (4.0, "yellow"), (6.0, "dark_orange"))  # upper bound in bits, Rich style
_TOP_STYLE = "bold white on red"  # for surprisals above all bounds

Styled = tuple[str, str]  # a text and its Rich style


def legend() -> list[Styled]:
    """Return a line that explains the colours."""
    bounds = [bound for bound, _ in _LEVELS]
    ranges = [f"{low:g} to {high:g}" for low, high in pairwise(bounds)]
    names = [f"below {bounds[0]:g}", *ranges, f"{bounds[-1]:g} or more"]
    parts = [("surprisal in bits:", "")]
    for name, style in zip(names, [*(style for _, style in _LEVELS), _TOP_STYLE], strict=True):
        parts += [("  ", ""), (name, style)]
    return parts


def surprise_colors(choices: Iterable[SampledCharacter]) -> list[Styled]:
    """Return the characters with their styles. Neighbours of the same style are joined."""
    characters = list(choices)
    styles = [_style(nats_to_bits(choice.nats)) for choice in characters]
    for index, choice in enumerate(characters):
        if index and "\udc80" <= choice.character < "\udcc0":  # a UTF-8 continuation byte: one style per character
            styles[index] = styles[index - 1]
    parts = zip((choice.character for choice in characters), styles, strict=True)
    return [("".join(text for text, _ in group), style) for style, group in groupby(parts, key=lambda part: part[1])]


def _style(bits: float) -> str:
    return next((style for bound, style in _LEVELS if bits < bound), _TOP_STYLE)
