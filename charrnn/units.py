"""Quantities as people read them: bits, durations, counts."""

import math


def nats_to_bits(nats: float) -> float:
    """Nats (natural logarithm) as bits."""
    return nats / math.log(2)


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: ``45 s``, ``5 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def format_count(number: float) -> str:
    """A count in about three digits: ``812``, ``865k``, ``1.42M``."""
    if number < 1000:
        return f"{number:.0f}"
    return f"{number / 1e3:.3g}k" if number < 999_500 else f"{number / 1e6:.3g}M"
