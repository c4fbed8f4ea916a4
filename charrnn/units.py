"""Formats durations and counts, and converts nats to bits."""

import math


def nats_to_bits(nats: float) -> float:
    """Convert nats (natural logarithm) to bits."""
    return nats / math.log(2)


def format_duration(seconds: float) -> str:
    """Return a duration such as ``45 s``, ``5 min`` or ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def format_count(number: float) -> str:
    """Return a count in about three digits, such as ``812``, ``865k`` or ``1.42M``."""
    if number < 1000:
        return f"{number:.0f}"
    return f"{number / 1e3:.3g}k" if number < 999_500 else f"{number / 1e6:.3g}M"
