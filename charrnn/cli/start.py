"""From what the user typed to a trainer that is ready to run: a new run, or one that goes on."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from charrnn import checkpoint
from charrnn.cli.console import Console
from charrnn.errors import ModelFileError, ResumeError, SettingError, UnknownCharacterError
from charrnn.text.corpus import Corpus, sha256_of
from charrnn.text.sources import Source
from charrnn.text.vocabulary import describe_all
from charrnn.training.keeper import Keeper
from charrnn.training.resume import Run, check_same, extend
from charrnn.units import duration

if TYPE_CHECKING:
    from charrnn.training.trainer import Trainer

    Begun = tuple[Run, Trainer]

STRUCTURE = ("cell", "layers", "hidden", "embedding")  # what a trained model brings along


def check_place(keeper: Keeper, *, resume: bool, force: bool) -> None:
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


def check_apart(source: Source, keeper: Keeper) -> None:
    """Makes sure that no file of the run is the text itself.

    Raises:
        ModelFileError: one is.
    """
    for path in (keeper.model, keeper.state, keeper.log):
        for file in source.files:
            if path.exists() and os.path.exists(file) and os.path.samefile(path, file):
                raise ModelFileError(str(path), "is the text to train on", "give the model another place with -o")


def new(source: Source, keeper: Keeper, asked: Mapping[str, Any], console: Console) -> "Begun":
    """Plans a run, from nothing or from a trained model.

    Args:
        source: the text.
        keeper: where the run will be saved.
        asked: what the user chose: fields of `ModelConfig` and `TrainConfig`, ``from`` and ``freeze_vocabulary``.
        console: who is told.

    Raises:
        SettingError: a setting that the model to start from does not allow.
        UnknownCharacterError: characters that it never saw, where no new ones are wanted.
        CharrnnError: a text, model or device that cannot be used.
    """
    asked = dict(asked)
    wishes = {name: value for name, value in asked.items() if name not in ("from", "freeze_vocabulary")}
    base, history = None, dict[str, Any]()
    if "from" in asked:
        path = checkpoint.find(asked["from"])
        base = checkpoint.load(path)
        its = {name: base.training[name] for name in ("corpus", "steps", "from") if name in base.training}
        history = {"from": {"model": path.stem, **its}}
        for name in STRUCTURE:
            own = getattr(base.model, name)
            if wishes.setdefault(name, own) != own:
                reason = f"cannot be {wishes[name]} with --from {asked['from']}, which has {own}"
                raise SettingError(name, reason, "leave it out")
        corpus = Corpus.of(source, base.vocabulary.extended(source.text))
        added = corpus.vocabulary.characters[len(base.vocabulary) :]
        if added and asked.get("freeze_vocabulary"):
            reason = f"{path} never saw {describe_all(added)}"
            raise UnknownCharacterError(corpus.name, reason, "leave out --freeze-vocabulary to add them")
    else:
        corpus = Corpus.of(source)
    _tell_text(corpus, keeper, console)
    if base is not None:
        unused = len(set(base.vocabulary.characters) - set(source.text))
        known = len(base.vocabulary) - unused
        console.line(f"from {path}: {known} characters that it knows, {len(added)} new ones, {unused} unused")

    from charrnn.training.machine import plan_here  # torch: more than a second
    from charrnn.training.trainer import Trainer

    plan = plan_here(len(corpus.ids), len(corpus.vocabulary), wishes)
    console.line(f"plan: {plan.summary}")
    for note in plan.notes:
        console.line(f"note: {note}")
    trainer = Trainer(corpus, plan, history)
    if base is not None:
        from charrnn.model.transfer import transfer

        trainer.start_from(transfer(base.tensors, base.vocabulary, trainer.best, corpus.vocabulary))
    run = Run(plan, asked, corpus.name, corpus.sha256, corpus.vocabulary, history)
    keeper.begin(run, trainer)
    return run, trainer


def resumed(source: Source, keeper: Keeper, asked: Mapping[str, Any], console: Console) -> "Begun":
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
    check_same(saved.run, ", ".join(source.files), sha256_of(source), asked)
    saved, notes = extend(saved, asked)
    run, now = saved.run, saved.now.progress
    corpus = replace(Corpus.of(source, run.vocabulary), name=run.name)
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

    from charrnn.training.machine import Machine

    Machine(run.plan.train)
    keeper.goes_on()
    return run, saved.trainer(corpus)


def _tell_text(corpus: Corpus, keeper: Keeper, console: Console) -> None:
    characters, distinct = len(corpus.ids), len(corpus.vocabulary)
    console.line(f"{corpus.name}: {characters:,} characters, {distinct} distinct -> {keeper.model}", style="bold")
