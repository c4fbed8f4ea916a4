"""Streams of characters that advance together: read the prompt, choose a character, read it, and so on.

Knows nothing about who asks for samples or where they go.
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
    """A character that was written, and what the model itself thought of it: no setting bears on that."""

    character: str
    nats: float  # its surprise: the negative logarithm of its probability
    best: tuple[tuple[str, float], ...] = ()  # the likeliest characters, likeliest first, and theirs


class SampleStream:
    """One sample on its way.

    Attributes:
        stopping: tells whether it is over.
        new_text: the text that the last advance added.
        choices: its characters one by one, where that is asked for.
        nats: the surprise of all that was passed, where it is measured.
    """

    def __init__(self, number: int, unread: NDArray[np.integer], seed: int, stopping: StopDetector) -> None:
        self.number = number
        self.stopping = stopping
        self.unread = unread  # ids
        self.random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        self.position = 0  # of the next new character
        self.new_text = ""
        self.choices: list[SampledCharacter] = []
        self.nats = 0.0
        self._nats: list[float] = []  # of those that are held back, and what was thought of them
        self._choices: list[SampledCharacter] = []

    def append(self, text: str, nats: list[float], choices: list[SampledCharacter]) -> None:
        """Takes new characters, with their surprise where it is measured and more of them where that is asked for."""
        self.new_text = self.stopping.feed(text)
        size = len(self.new_text)
        self._nats += nats
        self._choices += choices
        self.nats += sum(self._nats[:size])
        self.choices = self._choices[:size]
        del self._nats[:size], self._choices[:size]


class Batch:
    """Streams that advance together: row b of every array is stream b's.

    Args:
        network: the model's.
        vocabulary: its characters.
        config: how each sample is written.
        prompt_state: what all of them go on from.
        keep_line_end: the last of ``config.lines`` keeps its line end.
        measure: whether to tell how surprising the characters are, asked for by ``config.logprobs`` or not.

    Raises:
        SettingError: no character is allowed, or bytes are to be UTF-8 where there are none.
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
        self._tell = config.logprobs is not None
        self._measure = measure or self._tell
        self._best = min(config.logprobs or 0, len(vocabulary))  # how many alternatives are told
        for field in ("allow", "forbid"):
            if vocabulary.unit == "byte" and not getattr(config, field).isascii():
                raise SettingError(field, "takes ASCII characters alone in a model of bytes", "leave others out")
        self._sampler = Sampler(config, vocabulary.symbols)
        if config.utf8 and vocabulary.unit != "byte":
            raise SettingError("utf8", "is for models of bytes, and characters are never broken", "leave it out")
        self._utf8 = UTF8Automaton(vocabulary) if config.utf8 else None
        self._begun = np.empty(
            0, dtype=np.intp
        )  # (B,), of the characters of several bytes, where they are to be whole
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if config.seed is None else config.seed
        self.streams: list[SampleStream] = []
        self._state = prompt_state.state.select(slice(0, 0))  # of the streams that have advanced
        self._next = np.empty(0, dtype=np.intp)  # ids (B,) to be read
        self._recent = np.empty((0, self._sampler.window), dtype=np.intp)  # ids that were read

    def add(self, number: int, prompt: str = "", name: str = "the prompt") -> SampleStream:
        """Begins a sample.

        Args:
            number: its place among those that are asked for, from 0.
            prompt: what it goes on with, behind what was read before.
            name: what an error calls the prompt.

        Raises:
            UnknownCharacterError: the prompt holds characters that the model never saw.
        """
        ids = self._vocabulary.encode(prompt, name)
        if not len(ids) and not len(self._prompt_state.recent):
            ids = self._vocabulary.encode(start_text(self._vocabulary))
        unread = np.concatenate([self._prompt_state.recent[-1:], ids])
        stopping = StopDetector(self._config, keep_line_end=self._keep_line_end, unit=self._vocabulary.unit)
        self.streams.append(SampleStream(number, unread, self.seed, stopping))
        return self.streams[-1]

    def advance(self, most: int) -> list[SampleStream]:
        """Takes at most so many steps and gives back the streams that did; those that ended are gone by then."""
        self._admit(self.streams[len(self._next) :])
        steps = min(most, max(self._wanted(stream, most) for stream in self.streams))
        shape = steps, len(self.streams)
        given = np.full(shape, NO_ID, dtype=np.intp)  # what is read next, where it is not chosen
        uniforms, positions = np.zeros(shape), np.zeros(shape, dtype=np.intp)
        for b, stream in enumerate(self.streams):
            known = min(steps, len(stream.unread))
            given[:known, b], stream.unread = stream.unread[:known], stream.unread[known:]
            if known < steps:
                uniforms[known:, b] = stream.random.random(steps - known)
                if self._sampler.has_temperature_range:
                    positions[known:, b] = range(stream.position, stream.position + steps - known)
        left = np.array([np.inf if (its := stream.stopping.left) is None else its for stream in self.streams])
        chosen, nats, best = self._run(given, uniforms, self._sampler.temperatures(positions), left)
        advanced = self.streams
        for b, stream in enumerate(advanced):
            new = given[:, b] == NO_ID
            text = self._vocabulary.symbols_at(chosen[new, b].tolist())
            stream.position += len(text)
            surprises = nats[new, b].tolist() if self._measure else []
            choices: list[SampledCharacter] = []
            if self._tell:
                # where no alternatives are asked for there are no rows
                likeliest = [row[b] for row, is_new in zip(best, new, strict=False) if is_new] or [()] * len(text)
                choices = list(map(SampledCharacter, text, surprises, likeliest))
            stream.append(text, surprises, choices)
        self._drop_ended()
        return advanced

    def _admit(self, new: list[SampleStream]) -> None:
        """Adds the rows of streams that have not advanced yet."""
        if not new:
            return
        added = self._prompt_state.state.select(np.zeros(len(new), dtype=np.intp))
        self._state = State.join([self._state, added])
        self._next = np.append(self._next, [stream.unread[0] for stream in new]).astype(np.intp)
        if self._utf8 is not None:
            state = np.zeros(1, dtype=np.intp)
            for index in self._prompt_state.recent[-4:-1]:
                state = self._utf8.after(state, np.array([index]))
            firsts = np.array([stream.unread[0] for stream in new], dtype=np.intp)
            self._begun = np.append(self._begun, self._utf8.after(np.repeat(state, len(new)), firsts))
        for stream in new:
            stream.unread = stream.unread[1:]
        window = self._recent.shape[1]
        recent = np.full((len(new), window), NO_ID, dtype=np.intp)
        before = self._prompt_state.recent[:-1][-window:] if window else self._prompt_state.recent[:0]
        recent[:, window - len(before) :] = before
        self._recent = np.concatenate([self._recent, recent])

    def _wanted(self, stream: SampleStream, most: int) -> int:
        left = stream.stopping.left
        return most if left is None else len(stream.unread) + left

    def _run(
        self, given: Ids, uniforms: Numbers, temperatures: Numbers, left: Numbers
    ) -> tuple[Ids, Numbers, list[list[tuple[tuple[str, float], ...]]]]:
        """The characters (steps, B) that were read next, how surprising they were, and the likeliest ones."""
        if (
            isinstance(self._network, FusedDecoder)
            and self._sampler.temperature_only
            and not self._best
            and not self._utf8
        ):
            choices = DecodeInputs(given, uniforms, temperatures, self._sampler.forbidden_ids)
            chosen, nats, self._state = self._network.run(self._next, self._state, choices, measure=self._measure)
            self._next = chosen[-1]
            return chosen, nats, []
        chosen, nats, best = np.empty_like(given), np.zeros(given.shape), []
        new = given == NO_ID
        some_new, all_new = new.any(axis=1).tolist(), new.all(axis=1).tolist()
        for t, known in enumerate(given):
            if self._recent.shape[1]:
                self._recent = np.concatenate([self._recent[:, 1:], self._next[:, None]], axis=1)
            logits, self._state = self._network.step(self._next, self._state)
            following = known
            if some_new[t]:
                forbidden = None if self._utf8 is None else self._utf8.forbidden(self._begun, left)
                drawn = self._sampler.sample(logits, uniforms[t], temperatures[t], self._recent, forbidden)
                following = drawn if all_new[t] else np.where(new[t], drawn, known)
            if self._utf8 is not None:
                self._begun, left = self._utf8.after(self._begun, following), left - new[t]
            if self._measure:
                surprises = -log_softmax(logits)
                nats[t] = np.take_along_axis(surprises, following[:, None], axis=1)[:, 0]
                if self._best:
                    best.append(self._likeliest(surprises))
            chosen[t] = self._next = following
        return chosen, nats, best

    def _likeliest(self, surprises: Numbers) -> list[tuple[tuple[str, float], ...]]:
        """The likeliest characters of each stream; of equals the first of the vocabulary comes first."""
        order = surprises.argsort(axis=1, kind="stable")[:, : self._best]
        values = np.take_along_axis(surprises, order, axis=1)
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
        self._state, self._next, self._recent = self._state.select(rows), self._next[rows], self._recent[rows]
        if self._utf8 is not None:
            self._begun = self._begun[rows]


def start_text(vocabulary: Vocabulary) -> str:
    """What the model reads when there is nothing to read: the end of a line, or its first character without lines."""
    return "\n" if "\n" in vocabulary else vocabulary.symbols.replace(UNKNOWN, "")[0]
