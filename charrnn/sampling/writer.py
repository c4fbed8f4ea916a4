"""The feedback loop: read the prompt, choose a character, write it, read it, and so on.

Knows nothing about files, terminals or bytes: it takes text and yields text.
"""

from collections.abc import Iterator
from itertools import count

from charrnn.config import SampleConfig
from charrnn.sampling.sampler import Sampler
from charrnn.sampling.stepper import Stepper
from charrnn.text.vocabulary import Vocabulary


def start(vocabulary: Vocabulary) -> str:
    """What the model reads when there is no prompt: the end of a line, or its first character without lines."""
    return "\n" if "\n" in vocabulary else vocabulary.characters[0]


def write(stepper: Stepper, vocabulary: Vocabulary, config: SampleConfig, prompt: str = "") -> Iterator[str]:
    """Yields the continuation of a prompt as it is made, without the prompt.

    Ends after ``config.length`` characters (never, if that is 0) or before the string ``config.stop``, of which
    nothing is ever yielded. The state runs through the prompt from zero.

    Raises:
        UnknownCharacterError: the prompt holds characters that the model never saw; raised by the call itself,
            before the first character.
    """
    ids = vocabulary.encode(prompt or start(vocabulary), "the prompt")
    characters = _characters(stepper, vocabulary, config, ids.tolist())
    return _held_back(characters, config.stop) if config.stop else characters


def _characters(stepper: Stepper, vocabulary: Vocabulary, config: SampleConfig, prompt: list[int]) -> Iterator[str]:
    sampler = Sampler(config)
    state = stepper.zero_state()
    for index in prompt[:-1]:
        _, state = stepper.step(index, state)
    index = prompt[-1]
    for _ in range(config.length) if config.length else count():
        logits, state = stepper.step(index, state)
        index = sampler.choose(logits)
        yield vocabulary.characters[index]


def _held_back(characters: Iterator[str], stop: str) -> Iterator[str]:
    """Passes text on, but for what may yet turn out to be the beginning of ``stop``."""
    held = ""
    for character in characters:
        held += character
        if held.endswith(stop):
            if len(held) > len(stop):
                yield held[: -len(stop)]
            return
        begun = next(size for size in range(min(len(held), len(stop) - 1), -1, -1) if held.endswith(stop[:size]))
        if begun < len(held):
            yield held[: len(held) - begun]
            held = held[len(held) - begun :]
    if held:
        yield held
