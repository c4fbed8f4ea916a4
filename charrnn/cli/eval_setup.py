"""Models that measure, by name; the network that is done soonest; and the texts that they are measured on."""

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


def load(model: str) -> tuple[str, Checkpoint]:
    """The name of a model, and what it is.

    Raises:
        ModelFileError: there is none, or it is damaged.
    """
    path = checkpoint.find(model)
    return path.name.removesuffix(checkpoint.SUFFIX), checkpoint.load(path)


def check_names(names: Sequence[str]) -> None:
    """Makes sure that names tell models apart.

    Raises:
        SettingError: they don't.
    """
    if len(set(names)) < len(names):
        raise SettingError("model", "given twice with the same name", "give one of the files another")


def scorer(model: Checkpoint, expected: int, config: TrainConfig) -> Scorer:
    """Return the network of a model.

    Args:
        model: the model.
        expected: characters that it will read, as far as known.
        config: device and threads.

    Raises:
        SettingError: there is no such device here.
    """
    return choose_scorer(
        model, expected, streams=num_segments(expected), device=config.device, threads=config.threads
    )


def corpus(
    paths: Sequence[str],
    model: Checkpoint,
    console: Console,
    glob: str | None = None,
    encoding: str | None = None,
    unknown: Unknown = "error",
) -> Corpus:
    """A text as a model reads texts; tells what of it the model does not know.

    Raises:
        CharrnnError: it cannot be read, or holds characters that the model never saw, unless they are to be skipped.
    """
    vocabulary, label = model.vocabulary, ", ".join(paths)
    dropped: set[str] = set()

    def filter_text(symbols: str) -> str:
        if (
            unknown == "error" or vocabulary.unit == "byte" or vocabulary.unknown_id is not None
        ):  # then all have an id
            return symbols
        kept, alien = vocabulary.split_unknown_symbols(symbols)
        dropped.update(alien)
        return kept

    config = replace(model.read_config, encoding=encoding)
    found = corpus_options.read_corpus(
        corpus_options.find_files(paths, glob), config, console, filter_text=filter_text
    )
    if dropped:
        console.line(f"charrnn: {label}: left out what the model never saw: {describe_all(''.join(sorted(dropped)))}")
    if folded := [symbol for symbol in found.counts if symbol not in vocabulary]:
        share = sum(found.counts[symbol] for symbol in folded) / found.characters
        if vocabulary.unknown_id is not None:
            console.line(
                f"charrnn: {label}: {share:.2%} are characters too rare for the model to know, counted as one"
            )
    return found.with_vocabulary(vocabulary)


def split(corpus: Corpus, name: str, model: Checkpoint) -> dict[str, TokenView]:
    """The parts of a text that a model was trained on, and measured on, by its own record.

    Raises:
        CorpusError: it is another text.
        ModelFileError: nothing was held out.
    """
    record = model.training.get("corpus", {})
    if record.get("sha256") != corpus.sha256:
        reason = f"is not the text that {name} was trained on"
        raise CorpusError(corpus.display_name, reason, "leave out --split, or give that text as it was then")
    if not (held_out := record.get("split", record.get("validation_characters"))):
        raise ModelFileError(name, "was trained on all of its text", "leave out --split")
    training, validation = corpus.split(held_out)
    return {"train": training, "validation": validation}
