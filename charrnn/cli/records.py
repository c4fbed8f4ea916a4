"""A sample as a line of JSON."""

import json
from typing import Any

from charrnn.sampling.writer import Sample
from charrnn.units import bits


def record(written: Sample, prompt: str, *, alternatives: bool) -> str:
    """A sample, asked for by a prompt for all of them and one of its own, as a line of JSON."""
    facts: dict[str, Any] = {"number": written.number, "prompt": prompt + written.prompt}
    if written.error is not None:
        facts["error"] = str(written.error)
    else:
        size = len(written.text)
        per_character = round(bits(written.nats / size), 6) if size else None
        facts |= {
            "text": written.text, "stop": written.ended, "characters": size, "bits_per_char": per_character,
            "seed": written.seed,
        }  # fmt: skip
    if alternatives:
        facts["logprobs"] = [
            {
                "character": choice.character, "logprob": _logarithm(choice.nats),
                "best": {character: _logarithm(nats) for character, nats in choice.best},
            }
            for choice in written.choices
        ]  # fmt: skip
    return json.dumps(facts, ensure_ascii=False) + "\n"


def _logarithm(nats: float) -> float:
    return round(-nats, 6) + 0.0  # certainty is 0, not -0
