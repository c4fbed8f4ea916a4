"""Samples, texts and symbols as JSON."""

import base64
import json
from typing import Any

from charrnn.data.vocabulary import BOUNDARY, UNKNOWN
from charrnn.generation.generate import Sample
from charrnn.units import nats_to_bits


def sample_record(written: Sample, prompt: str, *, alternatives: bool) -> str:
    """A sample, asked for by a prompt for all of them and one of its own, as a line of JSON."""
    facts: dict[str, Any] = {"number": written.number, "prompt": _valid_utf8(prompt + written.prompt)}
    if written.error is not None:
        facts["error"] = str(written.error)
    else:
        size = written.size
        per_character = round(nats_to_bits(written.nats / size), 6) if size else None
        facts |= text_fields(written.text.encode("utf-8", "surrogateescape"))
        facts |= {
            "stop_reason": written.stop_reason,
            "characters": size,
            "bits_per_char": per_character,
            "seed": written.seed,
        }
    if alternatives:
        facts["logprobs"] = [
            {
                "character": symbol_name(choice.character), "logprob": _logarithm(choice.nats),
                "best": {symbol_name(symbol): _logarithm(nats) for symbol, nats in choice.best},
            }
            for choice in written.choices
        ]  # fmt: skip
    return json.dumps(facts, ensure_ascii=False) + "\n"


def text_fields(data: bytes) -> dict[str, str]:
    """Bytes as a text, and where they are none as what they are, too."""
    text = data.decode("utf-8", "replace")
    exact = text.encode() == data
    return {"text": text} if exact else {"text": text, "base64": base64.b64encode(data).decode("ascii")}


def _valid_utf8(text: str) -> str:
    """A text with U+FFFD for bytes that are none."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def symbol_name(symbol: str) -> str:
    """What stands for a symbol in JSON: itself, ``<0xff>`` if it is half a character, nothing for an end."""
    if symbol == BOUNDARY:
        return ""
    if symbol == UNKNOWN:
        return "\ufffd"
    return f"<0x{ord(symbol) - 0xDC00:02x}>" if "\udc80" <= symbol <= "\udcff" else symbol


def _logarithm(nats: float) -> float:
    return round(-nats, 6) + 0.0  # certainty is 0, not -0
