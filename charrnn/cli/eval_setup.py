"""Models, scorers and texts for ``eval``, ``score`` and ``classify``."""

from collections.abc import Sequence
from dataclasses import replace

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.cli import corpus_options
from charrnn.cli.console import Console
from charrnn.config import TrainConfig, Unknown
from charrnn.data.corpus import Corpus
from charrnn.data.token_view import TokenView
from charrnn.data.vocabulary import describe_all
from charrnn.errors import CorpusError, ModelFileError, SettingError
from charrnn.evaluation.surprisal import num_segments
from charrnn.rnn.backend import Scorer, choose_scorer


def load_model(model: str) -> tuple[str, Checkpoint]:
    """Load a model by name or path, and return its name and contents.

    Raises:
        ModelFileError: If the model does not exist or is damaged.
    """
    path = checkpoint.find(model)
    return path.name.removesuffix(checkpoint.SUFFIX), checkpoint.load(path)


def check_names(names: Sequence[str]) -> None:
    """Check that all models have different names.

    Raises:
        SettingError: If two models have the same name.
    """
    if len(set(names)) < len(names):
        raise SettingError("model", "given twice with the same name", "leave one out or rename its file")


def make_scorer(model: Checkpoint, num_characters: int, config: TrainConfig) -> Scorer:
    """Return a scorer with the backend that is fastest for a text.

    Args:
        model: Model that reads the text.
        num_characters: Expected length of the text; 0 if unknown.
        config: Device and number of threads.

    Raises:
        SettingError: If the device is not available.
    """
    streams = num_segments(num_characters)
    return choose_scorer(model, num_characters, streams=streams, device=config.device, threads=config.threads)


def read_corpus(
    paths: Sequence[str],
    model: Checkpoint,
    console: Console,
    glob: str | None = None,
    encoding: str | None = None,
    unknown: Unknown = "error",
) -> Corpus:
    """Read a text with the settings and the vocabulary of a model; report characters that the model never saw.

    Raises:
        CharrnnError: If the text cannot be read, or contains unknown characters that may not be skipped.
    """
    vocabulary, display_name = model.vocabulary, ", ".join(paths)
    skipped: set[str] = set()
    every_symbol_has_id = vocabulary.unit == "byte" or vocabulary.unknown_id is not None

    def filter_text(symbols: str) -> str:
        if unknown == "error" or every_symbol_has_id:
            return symbols
        kept, unknown_symbols = vocabulary.split_unknown_symbols(symbols)
        skipped.update(unknown_symbols)
        return kept

    config = replace(model.read_config, encoding=encoding)
    source = corpus_options.find_files(paths, glob)
    corpus = corpus_options.read_corpus(source, config, console, filter_text=filter_text)
    if skipped:
        names = describe_all("".join(sorted(skipped)))
        console.line(f"charrnn: {display_name}: skipped characters that the model never saw: {names}")
    replaced = [symbol for symbol in corpus.counts if symbol not in vocabulary]
    if replaced and vocabulary.unknown_id is not None:
        share = sum(corpus.counts[symbol] for symbol in replaced) / corpus.characters
        console.line(
            f"charrnn: {display_name}: {share:.2%} of the characters are not in the model's vocabulary; "
            "they are read as one unknown character"
        )
    return corpus.with_vocabulary(vocabulary)


def split_corpus(corpus: Corpus, name: str, model: Checkpoint) -> dict[str, TokenView]:
    """Return the training and the validation part of the text that a model was trained on.

    Raises:
        CorpusError: If the model was trained on another text.
        ModelFileError: If the model has no validation text.
    """
    record = None if model.training is None else model.training.corpus
    if record is None or record.sha256 != corpus.sha256:
        reason = f"is not the text that {name} was trained on"
        raise CorpusError(corpus.display_name, reason, "leave out --split, or give the unchanged training text")
    if not 0 < record.split < len(corpus.stored_ids):
        raise ModelFileError(name, "was trained on all of its text", "leave out --split")
    training, validation = corpus.split(record.split)
    return {"train": training, "validation": validation}
