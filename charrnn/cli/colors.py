"""How unexpected each character was, in colours."""

from collections.abc import Iterable
from itertools import groupby

from charrnn.generation.batch import SampledCharacter
from charrnn.units import nats_to_bits

_LEVELS = ((0.5, "dim"), (2.0, ""), (4.0, "yellow"), (6.0, "dark_orange"))  # bits below which a style holds
_BEYOND = "bold white on red"

Styled = tuple[str, str]  # a text and its Rich style


def legend() -> list[Styled]:
    """What the colours mean."""
    edges = [most for most, _ in _LEVELS]
    names = [f"below {edges[0]:g}", *(f"to {edge:g}" for edge in edges[1:]), "more"]
    parts = [("bits of surprise:", "")]
    for name, style in zip(names, [*(style for _, style in _LEVELS), _BEYOND], strict=True):
        parts += [("  ", ""), (name, style)]
    return parts


def surprise_colors(choices: Iterable[SampledCharacter]) -> list[Styled]:
    """The characters, those of one colour together."""
    shown = list(choices)
    styles = [_style(nats_to_bits(choice.nats)) for choice in shown]
    for place, choice in enumerate(shown):
        if place and "\udc80" <= choice.character < "\udcc0":  # a byte that goes on with a character
            styles[place] = styles[place - 1]
    parts = zip((choice.character for choice in shown), styles, strict=True)
    return [("".join(text for text, _ in those), style) for style, those in groupby(parts, key=lambda part: part[1])]


def _style(surprise: float) -> str:
    return next((style for most, style in _LEVELS if surprise < most), _BEYOND)
