"""charrnn for people who write Python: load, sample, train and score.

    import charrnn

    model = charrnn.train(open("corpus.txt").read(), minutes=1)
    text = model.sample(prompt="ROMEO:", temperature=0.8, length=200)
    model.save("romeo.safetensors")

The same pieces as behind the command line, without files and terminals. The keywords that set something are the
fields of `SampleConfig`, and in `train` those of `ReadConfig`, `ModelConfig` and `TrainConfig`.
"""

import codecs
import math
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.config import SampleConfig, SamplePrecision
from charrnn.config.keywords import SampleKeywords, TrainKeywords, expand_keywords
from charrnn.config.overrides import Overrides
from charrnn.errors import SettingError
from charrnn.generation import prompt_state as states
from charrnn.generation.generate import Request, RequestList, Sample, generate, generate_batch
from charrnn.generation.prompt_state import PromptState
from charrnn.rnn.backend import DecoderSelector, choose_scorer
from charrnn.units import nats_to_bits

if TYPE_CHECKING:
    from charrnn.evaluation.line_scores import LineScore
    from charrnn.training.events import Event

    Listener = Callable[[Event], None]

_sampling = expand_keywords(SampleKeywords, SampleConfig)
_training = expand_keywords(TrainKeywords, Overrides)


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text."""

    characters: int  # predicted; a text of n characters has n-1 predictions
    nats: float  # mean per character

    @property
    def bits_per_char(self) -> float:
        """The same in bits."""
        return nats_to_bits(self.nats)


class Model:
    """A trained model.

    Args:
        checkpoint: what a model file holds.

    Attributes:
        checkpoint: the shape, the vocabulary, the weights and the training record.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._decoder_selector = DecoderSelector(checkpoint)

    @_sampling
    def sample(
        self,
        prompt: str = "",
        *,
        length: int | None = None,
        prompt_state: PromptState | None = None,
        **settings: Unpack[SampleKeywords],
    ) -> str:
        """New text that continues the prompt, without the prompt; `stream` says more."""
        _refuse_endless(length)
        return "".join(self.stream(prompt, length=length, prompt_state=prompt_state, **settings))

    @_sampling
    def stream(
        self,
        prompt: str = "",
        *,
        length: int | None = None,
        prompt_state: PromptState | None = None,
        **settings: Unpack[SampleKeywords],
    ) -> Iterator[str]:
        """Yields new text as it is made, a character at a time; needs no torch.

        Args:
            prompt: what to continue.
            length: new characters, 0 without end; None is 1000, or twice the longest document.
            prompt_state: what was read before the prompt; see `read_prompt`.
            settings: fields of `SampleConfig`, such as temperature, top_p, seed and stop.

        Raises:
            SettingError: a setting out of range.
            UnknownCharacterError: the prompt holds characters that the model never saw.
        """
        config = self._config(length, settings)
        self._check_own(prompt_state)
        vocabulary = self.checkpoint.vocabulary
        if config.unknown == "skip":
            prompt, _ = vocabulary.split_unknown(prompt)
        network = self._decoder_selector.choose(config.precision, len(prompt) + (config.length or math.inf))
        symbols = (
            symbol for piece in generate(network, vocabulary, config, prompt, prompt_state) for symbol in piece.text
        )
        return symbols if vocabulary.unit == "char" else _characters(symbols)

    def read_prompt(
        self, text: str, *, prompt_state: PromptState | None = None, precision: SamplePrecision = "int8"
    ) -> PromptState:
        """Reads a text, once, for any number of samples that continue it: ``model.sample(prompt_state=...)``.

        Args:
            text: of any length; only characters that the model knows.
            prompt_state: what was read before.
            precision: of the weights; to continue with the one that is to be sampled with changes least.

        Raises:
            UnknownCharacterError: the text holds characters that the model never saw.
            SettingError: ``prompt_state`` is of another model.
        """
        network = self._decoder_selector.choose(SampleConfig(precision=precision).precision, len(text))
        self._check_own(prompt_state)
        before = prompt_state or replace(
            states.empty_prompt_state(network, self.checkpoint.vocabulary), model=self._digest
        )
        return states.read_prompt(network, before, self.checkpoint.vocabulary.encode(text))

    def save_state(self, prompt_state: PromptState, path: str | Path) -> None:
        """Writes what `read_prompt` gave to a file, for this model alone.

        Raises:
            FileError: it cannot be written.
        """
        self._check_own(prompt_state)
        states.check_can_save(Path(path))
        states.save(Path(path), self.checkpoint, prompt_state)

    def load_state(self, path: str | Path) -> PromptState:
        """Reads what `save_state` wrote.

        Raises:
            ModelFileError: it is missing, damaged, no state, or that of another model.
        """
        return states.load(Path(path), self.checkpoint, self._decoder_selector.choose("int8", 0))

    @_sampling
    def samples(
        self,
        prompts: Iterable[str] = ("",),
        count: int = 1,
        *,
        length: int | None = None,
        prompt_state: PromptState | None = None,
        **settings: Unpack[SampleKeywords],
    ) -> Iterator[Sample]:
        """Yields new text for each of many prompts, computed side by side, in the order of the prompts; no torch.

        Args:
            prompts: what to continue; they may be endless, and are taken a few hundred ahead.
            count: how many samples of each.
            length: as of `stream`.
            prompt_state: what was read before each prompt; see `read_prompt`.
            settings: fields of `SampleConfig`. The random numbers of a sample follow from the seed and its number.

        Returns:
            Samples, with their text, what ended them and how surprising the model finds them; with ``logprobs=K``
            also their ``choices``: each character's surprise and the K likeliest ones. One whose prompt holds
            characters that the model never saw has no text, but an ``error``.

        Raises:
            SettingError: a setting out of range.
        """
        _refuse_endless(length)
        if isinstance(prompts, str):
            raise SettingError("prompts", "cannot be a string", "give a list of them")
        if count < 1:
            raise SettingError("count", f"cannot be {count}", "give a whole number, 1 or more")
        config = self._config(length, settings)
        self._check_own(prompt_state)
        vocabulary = self.checkpoint.vocabulary
        characters = len(prompts) * count * config.length if isinstance(prompts, Sized) else math.inf
        if config.unknown == "skip":
            prompts = (vocabulary.split_unknown(prompt)[0] for prompt in prompts)
        repeated = (prompt for prompt in prompts for _ in range(count))
        requests = RequestList(Request(number, prompt) for number, prompt in enumerate(repeated))
        network = self._decoder_selector.choose(config.precision, characters)
        return generate_batch(network, vocabulary, config, requests, prompt_state)

    def score(self, text: str) -> Score:
        """How well the model predicts a text, the state carried from end to end.

        Raises:
            UnknownCharacterError: the text holds characters that the model never saw.
            CorpusError: fewer than two characters, so there is nothing to predict.
        """
        from charrnn.data.corpus_reader import corpus_from_text
        from charrnn.evaluation.metrics import mean_nats
        from charrnn.evaluation.surprisal import num_segments

        ids = (
            corpus_from_text(text, self.checkpoint.read_config, "the text")
            .with_vocabulary(self.checkpoint.vocabulary)
            .tokens()
        )
        return Score(
            len(ids) - 1, mean_nats(choose_scorer(self.checkpoint, len(ids), streams=num_segments(len(ids))), ids)
        )

    def scores(self, lines: Iterable[str], *, carry: bool = False) -> "Iterator[LineScore]":
        """How surprising each of some lines is: their `nats`, `size` in characters and so on; see `LineScorer`.

        Args:
            lines: with or without the line feed that counts as their end; they may be endless.
            carry: have the state run on from line to line.

        Raises:
            SettingError: ``carry`` where each line is a document to the model.
        """
        from charrnn.data.lines import LineFragment
        from charrnn.evaluation.line_scores import LineScorer

        scorer = LineScorer(self.checkpoint, choose_scorer(self.checkpoint), carry=carry)
        pieces = (LineFragment(line.removesuffix("\n").encode("utf-8", "surrogateescape")) for line in lines)
        while batch := list(islice(pieces, 1024)):
            yield from scorer.score(batch)

    @cached_property
    def _digest(self) -> str:
        return checkpoint.digest(self.checkpoint)

    def _config(self, length: int | None, settings: SampleKeywords) -> SampleConfig:
        return SampleConfig(length=self.checkpoint.default_length if length is None else length, **settings)

    def _check_own(self, prompt_state: PromptState | None) -> None:
        """Makes sure that it was this model that read the text: to others its state means nothing."""
        if prompt_state is not None and prompt_state.model != self._digest:
            raise SettingError("prompt_state", "is of another model", "read the prompt with this one")

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Writes the model to a file, whole or not at all.

        Raises:
            ModelFileError: there is one already and ``replace`` is False.
            FileError: it cannot be written.
        """
        checkpoint.check_can_save(Path(path), replace=replace)
        checkpoint.save(Path(path), self.checkpoint)


def _characters(symbols: Iterable[str]) -> Iterator[str]:
    """Bytes as the characters of UTF-8, each when it is whole; what is none stays escaped, as Python does it."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for symbol in symbols:
        yield from decoder.decode(symbol.encode("ascii", "surrogateescape"))
    yield from decoder.decode(b"", True)


def _refuse_endless(length: int | None) -> None:
    if length == 0:
        raise SettingError("length", "cannot be 0", "give a whole number, 1 or more, or use stream")


def load(name: str | Path) -> Model:
    """Opens a model: a path, or a name in ``./checkpoints``; needs no torch.

    Raises:
        ModelFileError: there is none, or it is damaged or foreign.
    """
    return Model(checkpoint.load(checkpoint.find(str(name))))


@_sampling
def sample(
    model: Model,
    prompt: str = "",
    *,
    length: int | None = None,
    prompt_state: PromptState | None = None,
    **settings: Unpack[SampleKeywords],
) -> str:
    """New text in the style of a model; see `Model.sample`."""
    return model.sample(prompt, length=length, prompt_state=prompt_state, **settings)


def score(model: Model, text: str) -> Score:
    """How well a model predicts a text; see `Model.score`."""
    return model.score(text)


@_training
def train(
    text: str, *, name: str = "text", listen: "Listener | None" = None, **settings: Unpack[TrainKeywords]
) -> Model:
    """Trains a model on a text and gives back the best one; nothing is written.

    Args:
        text: the corpus itself, two characters or more.
        name: what the record calls it.
        listen: is told of every step and evaluation; see the events of ``training/events.py``.
        settings: fields of `ReadConfig`, `ModelConfig` and `TrainConfig`; those of the latter two that are left out,
            or None, are planned from the text and the machine. Bytes are those of the text's UTF-8; line ends are
            kept unless ``newlines`` is "unix".

    Raises:
        SettingError: a setting out of range.
        CorpusError: a text with nothing to predict.
        TrainingError: the loss became infinite or no number.
    """
    overrides = Overrides(**settings)  # checked before torch is loaded

    from charrnn.data.corpus_reader import KEEP_NEWLINES, corpus_from_text
    from charrnn.training.autotune import plan_for_this_machine
    from charrnn.training.trainer import Trainer

    corpus = corpus_from_text(text, overrides.apply(KEEP_NEWLINES), name)
    trainer = Trainer(corpus, plan_for_this_machine(corpus, overrides))
    for event in trainer.run():
        if listen is not None:
            listen(event)
    return Model(trainer.checkpoint)
