"""From what the user typed to a trainer that is ready to run: a new run, or one that goes on."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn import checkpoint
from charrnn.cli import corpus_options
from charrnn.cli.console import Console
from charrnn.config import ReadConfig
from charrnn.data.corpus import Corpus
from charrnn.data.token_cache import Cache
from charrnn.data.token_store import OnDisk
from charrnn.data.vocabulary import BOUNDARY, describe_all
from charrnn.errors import ModelFileError, ResumeError, SettingError, UnknownCharacterError
from charrnn.training.checkpointing import Checkpointer
from charrnn.training.run_state import Run, check_same, extend
from charrnn.units import duration

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

    Begun = tuple[Run, Trainer]

STRUCTURE = ("cell", "layers", "hidden", "embedding")  # what a trained model brings along
CACHE = "cache"  # the folder beside a model where ids are kept
TRYING = "trying what trains fastest here, for some seconds"  # meanwhile there is nothing else to see


class Wanted:
    """The text to train on, as it was asked for.

    Args:
        paths: its files and folders.
        keeper: where the run will be saved.
        glob: which files of a folder.
        cache: the folder for its ids, if it was named.
    """

    def __init__(self, paths: Sequence[str], keeper: Checkpointer, *, glob: str | None, cache: str | None) -> None:
        self._paths, self._keeper, self._glob = paths, keeper, glob
        folder = keeper.model.resolve().parent / CACHE if cache is None else Path(cache)
        self._cache = Cache(folder, asked=cache is not None)

    def read(self, config: ReadConfig, console: Console) -> Corpus:
        """Reads it.

        Raises:
            CharrnnError: it cannot be read, or is the run's own.
        """
        files = corpus_options.files(self._paths, self._glob)
        keeper = self._keeper
        own = {name: path for path in (keeper.model, keeper.state, keeper.log) if (name := _identity(str(path)))}
        for file in files if own else ():
            if (name := _identity(file.name)) and (path := own.get(name)):
                raise ModelFileError(str(path), "is the text to train on", "give the model another place with -o")
        corpus = corpus_options.read(self._paths, files, config, console, self._cache)
        if isinstance(corpus.stored, OnDisk):
            how = "found" if corpus.cached else "kept"
            size = len(corpus.stored) * corpus.stored.dtype.itemsize
            console.line(f"note: the text in numbers is {how} in {corpus.stored.name}, {size / 1e6:,.0f} MB")
        return corpus

    def abandon(self) -> None:
        """Leaves nothing half done behind."""
        self._cache.abandon()


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a file from all others, by whatever name."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_place(keeper: Checkpointer, *, resume: bool, force: bool) -> None:
    """Makes sure, before anything is read, that nothing is in the way of a run.

    Raises:
        ResumeError: there is no run to go on with.
        ModelFileError: there is a model or a run, and no word of what shall become of it.
    """
    if force:
        return
    if resume:
        if not keeper.has_state():
            raise ResumeError(str(keeper.model), "has no run to go on with", "leave out --resume to start one")
    elif keeper.has_state() and (found := keeper.find()):
        now = found[0].now.progress
        other = "--force to start again, or -o NAME to keep both"
        if now.finished and not keeper.model.exists():
            reason, advice = "is missing, though its run is finished", f"add --resume to write it again, {other}"
        elif now.finished:
            reason, advice = "exists already", f"add --resume and a larger budget to train on, {other}"
        else:
            reason, advice = f"a run is unfinished, at step {now.step:,}", f"add --resume to go on, {other}"
        raise ModelFileError(str(keeper.model), reason, advice)
    else:
        for path in (keeper.model, keeper.log):
            if path.exists():
                raise ModelFileError(
                    str(path), "exists already", "add --force to replace it, or -o NAME to keep both"
                )


def new(wanted: Wanted, keeper: Checkpointer, asked: Mapping[str, Any], console: Console) -> "Begun":
    """Plans a run, from nothing or from a trained model.

    Args:
        wanted: the text.
        keeper: where the run will be saved.
        asked: what the user chose: fields of `ReadConfig`, `ModelConfig` and `TrainConfig`, ``from`` and
            ``freeze_vocabulary``.
        console: who is told.

    Raises:
        SettingError: a setting that the model to start from does not allow.
        UnknownCharacterError: characters that it never saw, where no new ones are wanted.
        CharrnnError: a text, model or device that cannot be used.
    """
    asked = dict(asked)
    ways = {name: value for name, value in asked.items() if name in ReadConfig.__dataclass_fields__}
    wishes = {name: value for name, value in asked.items() if name not in (*ways, "from", "freeze_vocabulary")}
    if "from" not in asked:
        corpus = wanted.read(ReadConfig(**ways), console)
        base, history = None, dict[str, Any]()
    else:
        path = checkpoint.find(asked["from"])
        base = checkpoint.load(path)
        its = {name: base.training[name] for name in ("corpus", "steps", "from") if name in base.training}
        history = {"from": {"model": path.stem, **its}}
        own = {**asdict(base.reading), **asdict(base.model)}
        for name in ("unit", *STRUCTURE):
            given = ways if name == "unit" else wishes
            if given.setdefault(name, own[name]) != own[name]:
                reason = f"cannot be {given[name]} with --from {asked['from']}, which has {own[name]}"
                raise SettingError(name, reason, "leave it out")
        config = ReadConfig(**{**asdict(base.reading), "encoding": None, **ways})  # which is of a file
        corpus = wanted.read(config, console)
        own_symbols = set(base.vocabulary.symbols)
        added = "".join(sorted(set(corpus.vocabulary.symbols) - own_symbols))
        if not asked.get("freeze_vocabulary"):
            corpus = corpus.with_vocabulary(base.vocabulary.extended(added))
        elif added and (base.vocabulary.unknown is None or BOUNDARY in added):
            reason = f"{path} never saw {describe_all(added)}"
            raise UnknownCharacterError(corpus.label, reason, "leave out --freeze-vocabulary to add them")
        else:
            corpus, added = corpus.with_vocabulary(base.vocabulary), ""
    _tell_text(corpus, keeper, console)
    if base is not None:
        known = len(own_symbols & set(corpus.counts))
        unused = len(own_symbols) - known
        console.line(f"from {path}: {known} characters that it knows, {len(added)} new ones, {unused} unused")

    with console.bar(total=None, layout=TRYING):
        from charrnn.training.autotune import plan_here  # torch: more than a second
        from charrnn.training.trainer import Trainer

        plan = plan_here(corpus, wishes)
    console.line(f"plan: {plan.summary}")
    for note in plan.notes:
        console.line(f"note: {note}")
    trainer = Trainer(corpus, plan, history)
    if base is not None:
        from charrnn.rnn.transfer import transfer

        trainer.start_from(transfer(base.tensors, base.vocabulary, trainer.best, corpus.vocabulary))
    run = Run.of(plan, asked, corpus, history)
    keeper.begin(run, trainer)
    return run, trainer


def resumed(wanted: Wanted, keeper: Checkpointer, asked: Mapping[str, Any], console: Console) -> "Begun":
    """Goes on with a run; one that is finished has nothing left to do but to be saved once more.

    Raises:
        ResumeError: there is no such run, or the text is another one.
        SettingError: a setting is another one, or the budget is spent.
        CharrnnError: a state or device that cannot be used.
    """
    found = keeper.find()
    if found is None:
        raise ResumeError(str(keeper.model), "has no run to go on with", "leave out --resume to start one")
    saved, note = found
    corpus = wanted.read(saved.run.reading, console)
    check_same(saved.run, corpus.label, corpus.sha256, asked)
    saved, notes = extend(saved, asked)
    run, now = saved.run, saved.now.progress
    corpus = replace(corpus.with_vocabulary(run.vocabulary), name=run.name)
    _tell_text(corpus, keeper, console)
    console.line(f"plan: {run.plan.summary}")
    for line in [note, *notes]:
        if line:
            console.line(f"note: {line}")
    if now.finished:
        advice = "to train on, give a larger budget with --steps, --epochs or --minutes"
        console.line(f"finished already, at step {now.step:,}; {advice}")
    else:
        spent = f"{now.fraction:.0%} of the budget, {duration(now.seconds)} spent"
        console.line(f"resuming at step {now.step:,}, {spent}")

    from charrnn.training.autotune import set_up_torch

    set_up_torch(run.plan.train.threads)
    keeper.adopt_existing()
    return run, saved.trainer(corpus)


def _tell_text(corpus: Corpus, keeper: Checkpointer, console: Console) -> None:
    documents = f", {corpus.documents:,} document{'s' * (corpus.documents != 1)}" if corpus.documents else ""
    noun = "bytes" if corpus.config.unit == "byte" else "characters"
    console.line(
        f"{corpus.name}: {corpus.characters:,} {noun}, {len(corpus.counts) - bool(corpus.documents)} distinct"
        f"{documents} -> {keeper.model}",
        style="bold",
    )
