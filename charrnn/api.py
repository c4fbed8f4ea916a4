"""The Python API: load, generate, train and score.

    import charrnn

    model = charrnn.train(open("corpus.txt").read(), minutes=1)
    text = model.sample(prompt="ROMEO:", temperature=0.8, length=200)
    model.save("romeo.safetensors")

The functions use the same code as the command line. They print nothing, and write a file only where a path is given.
Generation settings are the fields of `SampleConfig`. Training settings are the fields of `ReadConfig`, `ModelConfig`
and `TrainConfig`.
"""

import codecs
import math
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.config import SampleConfig, SamplePrecision
from charrnn.config.checks import Integer, check_text
from charrnn.config.keywords import SampleKeywords, TrainKeywords, expand_keywords
from charrnn.config.overrides import Overrides
from charrnn.errors import SettingError
from charrnn.generation import prompt_state as states
from charrnn.generation.generate import BATCH_WIDTH, Request, RequestList, Sample, generate, generate_batch
from charrnn.generation.prompt_state import PromptState
from charrnn.rnn.backend import DecoderSelector, choose_scorer
from charrnn.units import nats_to_bits

if TYPE_CHECKING:
    from charrnn.evaluation.line_scores import LineScore
    from charrnn.training.events import Event

    Listener = Callable[[Event], None]

_LINES_PER_BATCH = 1024  # lines that `Model.scores` scores in parallel
_BYTES_PER_BATCH = 1 << 20  # size of the lines in bytes above which a batch has fewer lines

_with_sample_keywords = expand_keywords(SampleKeywords, SampleConfig)
_with_train_keywords = expand_keywords(TrainKeywords, Overrides)


@dataclass(frozen=True)
class Score:
    """Mean surprisal of a text under a model. Lower is better."""

    characters: int  # number of predicted characters; a text of n characters has n-1 predictions
    nats: float  # mean surprisal in nats per character

    @property
    def bits_per_char(self) -> float:
        """Mean surprisal in bits per character."""
        return nats_to_bits(self.nats)


class Model:
    """A trained model, as returned by `train` and `load`.

    Args:
        checkpoint: Content of a model file.

    Attributes:
        checkpoint: Configuration, vocabulary, weights and training record.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._decoder_selector = DecoderSelector(checkpoint)

    def __reduce__(self) -> tuple[type["Model"], tuple[Checkpoint]]:
        """Copy and pickle the model without its decoders, which contain compiled code."""
        return type(self), (self.checkpoint,)

    @_with_sample_keywords
    def sample(
        self,
        prompt: str = "",
        *,
        length: int | None = None,
        prompt_state: PromptState | None = None,
        **settings: Unpack[SampleKeywords],
    ) -> str:
        """Generate text that continues a prompt. The result does not include the prompt.

        Args:
            prompt: Text to continue. An empty prompt means the start of a line, or of a document if the model was
                trained on documents.
            length: Maximum number of new characters, or of bytes if the model predicts bytes; at least 1. None means
                1,000. If the model was trained on documents, it means twice the longest document if that is more.
            prompt_state: State after the text before the prompt, from `read_prompt`.
            **settings: Fields of `SampleConfig`. ``temperature`` sets the randomness: 0 always chooses the most
                probable character, 1 follows the model's probabilities. The same ``seed`` gives the same text.
                ``stop`` is one or more strings before which the text ends.

        Returns:
            The new text. It ends after ``length`` characters, at a stop string, after ``lines`` lines, or where the
            model ends the document.

        Raises:
            SettingError: If a setting is out of range, or the prompt state belongs to another model.
            UnknownCharacterError: If the prompt contains a character that is not in the vocabulary. With
                ``unknown="skip"`` such characters are skipped instead.
        """
        _check_not_endless(length)
        return "".join(self.stream(prompt, length=length, prompt_state=prompt_state, **settings))

    @_with_sample_keywords
    def stream(
        self,
        prompt: str = "",
        *,
        length: int | None = None,
        prompt_state: PromptState | None = None,
        **settings: Unpack[SampleKeywords],
    ) -> Iterator[str]:
        """Generate text that continues a prompt, and yield it character by character.

        Args:
            prompt: Text to continue.
            length: Maximum number of new characters as in `sample`, or 0 for no limit.
            prompt_state: State after the text before the prompt, from `read_prompt`.
            **settings: Fields of `SampleConfig`, such as ``temperature``, ``top_p``, ``seed`` and ``stop``.

        Yields:
            Single characters. If the model predicts bytes, they are decoded as UTF-8, and each invalid byte becomes a
            surrogate escape. Characters that may begin a stop string are held back until the next ones decide.

        Raises:
            SettingError: If a setting is out of range, or the prompt state belongs to another model. It is raised by
                the call, before the first character is requested.
            UnknownCharacterError: If the prompt contains a character that is not in the vocabulary. With
                ``unknown="skip"`` such characters are skipped instead.
        """
        config = self._sample_config(length, settings)
        self._check_prompt_state(prompt_state)
        vocabulary = self.checkpoint.vocabulary
        if config.unknown == "skip":
            prompt, _ = vocabulary.split_unknown(prompt)
        network = self._decoder_selector.choose(config.precision, len(prompt) + (config.length or math.inf))
        symbols = (
            symbol for chunk in generate(network, vocabulary, config, prompt, prompt_state) for symbol in chunk.text
        )
        return symbols if vocabulary.unit == "char" else _decode_utf8(symbols)

    def read_prompt(
        self, text: str, *, prompt_state: PromptState | None = None, precision: SamplePrecision = "int8"
    ) -> PromptState:
        """Read a text and return the state of the model after it.

        Pass the state as ``prompt_state`` to generate any number of continuations without reading the text again.

        Args:
            text: Text of any length. All its characters must be in the vocabulary.
            prompt_state: State after the text before this one, from an earlier call.
            precision: Precision of the weights. If it is also used to generate, the samples are the same as if the
                text were part of the prompt, up to rounding.

        Returns:
            The state after the text. It is valid for this model only.

        Raises:
            SettingError: If the prompt state belongs to another model, or the precision does not exist.
            UnknownCharacterError: If the text contains a character that is not in the vocabulary.
        """
        network = self._decoder_selector.choose(SampleConfig(precision=precision).precision, len(text))
        self._check_prompt_state(prompt_state)
        initial = prompt_state or replace(
            states.empty_prompt_state(network, self.checkpoint.vocabulary), model=self._digest
        )
        return states.read_prompt(network, initial, self.checkpoint.vocabulary.encode(text))

    def save_state(self, prompt_state: PromptState, path: str | Path) -> None:
        """Save a prompt state to a file, atomically. An existing prompt state at the path is replaced.

        Args:
            prompt_state: State from `read_prompt` of this model.
            path: File to write.

        Raises:
            SettingError: If the prompt state belongs to another model.
            ModelFileError: If the path is an existing file that is not a prompt state.
            FileError: If the file cannot be written.
        """
        self._check_prompt_state(prompt_state)
        states.check_can_save(Path(path))
        states.save(Path(path), self.checkpoint, prompt_state)

    def load_state(self, path: str | Path) -> PromptState:
        """Load a prompt state that `save_state` or ``charrnn sample --save-state`` wrote.

        Args:
            path: File to read.

        Raises:
            ModelFileError: If the file is missing, damaged, not a prompt state, or the state of another model.
        """
        return states.load(Path(path), self.checkpoint, self._decoder_selector.choose("int8", 0))

    @_with_sample_keywords
    def samples(
        self,
        prompts: Iterable[str] = ("",),
        count: int = 1,
        *,
        length: int | None = None,
        prompt_state: PromptState | None = None,
        **settings: Unpack[SampleKeywords],
    ) -> Iterator[Sample]:
        """Generate samples for many prompts in parallel, and yield them in the order of the prompts.

        The random numbers of a sample depend only on the seed and on the number of the sample. The other prompts
        do not change its text.

        Args:
            prompts: Texts to continue. An infinite iterable works: prompts are read as they are needed, about a
                thousand ahead, or fewer if prompts or samples are long.
            count: Number of samples for each prompt.
            length: Maximum number of new characters of each sample, as in `sample`.
            prompt_state: State after the text before each prompt, from `read_prompt`.
            **settings: Fields of `SampleConfig`, such as ``temperature``, ``top_p``, ``seed`` and ``stop``.

        Yields:
            Samples, each with its text, the reason why it ended, and its surprisal in nats. With ``logprobs=K``, a
            sample also has ``choices``: each character with its surprisal and the K most probable alternatives. If a
            prompt contains a character that is not in the vocabulary, its samples have no text, but an ``error``.
            With ``lines=N``, the text does not include the last line ending.

        Raises:
            SettingError: If a setting is out of range, ``prompts`` is a string, or the prompt state belongs to
                another model. It is raised by the call, before the first sample is requested. Only an ``allow``,
                ``forbid`` or ``utf8`` that does not fit the vocabulary is reported with the first sample.
        """
        _check_not_endless(length)
        if isinstance(prompts, str):
            raise SettingError("prompts", "is a single string", "give a list of strings")
        Integer(1)("count", count)
        config = self._sample_config(length, settings)
        self._check_prompt_state(prompt_state)
        vocabulary = self.checkpoint.vocabulary
        characters = len(prompts) * count * config.length if isinstance(prompts, Sized) else math.inf
        if config.unknown == "skip":
            prompts = (vocabulary.split_unknown(prompt)[0] for prompt in prompts)
        repeated = (prompt for prompt in prompts for _ in range(count))
        requests = RequestList(Request(number, prompt) for number, prompt in enumerate(repeated))
        network = self._decoder_selector.choose(config.precision, characters, BATCH_WIDTH)
        return generate_batch(network, vocabulary, config, requests, prompt_state)

    def score(self, text: str) -> Score:
        """Measure how well the model predicts a text.

        The recurrent state is carried from the first character to the last. The first character is not predicted.

        Args:
            text: Text of two characters or more. All its characters must be in the vocabulary.

        Returns:
            The mean surprisal per character, as ``charrnn eval`` measures it.

        Raises:
            UnknownCharacterError: If the text contains a character that is not in the vocabulary.
            CorpusError: If the text has fewer than two characters.
        """
        from charrnn.data.corpus_reader import corpus_from_text
        from charrnn.evaluation.metrics import mean_nats
        from charrnn.evaluation.surprisal import num_segments

        ids = (
            corpus_from_text(text, self.checkpoint.read_config, "the text")
            .with_vocabulary(self.checkpoint.vocabulary)
            .tokens()
        )
        scorer = choose_scorer(self.checkpoint, len(ids), streams=num_segments(len(ids)))
        return Score(len(ids) - 1, mean_nats(scorer, ids))

    def scores(self, lines: Iterable[str], *, carry: bool = False) -> "Iterator[LineScore]":
        """Measure the surprisal of each line, and yield the scores in order.

        The end of a line counts as one of its characters. A character that is not in the vocabulary is not an
        error: it costs as much as a uniform guess among all Unicode code points. Half of a surrogate pair counts as
        three such characters.

        Args:
            lines: Lines of text, with or without a line feed at the end. An infinite iterable works: lines are read
                in batches.
            carry: Whether the recurrent state is carried from line to line. By default, each line starts from the
                state at the start of a line.

        Yields:
            Scores with the fields ``nats``, ``num_predictions``, ``unknown`` and others.

        Raises:
            SettingError: If ``lines`` is a string, or ``carry`` is set and the model was trained on documents that
                are lines or that a separator divides.
        """
        if isinstance(lines, str):
            raise SettingError("lines", "is a single string", "give a list of strings")
        from charrnn.data.lines import LineFragment
        from charrnn.evaluation.line_scores import LineScorer

        scorer = LineScorer(self.checkpoint, choose_scorer(self.checkpoint), carry=carry)
        fragments = (LineFragment(_encode_line(line.removesuffix("\n"))) for line in lines)
        batch, size = list[LineFragment](), 0
        for fragment in fragments:
            batch.append(fragment)
            size += len(fragment.data)
            if len(batch) == _LINES_PER_BATCH or size > _BYTES_PER_BATCH:
                yield from scorer.score(batch)
                batch, size = [], 0
        if batch:
            yield from scorer.score(batch)

    @cached_property
    def _digest(self) -> str:
        return checkpoint.digest(self.checkpoint)

    def _sample_config(self, length: int | None, settings: SampleKeywords) -> SampleConfig:
        return SampleConfig(length=self.checkpoint.default_length if length is None else length, **settings)

    def _check_prompt_state(self, prompt_state: PromptState | None) -> None:
        """Check that a prompt state, if there is one, belongs to this model."""
        if prompt_state is not None and prompt_state.model != self._digest:
            reason = "belongs to another model"
            raise SettingError("prompt_state", reason, "use a state from this model's read_prompt or load_state")

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Save the model to a file, atomically.

        Args:
            path: File to write. `load` and the command line find files in ``./checkpoints`` by name.
            replace: Whether an existing model may be replaced.

        Raises:
            ModelFileError: If the file exists and ``replace`` is False.
            FileError: If the file cannot be written.
        """
        checkpoint.check_can_save(Path(path), replace=replace)
        checkpoint.save(Path(path), self.checkpoint)


def _encode_line(line: str) -> bytes:
    """Return a line in UTF-8. Halves of surrogate pairs become bytes that are invalid in UTF-8."""
    try:
        return line.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return line.encode("utf-8", "surrogatepass")


def _decode_utf8(symbols: Iterable[str]) -> Iterator[str]:
    """Yield each character of a stream of bytes as soon as it is complete, and invalid bytes as surrogate escapes."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for symbol in symbols:
        yield from decoder.decode(symbol.encode("ascii", "surrogateescape"))
    yield from decoder.decode(b"", True)


def _check_not_endless(length: int | None) -> None:
    if length == 0:
        raise SettingError("length", "invalid value 0 (no limit)", "give an integer, 1 or more, or use stream")


def load(name: str | Path) -> Model:
    """Load a model from a file.

    Args:
        name: Path of a model file, or the name of a model in ``./checkpoints``.

    Raises:
        ModelFileError: If the file is missing, damaged, or not a model that this version can read.
    """
    return Model(checkpoint.load(checkpoint.find(str(name))))


@_with_sample_keywords
def sample(
    model: Model,
    prompt: str = "",
    *,
    length: int | None = None,
    prompt_state: PromptState | None = None,
    **settings: Unpack[SampleKeywords],
) -> str:
    """Generate text that continues a prompt. This is the same as `Model.sample`.

    Args:
        model: Model that generates.
        prompt: Text to continue. The result does not include it.
        length: Maximum number of new characters, at least 1; see `Model.sample` for the default.
        prompt_state: State after the text before the prompt, from `Model.read_prompt`.
        **settings: Fields of `SampleConfig`, such as ``temperature``, ``top_p``, ``seed`` and ``stop``.

    Raises:
        SettingError: If a setting is out of range, or the prompt state belongs to another model.
        UnknownCharacterError: If the prompt contains a character that is not in the vocabulary.
    """
    return model.sample(prompt, length=length, prompt_state=prompt_state, **settings)


def score(model: Model, text: str) -> Score:
    """Measure how well a model predicts a text. This is the same as `Model.score`.

    Args:
        model: Model that predicts.
        text: Text of two characters or more. All its characters must be in the vocabulary.

    Raises:
        UnknownCharacterError: If the text contains a character that is not in the vocabulary.
        CorpusError: If the text has fewer than two characters.
    """
    return model.score(text)


@_with_train_keywords
def train(
    text: str, *, name: str = "text", listen: "Listener | None" = None, **settings: Unpack[TrainKeywords]
) -> Model:
    """Train a model on a text and return it. No file is written.

    All settings are planned from the text and the measured speed of the machine. Training takes about five minutes,
    less for a small text; ``minutes``, ``epochs`` or ``steps`` set another budget. The model has the weights with
    the lowest validation loss, or the last weights if nothing is held out for validation.

    Args:
        text: Training text of two characters or more. Its last tenth, at most 500,000 characters, is held out for
            validation. ``validation`` sets another share.
        name: Name of the text in the training record.
        listen: Function to call with each event of the run: `Step`, `Evaluation`, `RolledBack` and `Finished`.
        **settings: Fields of `ReadConfig`, `ModelConfig` and `TrainConfig`, such as ``minutes``, ``hidden`` and
            ``seed``. Those that are None are planned, or keep their default. With ``unit="byte"``, the model is
            trained on the UTF-8 bytes of the text. Line endings are kept unless ``newlines="unix"``.

    Raises:
        SettingError: If a setting is out of range, two settings exclude each other, or a size needs more memory than
            is available.
        CorpusError: If the text has fewer than two characters, no document, or half of a surrogate pair.
        TrainingError: If the loss becomes infinite or NaN, even after the learning rate was halved several times.
    """
    overrides = Overrides(**settings)  # checks the settings before torch is imported
    check_text("name", name)

    from charrnn.data.corpus_reader import KEEP_NEWLINES, corpus_from_text
    from charrnn.training.autotune import plan_for_this_machine
    from charrnn.training.trainer import Trainer

    corpus = corpus_from_text(text, overrides.apply(KEEP_NEWLINES), name)
    trainer = Trainer(corpus, plan_for_this_machine(corpus, overrides))
    for event in trainer.run():
        if listen is not None:
            listen(event)
    return Model(trainer.checkpoint)
