"""Sets up a new or resumed training run."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint, base_record
from charrnn.cli import corpus_options
from charrnn.cli.console import Console
from charrnn.config import ReadConfig
from charrnn.config.overrides import Overrides
from charrnn.data.corpus import Corpus
from charrnn.data.token_cache import TokenCache
from charrnn.data.token_store import FileTokens
from charrnn.data.vocabulary import BOUNDARY, describe_all
from charrnn.errors import (
    ModelFileError,
    ResumeError,
    SettingError,
    UnknownCharacterError,
    describe_value,
    shortage,
)
from charrnn.io import atomic_io
from charrnn.io.memory import available_memory
from charrnn.training.checkpointing import Checkpointer
from charrnn.training.memory import check_resumed
from charrnn.training.run_state import NO_HISTORY, History, Run, check_same, extend
from charrnn.units import format_duration

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

    PreparedRun = tuple[Run, Trainer]

STRUCTURE = ("unit", "cell", "layers", "hidden", "embedding")  # settings that --from takes from the model
CACHE_DIR = "cache"  # directory for the ids of large texts, beside the model
AUTOTUNING = "measuring which settings train fastest here; this takes a few seconds"


class CorpusSpec:
    """The text to train on, before it is read.

    Args:
        paths: Files and directories of the text.
        checkpointer: Checkpointer of the run.
        glob: Pattern that selects files of a directory.
        cache: Directory for the ids, or None for the default.

    Attributes:
        corpus_args: Names and values of the options that select the same text again.
    """

    def __init__(
        self, paths: Sequence[str], checkpointer: Checkpointer, *, glob: str | None, cache: str | None
    ) -> None:
        self._paths, self._checkpointer, self._glob = paths, checkpointer, glob
        self.corpus_args = (("glob", glob), ("cache", cache))
        directory = atomic_io.resolve(checkpointer.model).parent / CACHE_DIR if cache is None else Path(cache)
        self._cache = TokenCache(directory, always=cache is not None)

    def read(self, config: ReadConfig, console: Console) -> Corpus:
        """Read the text.

        Raises:
            CharrnnError: If the text cannot be read, or is a file that the run writes.
        """
        source = corpus_options.find_files(self._paths, self._glob)
        checkpointer = self._checkpointer
        outputs = {
            identity: path
            for path in (
                checkpointer.model,
                checkpointer.state,
                atomic_io.backup_path(checkpointer.state),
                checkpointer.log,
            )
            if (identity := _identity(str(path)))
        }
        for file in source.files if outputs else ():
            if (identity := _identity(file.name)) and (path := outputs.get(identity)):
                raise ModelFileError(str(path), "is the text to train on", "give the model another name with -o")
        corpus = corpus_options.read_corpus(source, config, console, self._cache)
        if isinstance(corpus.stored_ids, FileTokens):
            action = "read the encoded text from" if corpus.cached else "saved the encoded text in"
            size = len(corpus.stored_ids) * corpus.stored_ids.dtype.itemsize
            console.line(f"note: {action} {corpus.stored_ids.name}, {size / 1e6:,.0f} MB")
        return corpus

    def discard_unfinished(self) -> None:
        """Remove a cache file that is not complete."""
        self._cache.discard()


def _identity(path: str) -> tuple[int, int] | None:
    """Return the device and inode number of a file, or None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_target(checkpointer: Checkpointer, *, resume: bool, force: bool) -> None:
    """Check that a run may start or resume, before the text is read.

    Raises:
        ResumeError: If there is no run to resume.
        ModelFileError: If a model or run exists that neither ``resume`` nor ``force`` allows to change.
    """
    if force:
        return
    if resume:
        if not checkpointer.has_state():
            raise ResumeError(str(checkpointer.model), "has no run to resume", "leave out --resume to start one")
        checkpointer.check_existing()
    elif checkpointer.has_state() and (newest := checkpointer.find()):
        progress = newest[0].current.progress
        other = "--force to start again, or -o NAME to keep both"
        if progress.finished and not checkpointer.model.exists():
            reason, advice = "is missing, though its run is finished", f"add --resume to write it again, {other}"
        elif progress.finished:
            reason, advice = "exists already", f"add --resume and a larger budget to continue training, {other}"
        else:
            reason, advice = f"has an unfinished run at step {progress.step:,}", f"add --resume to continue, {other}"
        raise ModelFileError(str(checkpointer.model), reason, advice)
    else:
        for path in (checkpointer.model, checkpointer.log):
            if path.exists():
                raise ModelFileError(
                    str(path), "exists already", "add --force to replace it, or -o NAME to keep both"
                )


def new_run(
    corpus_spec: CorpusSpec, checkpointer: Checkpointer, overrides: Overrides, console: Console
) -> "PreparedRun":
    """Read the text, plan a new run, and return the run with its trainer.

    Args:
        corpus_spec: Text to train on.
        checkpointer: Checkpointer of the run.
        overrides: Settings that the user chose.
        console: Console for the plan and for notes.

    Raises:
        SettingError: If a setting contradicts the model of ``--from``.
        UnknownCharacterError: If the vocabulary is frozen and the text has new characters.
        CharrnnError: If the text, the model or the device cannot be used.
    """
    base, history, chosen = None, NO_HISTORY, overrides
    if overrides.from_model is None:
        corpus = corpus_spec.read(overrides.apply(ReadConfig()), console)
    else:
        path = checkpoint.find(overrides.from_model)
        base = checkpoint.load(path)
        history = History(from_=base_record(path.stem, base.training))
        chosen = _with_structure_of(base, overrides)
        read_config = replace(base.read_config, encoding=None)  # the new text may have another encoding
        corpus = corpus_spec.read(chosen.apply(read_config), console)
        symbols = set(base.vocabulary.symbols)
        added = "".join(sorted(set(corpus.vocabulary.symbols) - symbols))
        if not overrides.freeze_vocabulary:
            corpus = corpus.with_vocabulary(base.vocabulary.extended(added))
        elif added and (base.vocabulary.unknown_id is None or BOUNDARY in added):
            reason = f"{path} never saw {describe_all(added)}"
            raise UnknownCharacterError(corpus.display_name, reason, "leave out --freeze-vocabulary to add them")
        else:
            corpus, added = corpus.with_vocabulary(base.vocabulary), ""
    _print_corpus(corpus, checkpointer, console)
    if base is not None:
        shared = len(symbols & set(corpus.counts))
        unused = len(symbols) - shared
        console.line(f"from {path}: {shared} shared characters, {len(added)} new, {unused} unused")

    with console.bar(total=None, bar_format=AUTOTUNING):
        from charrnn.training.autotune import plan_for_this_machine  # imports torch, which takes over a second
        from charrnn.training.trainer import Trainer

        plan = plan_for_this_machine(corpus, chosen)
    console.line(f"plan: {plan.summary}")
    for note in plan.notes:
        console.line(f"note: {note}")
    trainer = Trainer(corpus, plan, history)
    if base is not None:
        from charrnn.rnn.transfer import transfer

        trainer.load_weights(transfer(base.tensors, base.vocabulary, trainer.best, corpus.vocabulary))
    run = Run.create(plan, overrides, corpus, history)
    checkpointer.save_initial(run, trainer)
    return run, trainer


def _with_structure_of(base: Checkpoint, overrides: Overrides) -> Overrides:
    """Return the overrides with the structure of a trained model.

    Raises:
        SettingError: If the overrides choose another structure.
    """
    model = base.model_config
    fixed = replace(
        overrides, unit=base.read_config.unit, cell=model.cell, layers=model.layers, hidden=model.hidden,
        embedding=model.embedding,
    )  # fmt: skip
    for name in STRUCTURE:
        value, required = getattr(overrides, name), getattr(fixed, name)
        if value not in (None, required):
            reason = f"{value} cannot be combined with --from {overrides.from_model}, which has {required}"
            raise SettingError(name, reason, "leave it out")
    return fixed


def resume_run(
    corpus_spec: CorpusSpec, checkpointer: Checkpointer, overrides: Overrides, console: Console
) -> "PreparedRun":
    """Load a run, and return it with its trainer. A finished run is only saved again.

    Raises:
        ResumeError: If there is no run, the text differs, or the device, engine or precision is not available.
        SettingError: If a setting differs, or the budget is spent.
        CharrnnError: If the training state or the device cannot be used, or there is not enough memory.
    """
    newest = checkpointer.find()
    if newest is None:
        raise ResumeError(str(checkpointer.model), "has no run to resume", "leave out --resume to start one")
    saved, note = newest
    corpus = corpus_spec.read(saved.run.read_config, console)
    check_same(saved.run, corpus, overrides)
    saved, notes = extend(saved, overrides)
    run, progress = saved.run, saved.current.progress
    corpus = replace(corpus.with_vocabulary(run.vocabulary), name=run.name)
    _print_corpus(corpus, checkpointer, console)
    console.line(f"plan: {run.plan.summary}")
    for line in [note, *notes]:
        if line:
            console.line(f"note: {line}")
    if progress.finished:
        advice = "give a larger budget with --steps, --epochs or --minutes to continue"
        console.line(f"already finished at step {progress.step:,}; {advice}")
    else:
        spent = f"{progress.fraction:.0%} of the budget spent, {format_duration(progress.seconds)} so far"
        console.line(f"resuming at step {progress.step:,}: {spent}")

    check_resumed(saved, checkpointer.state, available_memory())

    from charrnn.rnn.backend import resolve_device
    from charrnn.training.autotune import set_up_torch

    train = run.plan.train_config
    set_up_torch(train.threads)
    try:
        resolve_device(train.device)
        trainer = saved.trainer(corpus)
        if not progress.finished:
            trainer.try_layers()
    except SettingError as error:
        raise ResumeError("--device", error.reason, "add --device cpu") from None
    except ImportError as error:
        raise ResumeError("--engine", f"native is not available here ({error})", "add --engine torch") from None
    except RuntimeError as error:
        if shortage(error):
            raise
        reason = f"{train.precision} is not available here ({describe_value(error)})"
        advice = "resume the run on another machine" if train.precision == "fp32" else "add --precision fp32"
        raise ResumeError("--precision", reason, advice) from None
    checkpointer.adopt_existing()
    return run, trainer


def _print_corpus(corpus: Corpus, checkpointer: Checkpointer, console: Console) -> None:
    documents = (
        f", {corpus.num_documents:,} document{'s' * (corpus.num_documents != 1)}" if corpus.num_documents else ""
    )
    noun = "bytes" if corpus.read_config.unit == "byte" else "characters"
    console.line(
        f"{corpus.name}: {corpus.characters:,} {noun}, {len(corpus.counts) - bool(corpus.num_documents)} distinct"
        f"{documents} -> {checkpointer.model}",
        style="bold",
    )
