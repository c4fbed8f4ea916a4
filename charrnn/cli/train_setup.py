"""From what the user typed to a trainer that is ready to run: a new run, or one that goes on."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from charrnn.cli import corpus_options
from charrnn.cli.console import Console
from charrnn.config import ReadConfig
from charrnn.config.overrides import Overrides
from charrnn.data.corpus import Corpus
from charrnn.data.token_cache import TokenCache
from charrnn.data.token_store import FileTokens
from charrnn.data.vocabulary import BOUNDARY, describe_all
from charrnn.errors import ModelFileError, ResumeError, SettingError, UnknownCharacterError
from charrnn.training.checkpointing import Checkpointer
from charrnn.training.run_state import Run, check_same, extend
from charrnn.units import format_duration

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

    PreparedRun = tuple[Run, Trainer]

STRUCTURE = ("unit", "cell", "layers", "hidden", "embedding")  # what a trained model brings along
CACHE = "cache"  # the folder beside a model where ids are kept
AUTOTUNING = "trying what trains fastest here, for some seconds"  # meanwhile there is nothing else to see


class CorpusSpec:
    """The text to train on.

    Args:
        paths: its files and folders.
        checkpointer: where the run will be saved.
        glob: which files of a folder.
        cache: the folder for its ids, if it was named.

    Attributes:
        corpus_args: names and values of the options that are needed to find the same text again.
    """

    def __init__(
        self, paths: Sequence[str], checkpointer: Checkpointer, *, glob: str | None, cache: str | None
    ) -> None:
        self._paths, self._checkpointer, self._glob = paths, checkpointer, glob
        self.corpus_args = (("glob", glob), ("cache", cache))
        folder = checkpointer.model.resolve().parent / CACHE if cache is None else Path(cache)
        self._cache = TokenCache(folder, always=cache is not None)

    def read(self, config: ReadConfig, console: Console) -> Corpus:
        """Reads it.

        Raises:
            CharrnnError: it cannot be read, or is the run's own.
        """
        source = corpus_options.find_files(self._paths, self._glob)
        checkpointer = self._checkpointer
        places = {
            name: path
            for path in (checkpointer.model, checkpointer.state, checkpointer.log)
            if (name := _identity(str(path)))
        }
        for file in source.files if places else ():
            if (name := _identity(file.name)) and (path := places.get(name)):
                raise ModelFileError(str(path), "is the text to train on", "give the model another place with -o")
        corpus = corpus_options.read_corpus(source, config, console, self._cache)
        if isinstance(corpus.stored_ids, FileTokens):
            how = "found" if corpus.cached else "kept"
            size = len(corpus.stored_ids) * corpus.stored_ids.dtype.itemsize
            console.line(f"note: the text in numbers is {how} in {corpus.stored_ids.name}, {size / 1e6:,.0f} MB")
        return corpus

    def discard_unfinished(self) -> None:
        """Leaves nothing half done behind."""
        self._cache.discard()


def _identity(path: str) -> tuple[int, int] | None:
    """Return the device and inode number of a file, or None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_target(checkpointer: Checkpointer, *, resume: bool, force: bool) -> None:
    """Makes sure, before anything is read, that nothing is in the way of a run.

    Raises:
        ResumeError: there is no run to go on with.
        ModelFileError: there is a model or a run, and no word of what shall become of it.
    """
    if force:
        return
    if resume:
        if not checkpointer.has_state():
            raise ResumeError(str(checkpointer.model), "has no run to go on with", "leave out --resume to start one")
    elif checkpointer.has_state() and (found := checkpointer.find()):
        now = found[0].current.progress
        other = "--force to start again, or -o NAME to keep both"
        if now.finished and not checkpointer.model.exists():
            reason, advice = "is missing, though its run is finished", f"add --resume to write it again, {other}"
        elif now.finished:
            reason, advice = "exists already", f"add --resume and a larger budget to train on, {other}"
        else:
            reason, advice = f"a run is unfinished, at step {now.step:,}", f"add --resume to go on, {other}"
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
    """Plan a run, from nothing or from a trained model.

    Args:
        corpus_spec: the text.
        checkpointer: where the run will be saved.
        overrides: the settings that the user chose.
        console: shows what is planned.

    Raises:
        SettingError: a setting that the model to start from does not allow.
        UnknownCharacterError: characters that it never saw, where no new ones are wanted.
        CharrnnError: a text, model or device that cannot be used.
    """
    base, history, chosen = None, dict[str, Any](), overrides
    if overrides.from_model is None:
        corpus = corpus_spec.read(overrides.apply(ReadConfig()), console)
    else:
        path = checkpoint.find(overrides.from_model)
        base = checkpoint.load(path)
        record = {name: base.training[name] for name in ("corpus", "steps", "from") if name in base.training}
        history = {"from": {"model": path.stem, **record}}
        chosen = _with_structure_of(base, overrides)
        corpus = corpus_spec.read(chosen.apply(replace(base.read_config, encoding=None)), console)  # that of a file
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
        known = len(symbols & set(corpus.counts))
        unused = len(symbols) - known
        console.line(f"from {path}: {known} characters that it knows, {len(added)} new ones, {unused} unused")

    with console.bar(total=None, layout=AUTOTUNING):
        from charrnn.training.autotune import plan_for_this_machine  # torch: more than a second
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
        SettingError: another structure is chosen.
    """
    model = base.model_config
    fixed = replace(
        overrides, unit=base.read_config.unit, cell=model.cell, layers=model.layers, hidden=model.hidden,
        embedding=model.embedding,
    )  # fmt: skip
    for name in STRUCTURE:
        value, needed = getattr(overrides, name), getattr(fixed, name)
        if value not in (None, needed):
            reason = f"cannot be {value} with --from {overrides.from_model}, which has {needed}"
            raise SettingError(name, reason, "leave it out")
    return fixed


def resume_run(
    corpus_spec: CorpusSpec, checkpointer: Checkpointer, overrides: Overrides, console: Console
) -> "PreparedRun":
    """Go on with a run; one that is finished has nothing left to do but to be saved once more.

    Raises:
        ResumeError: there is no such run, the text is another one, or what trained it cannot run here.
        SettingError: a setting is another one, or the budget is spent.
        CharrnnError: a state or device that cannot be used.
    """
    found = checkpointer.find()
    if found is None:
        raise ResumeError(str(checkpointer.model), "has no run to go on with", "leave out --resume to start one")
    saved, note = found
    corpus = corpus_spec.read(saved.run.read_config, console)
    check_same(saved.run, corpus.display_name, corpus.sha256, overrides)
    saved, notes = extend(saved, overrides)
    run, now = saved.run, saved.current.progress
    corpus = replace(corpus.with_vocabulary(run.vocabulary), name=run.name)
    _print_corpus(corpus, checkpointer, console)
    console.line(f"plan: {run.plan.summary}")
    for line in [note, *notes]:
        if line:
            console.line(f"note: {line}")
    if now.finished:
        advice = "to train on, give a larger budget with --steps, --epochs or --minutes"
        console.line(f"finished already, at step {now.step:,}; {advice}")
    else:
        spent = f"{now.fraction:.0%} of the budget, {format_duration(now.seconds)} spent"
        console.line(f"resuming at step {now.step:,}, {spent}")

    from charrnn.training.autotune import set_up_torch

    set_up_torch(run.plan.train_config.threads)
    try:
        trainer = saved.trainer(corpus)
    except ImportError as error:
        raise ResumeError("--engine", f"native cannot run here ({error})", "add --engine torch") from None
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
