"""The feedback loop."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.checkpoint import Checkpoint
from charrnn.config import SampleConfig
from charrnn.data.vocabulary import Vocabulary
from charrnn.errors import SettingError, UnknownCharacterError
from charrnn.generation import generate as module
from charrnn.generation.batch import start_text
from charrnn.generation.generate import MAX_AHEAD, Request, RequestList, Sample, generate, generate_batch
from charrnn.generation.sampler import log_softmax
from charrnn.rnn.backend import Decoder
from charrnn.rnn.compiled_rnn import CompiledRNN
from charrnn.rnn.numpy_rnn import NumPyRNN


def written(tiny: Checkpoint, prompt: str = "fox", **settings: Any) -> str:
    pieces = generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(**settings), prompt)
    return "".join(piece.text for piece in pieces)


def all_written(tiny: Checkpoint, prompts: Sequence[str], width: int = 256, **settings: Any) -> list[Sample]:
    requests = RequestList(Request(number, prompt) for number, prompt in enumerate(prompts))
    numpy_rnn = NumPyRNN(tiny.model_config, tiny.tensors)
    return list(generate_batch(numpy_rnn, tiny.vocabulary, SampleConfig(**settings), requests, width=width))


@pytest.mark.parametrize("length", [1, 2, 100])
def test_it_writes_exactly_as_many_characters_as_asked(tiny: Checkpoint, length: int) -> None:
    assert len(written(tiny, length=length)) == length


def test_a_shorter_sample_is_the_beginning_of_a_longer_one(tiny: Checkpoint) -> None:
    assert written(tiny, length=200, seed=1).startswith(written(tiny, length=100, seed=1))


def test_each_character_is_fed_back_in(tiny: Checkpoint) -> None:
    numpy_rnn, characters = NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary.symbols
    text = written(tiny, prompt="fox", length=40, temperature=0)
    state = numpy_rnn.zero_state(1)
    for position, character in enumerate("fox" + text[:-1]):
        logits, state = numpy_rnn.step(np.array([characters.index(character)]), state)
        if position >= 2:
            assert characters[int(logits.argmax())] == text[position - 2]


def test_the_random_numbers_are_those_of_the_seed_and_the_number(tiny: Checkpoint) -> None:
    text = written(tiny, prompt="f", length=20, seed=2)
    numpy_rnn, characters = NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary.symbols
    uniforms = np.random.default_rng(np.random.SeedSequence(2, spawn_key=(0,))).random(20)
    state, index = numpy_rnn.zero_state(1), characters.index("f")
    for character, uniform in zip(text, uniforms, strict=True):
        logits, state = numpy_rnn.step(np.array([index]), state)
        cumulative = np.exp(log_softmax(logits))[0].cumsum()
        index = int(cumulative.searchsorted(uniform))
        assert characters[index] == character


def test_length_zero_never_stops(tiny: Checkpoint) -> None:
    pieces = generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(length=0), "fox")
    text = ""
    while len(text) < 2000:
        text += next(pieces).text


def test_without_a_prompt_it_begins_as_after_the_end_of_a_line(tiny: Checkpoint) -> None:
    assert written(tiny, "", length=30, seed=1) == written(tiny, "\n", length=30, seed=1)


def test_a_text_without_lines_begins_with_its_first_character() -> None:
    assert start_text(Vocabulary("ab")) == "a"


def test_an_unknown_character_is_told_by_the_call_itself(tiny: Checkpoint) -> None:
    with pytest.raises(UnknownCharacterError, match=r"the prompt: the model never saw 'ü' \(U\+00FC LATIN SMALL"):
        generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(), "für")


def test_filters_that_leave_nothing_are_told_by_the_call_itself(tiny: Checkpoint) -> None:
    with pytest.raises(SettingError, match="allow: leaves no character"):
        generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(allow="é"), "fox")


def test_a_stop_string_ends_the_sample(tiny: Checkpoint) -> None:
    whole = written(tiny, length=300, seed=3)
    stop = whole[40:42]
    assert written(tiny, length=300, seed=3, stop=stop) == whole[: whole.index(stop)]


def test_nothing_but_what_is_allowed_is_written(tiny: Checkpoint) -> None:
    assert set(written(tiny, length=300, seed=0, allow="a-e ")) <= set("abcde ")
    assert not set(written(tiny, length=300, seed=0, forbid="a-e ")) & set("abcde ")


def test_a_penalty_on_recent_characters_makes_them_rarer(tiny: Checkpoint) -> None:
    plain, varied = (written(tiny, length=2000, seed=0, repeat_penalty=x, repeat_window=5) for x in (1.0, 4.0))

    def repeated(text: str) -> int:
        return sum(character in text[max(0, place - 5) : place] for place, character in enumerate(text))

    assert repeated(varied) < repeated(plain) / 4


def test_the_prompt_counts_among_the_recent_characters(tiny: Checkpoint) -> None:
    settings = {"temperature": 0, "repeat_penalty": 100.0, "repeat_window": 3, "length": 1}
    assert written(tiny, prompt="fox", **settings) not in "fox"


prompts = st.lists(st.text("abcdefg o", max_size=40), min_size=1, max_size=7)


@settings(max_examples=25)
@given(prompts=prompts, width=st.integers(1, 9), seed=st.integers(0, 9))
def test_a_sample_does_not_depend_on_those_beside_it(
    tiny: Checkpoint, prompts: list[str], width: int, seed: int
) -> None:
    options: dict[str, Any] = {"length": 30, "seed": seed, "stop": "q", "repeat_penalty": 1.2}
    together = all_written(tiny, prompts, width, **options)
    alone = all_written(tiny, prompts, 1, **options)
    assert [sample.text for sample in together] == [sample.text for sample in alone]
    assert [sample.nats for sample in together] == pytest.approx([sample.nats for sample in alone], rel=1e-4)


def test_samples_come_in_order_with_what_was_asked(tiny: Checkpoint) -> None:
    prompts = ["fox" * (k % 5) for k in range(40)]
    found = all_written(tiny, prompts, width=4, length=200, stop="e", seed=5)
    assert [sample.number for sample in found] == list(range(40))
    assert [sample.prompt for sample in found] == prompts
    assert {sample.stop_reason for sample in found} <= {"stop", "length"}
    assert len({len(sample.text) for sample in found}) > 5


def test_the_first_of_many_is_the_one_alone(tiny: Checkpoint) -> None:
    assert all_written(tiny, ["fox"] * 3, length=50, seed=4)[0].text == written(tiny, length=50, seed=4)


def test_a_seed_is_told_by_which_it_can_be_had_again(tiny: Checkpoint) -> None:
    one, other = (all_written(tiny, [""] * 2, length=40) for _ in range(2))
    assert one[0].seed == one[1].seed != other[0].seed
    assert [sample.text for sample in all_written(tiny, [""] * 2, length=40, seed=one[0].seed)] == [
        sample.text for sample in one
    ]


def test_the_surprise_is_that_of_the_model_whatever_the_temperature(tiny: Checkpoint) -> None:
    (found,) = all_written(tiny, ["fox"], length=50, temperature=0.3, stop="z", seed=0)
    numpy_rnn, characters = NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary.symbols
    state, nats = numpy_rnn.zero_state(1), 0.0
    both = "fox" + found.text
    for position in range(len(both) - 1):
        logits, state = numpy_rnn.step(np.array([characters.index(both[position])]), state)
        if position >= 2:
            nats -= log_softmax(logits)[0, characters.index(both[position + 1])]
    assert found.nats == pytest.approx(nats, rel=1e-4)


def test_a_prompt_that_cannot_be_read_spoils_no_other(tiny: Checkpoint) -> None:
    found = all_written(tiny, ["fox", "für", "fox"], length=9, seed=0)
    assert [len(sample.text) for sample in found] == [9, 0, 9]
    assert isinstance(found[1].error, UnknownCharacterError)
    assert found[0].error is found[2].error is None


class Trickle:
    """Requests that come one at a time, the next one only after somebody has waited for it."""

    def __init__(self, number: int) -> None:
        self.taken, self._number, self.waited = 0, number, 0

    def get(self, *, block: bool) -> Request | None:
        if not block or self.taken == self._number:
            return None
        self.waited += 1
        self.taken += 1
        return Request(self.taken - 1)


def test_what_is_there_is_written_while_the_rest_is_awaited(tiny: Checkpoint) -> None:
    requests = Trickle(3)
    samples = generate_batch(
        NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(length=50, seed=0), requests
    )
    for count in range(1, 4):
        next(samples)
        assert requests.taken == count
    assert list(samples) == []


def test_few_that_fail_at_once_are_taken_ahead_of_one_that_takes_long(tiny: Checkpoint) -> None:
    taken: list[int] = []

    def requests() -> Iterator[Request]:
        for number in range(1000):
            taken.append(number)
            yield Request(number, "fox" if number == 0 else "€")  # which the model never saw

    config, width = SampleConfig(length=200, seed=0), 3
    network = NumPyRNN(tiny.model_config, tiny.tensors)
    next(generate_batch(network, tiny.vocabulary, config, RequestList(requests()), width=width))
    assert len(taken) <= MAX_AHEAD * width + 1


def test_however_many_are_asked_for_few_are_taken_ahead(tiny: Checkpoint) -> None:
    taken = 0

    class Endless:
        def get(self, *, block: bool) -> Request:
            nonlocal taken
            taken += 1
            return Request(taken - 1, "für" if taken % 2 else "fox")

    numpy_rnn = NumPyRNN(tiny.model_config, tiny.tensors)
    samples = generate_batch(numpy_rnn, tiny.vocabulary, SampleConfig(length=20, seed=0), Endless(), width=8)
    for number in range(100):
        next(samples)
        assert taken <= number + 1 + (module.MAX_AHEAD + 1) * 8


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_what_it_thought_is_what_the_network_said(tiny: Checkpoint, penalty: float) -> None:
    (sample,) = all_written(
        tiny, ["fox"], length=40, seed=1, temperature=0.5, top_p=0.9, repeat_penalty=penalty, logprobs=3
    )
    numpy_rnn, ids = (
        NumPyRNN(tiny.model_config, tiny.tensors),
        tiny.vocabulary.encode("fox" + sample.text).astype(np.intp),
    )
    assert "".join(choice.character for choice in sample.choices) == sample.text
    state, logs = numpy_rnn.zero_state(1), []
    for index in ids[:-1]:
        logits, state = numpy_rnn.step(np.array([index]), state)
        logs.append(log_softmax(logits)[0])
    for choice, log, index in zip(sample.choices, logs[2:], ids[3:], strict=True):
        assert choice.nats == -log[index]
        likeliest = sorted(zip(-log, tiny.vocabulary.symbols, strict=True))[:3]
        assert choice.best == tuple((character, nats) for nats, character in likeliest)


def test_what_is_held_back_and_dropped_is_not_told_of(tiny: Checkpoint) -> None:
    options: dict[str, Any] = {"length": 300, "seed": 5, "logprobs": 0}
    (whole,) = all_written(tiny, ["fox"], **options)
    stop = whole.text[20:24]
    (sample,) = all_written(tiny, ["fox"], stop=stop, **options)
    assert sample.choices == whole.choices[: len(sample.text)]
    assert sample.stop_reason == "stop"
    assert sample.nats == pytest.approx(sum(choice.nats for choice in sample.choices))


def test_a_single_sample_tells_the_same_piece_by_piece(tiny: Checkpoint) -> None:
    config = SampleConfig(length=200, seed=1, logprobs=2, stop="zzz")
    pieces = list(generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, config, "fox"))
    (sample,) = all_written(tiny, ["fox"], length=200, seed=1, logprobs=2, stop="zzz")
    assert all("".join(choice.character for choice in piece.choices) == piece.text for piece in pieces)
    assert tuple(choice for piece in pieces for choice in piece.choices) == sample.choices


def test_more_alternatives_than_characters_are_all_of_them(tiny: Checkpoint) -> None:
    (sample,) = all_written(tiny, ["fox"], length=3, seed=1, logprobs=10_000)
    assert all(len(choice.best) == len(tiny.vocabulary) for choice in sample.choices)


def test_compiled_code_tells_the_same(tiny: Checkpoint) -> None:
    def told(network: Decoder) -> list[Sample]:
        requests = RequestList(Request(number, "fox") for number in range(3))
        config = SampleConfig(length=30, seed=1, logprobs=2)
        return list(generate_batch(network, tiny.vocabulary, config, requests))

    assert told(CompiledRNN(tiny.model_config, tiny.tensors)) == told(NumPyRNN(tiny.model_config, tiny.tensors))


@pytest.mark.parametrize("kind", [CompiledRNN, NumPyRNN])
def test_a_falling_temperature_never_falls_below_its_end(tiny: Checkpoint, kind: type[Decoder]) -> None:
    prompts, config = ["f", "fox jumps over " * 5, "", "dog"], SampleConfig(length=20, temperature=(1.0, 0.0), seed=1)

    def texts(asked: Sequence[str], first: int = 0) -> list[str]:
        requests = RequestList(Request(first + number, prompt) for number, prompt in enumerate(asked))
        network = kind(tiny.model_config, tiny.tensors)  # type: ignore[call-arg]
        return [one.text for one in generate_batch(network, tiny.vocabulary, config, requests)]

    together = texts(prompts)  # those with short prompts end before the others
    assert together[0] == texts(prompts[:1])[0]
    assert [len(text) for text in together] == [20] * 4
