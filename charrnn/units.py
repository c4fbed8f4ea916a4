"""Formats durations, counts and sizes, and converts nats to bits."""

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


def format_bytes(size: int) -> str:
    """Return a size such as ``0.5 MB``, ``14.8 GB`` or ``1.2 EB``."""
    for unit, name in ((10**18, "EB"), (10**15, "PB"), (10**12, "TB"), (10**9, "GB")):
        if 10 * size >= unit:
            return f"{size / unit:,.1f} {name}" if size < 10**22 else f"{size / unit:.1e} {name}"
    return f"{size / 10**6:.1f} MB"
