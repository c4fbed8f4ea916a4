"""A batch of samples that are generated in parallel.

Each step of a stream reads one id, either the next one of the prompt or the one sampled in the step before.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.config import SampleConfig
from charrnn.data.vocabulary import UNKNOWN, Vocabulary
from charrnn.errors import SettingError
from charrnn.generation.prompt_state import PromptState
from charrnn.generation.sampler import NO_ID, Numbers, Sampler, log_softmax
from charrnn.generation.stopping import StopDetector
from charrnn.generation.utf8 import UTF8Automaton
from charrnn.rnn.backend import Decoder, FusedDecoder
from charrnn.rnn.decode_inputs import DecodeInputs
from charrnn.rnn.numpy_rnn import Ids
from charrnn.rnn.state import State


class SampledCharacter(NamedTuple):
    """A generated character with its probability according to the model, before any sampling setting."""

    character: str  # symbol of the vocabulary
    nats: float  # surprisal: -log of the probability, in nats
    best: tuple[tuple[str, float], ...] = ()  # K most probable characters with surprisals, from ``logprobs=K``


class SampleStream:
    """One unfinished sample.

    Args:
        number: Number of the sample, from 0.
        unread: Ids that the network has yet to read.
        seed: Seed of the batch.
        stopping: Stop conditions.

    Attributes:
        stopping: Stop conditions, with the reason once the sample has ended.
        position: Position of the next new character.
        new_text: Text that the last `Batch.advance` added.
        choices: Characters of ``new_text`` one by one, if ``logprobs`` is set.
        nats: Surprisal of all text so far, if it is measured.
    """

    def __init__(self, number: int, unread: NDArray[np.integer], seed: int, stopping: StopDetector) -> None:
        self.number = number
        self.stopping = stopping
        self.unread = unread
        self.random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        self.position = 0
        self.new_text = ""
        self.choices: list[SampledCharacter] = []
        self.nats = 0.0
        self._held_nats: list[float] = []  # surprisals of the characters that ``stopping`` holds back
        self._held_choices: list[SampledCharacter] = []

    def append(self, text: str, nats: list[float], choices: list[SampledCharacter]) -> None:
        """Add new characters.

        Args:
            text: New characters.
            nats: Surprisal of each, or empty if it is not measured.
            choices: Each with its alternatives, or empty if ``logprobs`` is not set.
        """
        self.new_text = self.stopping.feed(text)
        size = len(self.new_text)
        self._held_nats += nats
        self._held_choices += choices
        self.nats += sum(self._held_nats[:size])
        self.choices = self._held_choices[:size]
        del self._held_nats[:size], self._held_choices[:size]


class Batch:
    """Streams that advance together. Index b of every array belongs to stream b.

    Args:
        network: Network of the model.
        vocabulary: Vocabulary of the model.
        config: Generation settings.
        prompt_state: State from which all streams start.
        keep_line_end: Whether the last of ``config.lines`` lines keeps its line feed.
        measure: Whether to measure surprisal even if ``config.logprobs`` is not set.

    Attributes:
        seed: Seed of the batch; a random one if none is set.
        streams: Streams that have not ended.

    Raises:
        SettingError: If no character is allowed, or a setting does not fit the unit of the model.
    """

    def __init__(
        self,
        network: Decoder,
        vocabulary: Vocabulary,
        config: SampleConfig,
        prompt_state: PromptState,
        *,
        keep_line_end: bool,
        measure: bool = False,
    ) -> None:
        self._network, self._vocabulary, self._config = network, vocabulary, config
        self._prompt_state, self._keep_line_end = prompt_state, keep_line_end
        self._collects_choices = config.logprobs is not None
        self._measure = measure or self._collects_choices
        self._num_alternatives = min(config.logprobs or 0, len(vocabulary))
        for field in ("allow", "forbid"):
            if vocabulary.unit == "byte" and not getattr(config, field).isascii():
                reason = "can contain only ASCII characters, because the model predicts bytes"
                raise SettingError(field, reason, "remove the others")
        self._sampler = Sampler(config, vocabulary.symbols)
        if config.utf8 and vocabulary.unit != "byte":
            raise SettingError("utf8", "is for models that predict bytes, not characters", "leave it out")
        self._utf8 = UTF8Automaton(vocabulary) if config.utf8 else None
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if config.seed is None else config.seed
        self.streams: list[SampleStream] = []
        # The arrays have no rows yet for streams that were added since the last advance.
        self._state = prompt_state.state.select(slice(0, 0))
        self._inputs = np.empty(0, dtype=np.intp)  # next ids to read (B,)
        self._recent = np.empty((0, self._sampler.window), dtype=np.intp)  # last ids read (B, window)
        self._utf8_states = np.empty(0, dtype=np.intp)  # states of the automaton (B,), if ``utf8`` is set

    def add(self, number: int, prompt: str = "", name: str = "the prompt") -> SampleStream:
        """Add a sample.

        Args:
            number: Number of the sample, from 0.
            prompt: Text to continue, after the text of the prompt state.
            name: Name of the prompt in error messages.

        Raises:
            UnknownCharacterError: If the prompt contains a character that is not in the vocabulary.
        """
        ids = self._vocabulary.encode(prompt, name)
        if not len(ids) and not len(self._prompt_state.recent):
            ids = self._vocabulary.encode(start_text(self._vocabulary))
        unread = np.concatenate([self._prompt_state.recent[-1:], ids])
        stopping = StopDetector(self._config, keep_line_end=self._keep_line_end, unit=self._vocabulary.unit)
        self.streams.append(SampleStream(number, unread, self.seed, stopping))
        return self.streams[-1]

    def advance(self, max_steps: int) -> list[SampleStream]:
        """Take up to ``max_steps`` steps with every stream, and drop the streams that ended.

        Returns:
            All streams that took part, including those that ended.
        """
        self._add_rows(self.streams[len(self._inputs) :])
        steps = min(max_steps, max(self._steps_left(stream, max_steps) for stream in self.streams))
        shape = steps, len(self.streams)
        forced = np.full(shape, NO_ID, dtype=np.intp)  # ids of the prompts; NO_ID where an id is sampled
        uniforms, positions = np.zeros(shape), np.zeros(shape, dtype=np.intp)
        for b, stream in enumerate(self.streams):
            size = min(steps, len(stream.unread))
            forced[:size, b], stream.unread = stream.unread[:size], stream.unread[size:]
            if size < steps:
                uniforms[size:, b] = stream.random.random(steps - size)
                if self._sampler.has_temperature_range:
                    positions[size:, b] = range(stream.position, stream.position + steps - size)
        limits = [stream.stopping.left for stream in self.streams]
        left = np.array([np.inf if limit is None else limit for limit in limits])
        ids, nats, best = self._run(forced, uniforms, self._sampler.temperatures(positions), left)
        advanced = self.streams
        for b, stream in enumerate(advanced):
            sampled = forced[:, b] == NO_ID
            text = self._vocabulary.symbols_at(ids[sampled, b].tolist())
            stream.position += len(text)
            text_nats = nats[sampled, b].tolist() if self._measure else []
            choices: list[SampledCharacter] = []
            if self._collects_choices:
                # ``best`` is empty if no alternatives are needed
                alternatives = [row[b] for row, is_sampled in zip(best, sampled, strict=False) if is_sampled]
                choices = list(map(SampledCharacter, text, text_nats, alternatives or [()] * len(text)))
            stream.append(text, text_nats, choices)
        self._drop_ended()
        return advanced

    def _add_rows(self, new: list[SampleStream]) -> None:
        """Add rows for streams that have not advanced yet."""
        if not new:
            return
        added = self._prompt_state.state.select(np.zeros(len(new), dtype=np.intp))
        self._state = State.join([self._state, added])
        first_ids = np.array([stream.unread[0] for stream in new], dtype=np.intp)
        self._inputs = np.append(self._inputs, first_ids)
        if self._utf8 is not None:
            utf8_state = np.zeros(1, dtype=np.intp)
            for index in self._prompt_state.recent[-4:-1]:  # a character has at most four bytes
                utf8_state = self._utf8.after(utf8_state, np.array([index]))
            added_states = self._utf8.after(np.repeat(utf8_state, len(new)), first_ids)
            self._utf8_states = np.append(self._utf8_states, added_states)
        for stream in new:
            stream.unread = stream.unread[1:]
        window = self._recent.shape[1]
        recent = np.full((len(new), window), NO_ID, dtype=np.intp)
        before = self._prompt_state.recent[:-1][-window:] if window else self._prompt_state.recent[:0]
        recent[:, window - len(before) :] = before
        self._recent = np.concatenate([self._recent, recent])

    def _steps_left(self, stream: SampleStream, max_steps: int) -> int:
        left = stream.stopping.left
        return max_steps if left is None else len(stream.unread) + left

    def _run(
        self, forced: Ids, uniforms: Numbers, temperatures: Numbers, left: Numbers
    ) -> tuple[Ids, Numbers, list[list[tuple[tuple[str, float], ...]]]]:
        """Take T steps with all streams.

        Args:
            forced: Ids (T, B) of the prompts, `NO_ID` where an id is sampled.
            uniforms: Random numbers (T, B) in [0, 1).
            temperatures: Temperatures (T, B).
            left: Number of characters (B,) that may still be generated.

        Returns:
            The forced and sampled ids (T, B), their surprisals (T, B), and T lists of the alternatives of B streams.
        """
        if (
            isinstance(self._network, FusedDecoder)
            and self._sampler.temperature_only
            and not self._num_alternatives
            and not self._utf8
        ):
            inputs = DecodeInputs(forced, uniforms, temperatures, self._sampler.forbidden_ids)
            ids, nats, self._state = self._network.run(self._inputs, self._state, inputs, measure=self._measure)
            self._inputs = ids[-1]
            return ids, nats, []
        ids, nats, best = np.empty_like(forced), np.zeros(forced.shape), []
        is_sampled = forced == NO_ID
        some_sampled, all_sampled = is_sampled.any(axis=1).tolist(), is_sampled.all(axis=1).tolist()
        for t, next_ids in enumerate(forced):
            if self._recent.shape[1]:
                self._recent = np.concatenate([self._recent[:, 1:], self._inputs[:, None]], axis=1)
            logits, self._state = self._network.step(self._inputs, self._state)
            if some_sampled[t]:
                forbidden = None if self._utf8 is None else self._utf8.forbidden(self._utf8_states, left)
                sampled = self._sampler.sample(logits, uniforms[t], temperatures[t], self._recent, forbidden)
                next_ids = sampled if all_sampled[t] else np.where(is_sampled[t], sampled, next_ids)
            if self._utf8 is not None:
                self._utf8_states, left = self._utf8.after(self._utf8_states, next_ids), left - is_sampled[t]
            if self._measure:
                surprisals = -log_softmax(logits)
                nats[t] = np.take_along_axis(surprisals, next_ids[:, None], axis=1)[:, 0]
                if self._num_alternatives:
                    best.append(self._most_probable(surprisals))
            ids[t] = self._inputs = next_ids
        return ids, nats, best

    def _most_probable(self, surprisals: Numbers) -> list[tuple[tuple[str, float], ...]]:
        """Return the most probable characters of each stream, ties in the order of the vocabulary."""
        order = surprisals.argsort(axis=1, kind="stable")[:, : self._num_alternatives]
        values = np.take_along_axis(surprisals, order, axis=1)
        symbols = self._vocabulary.symbols
        return [
            tuple((symbols[index], nats) for index, nats in zip(*row, strict=True))
            for row in zip(order.tolist(), values.tolist(), strict=True)
        ]

    def _drop_ended(self) -> None:
        rows = np.array([b for b, stream in enumerate(self.streams) if stream.stopping.reason is None], dtype=np.intp)
        if len(rows) == len(self.streams):
            return
        self.streams = [self.streams[b] for b in rows]
        self._state, self._inputs, self._recent = self._state.select(rows), self._inputs[rows], self._recent[rows]
        if self._utf8 is not None:
            self._utf8_states = self._utf8_states[rows]


def start_text(vocabulary: Vocabulary) -> str:
    """Return the text that the model reads before an empty prompt: a line feed, or else the first known character."""
    return "\n" if "\n" in vocabulary else vocabulary.symbols.replace(UNKNOWN, "")[0]
