"""Generating text: one character after another is sampled and fed back."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn.api import Model
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


def generate_text(tiny: Checkpoint, prompt: str = "fox", **settings: Any) -> str:
    chunks = generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(**settings), prompt)
    return "".join(chunk.text for chunk in chunks)


def generate_samples(tiny: Checkpoint, prompts: Sequence[str], width: int = 256, **settings: Any) -> list[Sample]:
    requests = RequestList(Request(number, prompt) for number, prompt in enumerate(prompts))
    numpy_rnn = NumPyRNN(tiny.model_config, tiny.tensors)
    return list(generate_batch(numpy_rnn, tiny.vocabulary, SampleConfig(**settings), requests, width=width))


@pytest.mark.parametrize("length", [1, 2, 100])
def test_a_sample_has_exactly_the_requested_length(tiny: Checkpoint, length: int) -> None:
    assert len(generate_text(tiny, length=length)) == length


def test_a_shorter_sample_is_a_prefix_of_a_longer_one(tiny: Checkpoint) -> None:
    assert generate_text(tiny, length=200, seed=1).startswith(generate_text(tiny, length=100, seed=1))


def test_each_character_is_fed_back_in(tiny: Checkpoint) -> None:
    numpy_rnn, characters = NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary.symbols
    text = generate_text(tiny, prompt="fox", length=40, temperature=0)
    state = numpy_rnn.zero_state(1)
    for position, character in enumerate("fox" + text[:-1]):
        logits, state = numpy_rnn.step(np.array([characters.index(character)]), state)
        if position >= 2:
            assert characters[int(logits.argmax())] == text[position - 2]


def test_the_random_numbers_depend_on_seed_and_sample_number(tiny: Checkpoint) -> None:
    text = generate_text(tiny, prompt="f", length=20, seed=2)
    numpy_rnn, characters = NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary.symbols
    uniforms = np.random.default_rng(np.random.SeedSequence(2, spawn_key=(0,))).random(20)
    state, index = numpy_rnn.zero_state(1), characters.index("f")
    for character, uniform in zip(text, uniforms, strict=True):
        logits, state = numpy_rnn.step(np.array([index]), state)
        cumulative = np.exp(log_softmax(logits))[0].cumsum()
        index = int(cumulative.searchsorted(uniform))
        assert characters[index] == character


def test_length_zero_means_no_limit(tiny: Checkpoint) -> None:
    chunks = generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(length=0), "fox")
    text = ""
    while len(text) < 2000:
        text += next(chunks).text


def test_an_empty_prompt_equals_a_line_feed(tiny: Checkpoint) -> None:
    assert generate_text(tiny, "", length=30, seed=1) == generate_text(tiny, "\n", length=30, seed=1)


def test_the_start_text_without_line_feed_is_the_first_character() -> None:
    assert start_text(Vocabulary("ab")) == "a"


def test_an_unknown_prompt_character_is_an_immediate_error(tiny: Checkpoint) -> None:
    with pytest.raises(UnknownCharacterError, match=r"the prompt: the model never saw 'ü' \(U\+00FC LATIN SMALL"):
        generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(), "für")


def test_filters_that_leave_nothing_are_an_immediate_error(tiny: Checkpoint) -> None:
    with pytest.raises(SettingError, match="allow: leaves no character"):
        generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(allow="é"), "fox")


def test_a_stop_string_ends_the_sample(tiny: Checkpoint) -> None:
    full = generate_text(tiny, length=300, seed=3)
    stop = full[40:42]
    assert generate_text(tiny, length=300, seed=3, stop=stop) == full[: full.index(stop)]


def test_only_allowed_characters_are_generated(tiny: Checkpoint) -> None:
    assert set(generate_text(tiny, length=300, seed=0, allow="a-e ")) <= set("abcde ")
    assert not set(generate_text(tiny, length=300, seed=0, forbid="a-e ")) & set("abcde ")


def test_a_repeat_penalty_makes_recent_characters_rarer(tiny: Checkpoint) -> None:
    unpenalized, penalized = (
        generate_text(tiny, length=2000, seed=0, repeat_penalty=x, repeat_window=5) for x in (1.0, 4.0)
    )

    def repeated(text: str) -> int:
        return sum(character in text[max(0, index - 5) : index] for index, character in enumerate(text))

    assert repeated(penalized) < repeated(unpenalized) / 4


def test_the_repeat_penalty_applies_to_the_prompt(tiny: Checkpoint) -> None:
    settings = {"temperature": 0, "repeat_penalty": 100.0, "repeat_window": 3, "length": 1}
    assert generate_text(tiny, prompt="fox", **settings) not in "fox"


prompts = st.lists(st.text("abcdefg o", max_size=40), min_size=1, max_size=7)


@settings(max_examples=25)
@given(prompts=prompts, width=st.integers(1, 9), seed=st.integers(0, 9))
def test_a_sample_does_not_depend_on_the_batch(tiny: Checkpoint, prompts: list[str], width: int, seed: int) -> None:
    options: dict[str, Any] = {"length": 30, "seed": seed, "stop": "q", "repeat_penalty": 1.2}
    together = generate_samples(tiny, prompts, width, **options)
    alone = generate_samples(tiny, prompts, 1, **options)
    assert [sample.text for sample in together] == [sample.text for sample in alone]
    assert [sample.nats for sample in together] == pytest.approx([sample.nats for sample in alone], rel=1e-4)


def test_samples_are_yielded_in_order_with_their_prompts(tiny: Checkpoint) -> None:
    prompts = ["fox" * (k % 5) for k in range(40)]
    samples = generate_samples(tiny, prompts, width=4, length=200, stop="e", seed=5)
    assert [sample.number for sample in samples] == list(range(40))
    assert [sample.prompt for sample in samples] == prompts
    assert {sample.stop_reason for sample in samples} <= {"stop", "length"}
    assert len({len(sample.text) for sample in samples}) > 5


def test_the_first_of_many_samples_equals_a_single_sample(tiny: Checkpoint) -> None:
    assert generate_samples(tiny, ["fox"] * 3, length=50, seed=4)[0].text == generate_text(tiny, length=50, seed=4)


def test_a_random_seed_is_reported_and_reproduces_the_samples(tiny: Checkpoint) -> None:
    one, other = (generate_samples(tiny, [""] * 2, length=40) for _ in range(2))
    assert one[0].seed == one[1].seed != other[0].seed
    assert [sample.text for sample in generate_samples(tiny, [""] * 2, length=40, seed=one[0].seed)] == [
        sample.text for sample in one
    ]


def test_surprisal_does_not_depend_on_the_temperature(tiny: Checkpoint) -> None:
    (sample,) = generate_samples(tiny, ["fox"], length=50, temperature=0.3, stop="z", seed=0)
    numpy_rnn, characters = NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary.symbols
    state, nats = numpy_rnn.zero_state(1), 0.0
    text = "fox" + sample.text
    for position in range(len(text) - 1):
        logits, state = numpy_rnn.step(np.array([characters.index(text[position])]), state)
        if position >= 2:
            nats -= log_softmax(logits)[0, characters.index(text[position + 1])]
    assert sample.nats == pytest.approx(nats, rel=1e-4)


def test_an_invalid_prompt_does_not_affect_other_samples(tiny: Checkpoint) -> None:
    samples = generate_samples(tiny, ["fox", "für", "fox"], length=9, seed=0)
    assert [len(sample.text) for sample in samples] == [9, 0, 9]
    assert isinstance(samples[1].error, UnknownCharacterError)
    assert samples[0].error is samples[2].error is None


class Trickle:
    """Requests that arrive one at a time, the next one only after a blocking call."""

    def __init__(self, number: int) -> None:
        self.taken, self._number, self.waited = 0, number, 0

    def get(self, *, block: bool) -> Request | None:
        if not block or self.taken == self._number:
            return None
        self.waited += 1
        self.taken += 1
        return Request(self.taken - 1)


def test_a_sample_is_generated_before_the_next_request_arrives(tiny: Checkpoint) -> None:
    requests = Trickle(3)
    samples = generate_batch(
        NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, SampleConfig(length=50, seed=0), requests
    )
    for count in range(1, 4):
        next(samples)
        assert requests.taken == count
    assert list(samples) == []


def test_few_failing_requests_are_taken_ahead_of_a_long_sample(tiny: Checkpoint) -> None:
    taken: list[int] = []

    def requests() -> Iterator[Request]:
        for number in range(1000):
            taken.append(number)
            yield Request(number, "fox" if number == 0 else "€")  # unknown to the model

    config, width = SampleConfig(length=200, seed=0), 3
    network = NumPyRNN(tiny.model_config, tiny.tensors)
    next(generate_batch(network, tiny.vocabulary, config, RequestList(requests()), width=width))
    assert len(taken) <= MAX_AHEAD * width + 1


def test_few_requests_are_taken_ahead(tiny: Checkpoint) -> None:
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


@pytest.mark.parametrize(
    ("prompt", "settings"),
    [("fox" * 700, {"length": 2}), ("fox", {"length": 2000}), ("fox", {"length": 20, "logprobs": 2})],
)
def test_long_prompts_and_samples_are_not_held_in_great_number(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch, prompt: str, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(module, "MAX_HELD_CHARACTERS", 6000)
    taken = 0

    def prompts() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield prompt

    samples = Model(tiny).samples(prompts(), seed=1, lines=1, **settings)
    expected = generate_samples(tiny, [prompt] * 6, seed=1, lines=1, **settings)
    assert len(expected) == 6
    for number, sample in enumerate(expected):
        assert next(samples).text == sample.text
        assert taken <= number + 4


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_log_probabilities_equal_those_of_the_network(tiny: Checkpoint, penalty: float) -> None:
    (sample,) = generate_samples(
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


def test_removed_characters_have_no_log_probabilities(tiny: Checkpoint) -> None:
    options: dict[str, Any] = {"length": 300, "seed": 5, "logprobs": 0}
    (full,) = generate_samples(tiny, ["fox"], **options)
    stop = full.text[20:24]
    (sample,) = generate_samples(tiny, ["fox"], stop=stop, **options)
    assert sample.choices == full.choices[: len(sample.text)]
    assert sample.stop_reason == "stop"
    assert sample.nats == pytest.approx(sum(choice.nats for choice in sample.choices))


def test_chunks_of_a_single_sample_have_the_same_log_probabilities(tiny: Checkpoint) -> None:
    config = SampleConfig(length=200, seed=1, logprobs=2, stop="zzz")
    chunks = list(generate(NumPyRNN(tiny.model_config, tiny.tensors), tiny.vocabulary, config, "fox"))
    (sample,) = generate_samples(tiny, ["fox"], length=200, seed=1, logprobs=2, stop="zzz")
    assert all("".join(choice.character for choice in chunk.choices) == chunk.text for chunk in chunks)
    assert tuple(choice for chunk in chunks for choice in chunk.choices) == sample.choices


def test_a_large_logprobs_returns_all_characters(tiny: Checkpoint) -> None:
    (sample,) = generate_samples(tiny, ["fox"], length=3, seed=1, logprobs=10_000)
    assert all(len(choice.best) == len(tiny.vocabulary) for choice in sample.choices)


def test_compiled_code_gives_the_same_log_probabilities(tiny: Checkpoint) -> None:
    def generated(network: Decoder) -> list[Sample]:
        requests = RequestList(Request(number, "fox") for number in range(3))
        config = SampleConfig(length=30, seed=1, logprobs=2)
        return list(generate_batch(network, tiny.vocabulary, config, requests))

    assert generated(CompiledRNN(tiny.model_config, tiny.tensors)) == generated(
        NumPyRNN(tiny.model_config, tiny.tensors)
    )


@pytest.mark.parametrize("kind", [CompiledRNN, NumPyRNN])
def test_a_falling_temperature_stops_at_the_end_of_the_range(tiny: Checkpoint, kind: type[Decoder]) -> None:
    prompts, config = ["f", "fox jumps over " * 5, "", "dog"], SampleConfig(length=20, temperature=(1.0, 0.0), seed=1)

    def texts(some_prompts: Sequence[str], first: int = 0) -> list[str]:
        requests = RequestList(Request(first + number, prompt) for number, prompt in enumerate(some_prompts))
        network = kind(tiny.model_config, tiny.tensors)  # type: ignore[call-arg]
        return [sample.text for sample in generate_batch(network, tiny.vocabulary, config, requests)]

    together = texts(prompts)  # samples with short prompts end first
    assert together[0] == texts(prompts[:1])[0]
    assert [len(text) for text in together] == [20] * 4
