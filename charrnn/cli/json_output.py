"""Converts samples, texts and symbols to JSON."""

import base64
import json
from typing import Any

from charrnn.data.vocabulary import BOUNDARY, UNKNOWN
from charrnn.generation.generate import Sample
from charrnn.units import nats_to_bits


def sample_record(sample: Sample, prompt: str, *, alternatives: bool) -> str:
    """Return a sample as a line of JSON.

    Args:
        sample: The sample.
        prompt: The prompt that all samples share. It precedes the prompt of the sample.
        alternatives: Whether to add each character with its most likely alternatives.
    """
    record: dict[str, Any] = {"number": sample.number, "prompt": _valid_utf8(prompt + sample.prompt)}
    if sample.error is not None:
        record["error"] = str(sample.error)
    else:
        size = sample.size
        record |= text_fields(sample.text.encode("utf-8", "surrogateescape"))
        record |= {
            "stop_reason": sample.stop_reason,
            "characters": size,
            "bits_per_char": round(nats_to_bits(sample.nats / size), 6) if size else None,
            "seed": sample.seed,
        }
    if alternatives:
        record["logprobs"] = [
            {
                "character": symbol_name(choice.character), "logprob": _logprob(choice.nats),
                "best": {symbol_name(symbol): _logprob(nats) for symbol, nats in choice.best},
            }
            for choice in sample.choices
        ]  # fmt: skip
    return json.dumps(record, ensure_ascii=False) + "\n"


def text_fields(data: bytes) -> dict[str, str]:
    """Return bytes as text; bytes that are not valid UTF-8 also as base64."""
    text = data.decode("utf-8", "replace")
    exact = text.encode() == data
    return {"text": text} if exact else {"text": text, "base64": base64.b64encode(data).decode("ascii")}


def _valid_utf8(text: str) -> str:
    """Return a text with U+FFFD in place of bytes that are not valid UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def symbol_name(symbol: str) -> str:
    """Return the name of a symbol in JSON.

    This is the character itself, ``<0xff>`` for a byte that is not ASCII, U+FFFD for the unknown character, and an
    empty string for the document boundary.
    """
    if symbol == BOUNDARY:
        return ""
    if symbol == UNKNOWN:
        return "\ufffd"
    return f"<0x{ord(symbol) - 0xDC00:02x}>" if "\udc80" <= symbol <= "\udcff" else symbol


def _logprob(nats: float) -> float:
    return round(-nats, 6) + 0.0  # 0 instead of -0
