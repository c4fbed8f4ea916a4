"""The feedback loop."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.checkpoint import Checkpoint
from charrnn.config import SampleConfig
from charrnn.errors import UnknownCharacterError
from charrnn.sampling.sampler import Sampler
from charrnn.sampling.stepper import Stepper
from charrnn.sampling.writer import _held_back, start, write
from charrnn.text.vocabulary import Vocabulary


def written(tiny: Checkpoint, prompt: str = "fox", **settings: object) -> str:
    config = SampleConfig(**settings)  # type: ignore[arg-type]
    return "".join(write(Stepper(tiny.model, tiny.tensors), tiny.vocabulary, config, prompt))


@pytest.mark.parametrize("length", [1, 2, 100])
def test_it_writes_exactly_as_many_characters_as_asked(tiny: Checkpoint, length: int) -> None:
    assert len(written(tiny, length=length)) == length


def test_a_shorter_sample_is_the_beginning_of_a_longer_one(tiny: Checkpoint) -> None:
    assert written(tiny, length=200, seed=1).startswith(written(tiny, length=100, seed=1))


def test_each_character_is_fed_back_in(tiny: Checkpoint) -> None:
    stepper, sampler = Stepper(tiny.model, tiny.tensors), Sampler(SampleConfig(seed=2))
    state, expected = stepper.zero_state(), ""
    logits = None
    for character in "fox":
        logits, state = stepper.step(tiny.vocabulary.characters.index(character), state)
    for _ in range(40):
        index = sampler.choose(logits)
        expected += tiny.vocabulary.characters[index]
        logits, state = stepper.step(index, state)
    assert written(tiny, length=40, seed=2) == expected


def test_length_zero_never_stops(tiny: Checkpoint) -> None:
    pieces = write(Stepper(tiny.model, tiny.tensors), tiny.vocabulary, SampleConfig(length=0), "fox")
    assert len([next(pieces) for _ in range(2000)]) == 2000


def test_without_a_prompt_it_begins_as_after_the_end_of_a_line(tiny: Checkpoint) -> None:
    assert written(tiny, "", length=30, seed=1) == written(tiny, "\n", length=30, seed=1)


def test_a_text_without_lines_begins_with_its_first_character() -> None:
    assert start(Vocabulary("ab")) == "a"


def test_an_unknown_character_is_told_by_the_call_itself(tiny: Checkpoint) -> None:
    with pytest.raises(UnknownCharacterError, match=r"the prompt: the model never saw 'ü' \(U\+00FC LATIN SMALL"):
        write(Stepper(tiny.model, tiny.tensors), tiny.vocabulary, SampleConfig(), "für")


@given(text=st.text("ab", max_size=30), stop=st.text("ab", min_size=1, max_size=4))
def test_everything_before_the_stop_string_and_nothing_of_it_is_written(text: str, stop: str) -> None:
    assert "".join(_held_back(iter(text), stop)) == text.split(stop)[0]


@given(text=st.text("abc", max_size=30), stop=st.text("ab", min_size=1, max_size=4))
def test_no_more_is_held_back_than_may_become_the_stop_string(text: str, stop: str) -> None:
    reached = text.split(stop)[0]
    for size in range(len(reached) + 1):
        held = text[:size][len("".join(_held_until_then(text[:size], stop))) :]
        assert stop.startswith(held)


def _held_until_then(text: str, stop: str) -> list[str]:
    """What has been passed on by the time these characters have come, with more to follow."""
    passed: list[str] = []

    def coming() -> object:
        yield from text
        raise EOFError

    with contextlib.suppress(EOFError):
        passed.extend(iter(_held_back(coming(), stop)))  # type: ignore[arg-type]
    return passed


def test_a_stop_string_ends_the_sample(tiny: Checkpoint) -> None:
    whole = written(tiny, length=300, seed=3)
    stop = whole[40:42]
    assert written(tiny, length=300, seed=3, stop=stop) == whole[: whole.index(stop)]
