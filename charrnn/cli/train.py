"""``charrnn train``: from a text to a model file, watched from stderr; stdout gets the model's path at the end."""

from typing import Annotated

import typer

from charrnn.cli import corpus_options, options
from charrnn.cli.console import Console, emit
from charrnn.cli.signals import Signals
from charrnn.config import KeepConfig, ModelConfig, ReadConfig, TrainConfig
from charrnn.errors import SettingError

PLANNED = " [default: planned]"


def train(
    corpus: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS", help="Files, also .gz .xz .bz2 .zst, directories, or - for stdin."),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", metavar="MODEL", help="A name in ./checkpoints, or a path.  [default: the corpus's]"
        ),
    ] = None,
    force: options.Force = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped, or with a larger budget.")
    ] = False,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Start from a trained model, on a new text.")
    ] = None,
    freeze_vocabulary: Annotated[
        bool, typer.Option("--freeze-vocabulary", help="Refuse characters that the model of --from never saw.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="X", help="Train this long at most.  [default: about 5]")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", metavar="X", help="Or: read the text this many times.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", metavar="N", help="Or: take this many steps.")] = None,
    lines: corpus_options.Lines = False,
    files: corpus_options.Files = False,
    documents: corpus_options.Documents = None,
    glob: corpus_options.Glob = None,
    encoding: corpus_options.Encoding = None,
    newlines: corpus_options.Newlines = None,
    normalize: corpus_options.Normalize = None,
    unit: corpus_options.Unit = None,
    min_count: corpus_options.MinCount = None,
    cache: corpus_options.CacheFolder = None,
    cell: Annotated[
        str | None, typer.Option("--cell", metavar="lstm|gru|rnn", help="Kind of memory.  [default: lstm]")
    ] = None,
    layers: Annotated[
        int | None, typer.Option("--layers", metavar="N", help="Layers of cells, stacked.  [default: 2]")
    ] = None,
    hidden: Annotated[int | None, typer.Option("--hidden", metavar="N", help=f"Units of a layer. {PLANNED}")] = None,
    embedding: Annotated[
        int | None,
        typer.Option("--embedding", metavar="N", help=f"Size of a character's vector; 0 is one-hot. {PLANNED}"),
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option("--dropout", metavar="P", help=f"Share of activations silenced in training. {PLANNED}"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="B", help=f"Streams read side by side. {PLANNED}")
    ] = None,
    seq_length: Annotated[
        int | None, typer.Option("--seq-length", metavar="T", help=f"Characters a gradient reaches back. {PLANNED}")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", metavar="X", help=f"Peak learning rate. {PLANNED}")] = None,
    clip: Annotated[
        float | None, typer.Option("--clip", metavar="X", help="Largest norm of the gradient; 0: any.  [default: 1]")
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            "--validation",
            metavar="P",
            help="Share to measure on: the end of the text, or documents.  [default: 0.1, at most 500,000]",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience", metavar="N", help="Evaluations without a better one that end it; 0: never.  [default: 5]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Of the first weights and of dropout.  [default: 0]")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="auto|fp32|bf16", help="Of the matrix products.  [default: the faster]"),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="auto|fused|stock", help="Our kernels, or torch's.  [default: the faster]"),
    ] = None,
    device: options.Device = None,
    threads: options.Threads = None,
    save_every: Annotated[
        float | None,
        typer.Option("--save-every", metavar="SECONDS", help="Save at least this often.  [default: 60]"),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Train a network to predict the next character of a text.

    Told nothing but the text, it plans size, batch, learning rate and budget from the text and this machine; each
    option replaces its own part of the plan. Ctrl-C stops with everything saved, and --resume goes on from there as
    if nothing had happened.
    """
    wishes = options.given(
        cell=cell, layers=layers, hidden=hidden, embedding=embedding, dropout=dropout, batch_size=batch_size,
        seq_length=seq_length, learning_rate=lr, clip=clip, validation=validation, patience=patience, epochs=epochs,
        steps=steps, minutes=minutes, seed=seed, precision=precision, engine=engine, device=device,
        threads=threads,
    )  # fmt: skip
    wishes |= corpus_options.asked(
        lines=lines, files=files, documents=documents, encoding=encoding, newlines=newlines, normalize=normalize,
        unit=unit, min_count=min_count,
    )  # fmt: skip
    for config in (ReadConfig, ModelConfig, TrainConfig):  # a wrong value is told before anything is read or loaded
        config(**{name: value for name, value in wishes.items() if name in config.__dataclass_fields__})
    keeping = KeepConfig(**options.given(save_every=save_every))
    if freeze_vocabulary and from_ is None and not resume:
        raise SettingError("freeze_vocabulary", "needs a model", "name one with --from")
    if resume and force:
        raise SettingError("resume", "cannot be combined with --force", "leave one of them out")

    asked = {**wishes, **options.given(**{"from": from_, "freeze_vocabulary": freeze_vocabulary or None})}

    from charrnn import checkpoint
    from charrnn.cli import train_setup
    from charrnn.data import sources
    from charrnn.training.checkpointing import Checkpointer

    console = Console(quiet=quiet)
    path = checkpoint.place(out if out is not None else sources.name_of(corpus))
    keeper = Checkpointer(path, keeping.save_every)
    with Signals() as signals:
        lock = keeper.lock()
        places = {"glob": glob, "cache": cache}
        wanted = train_setup.Wanted(corpus, keeper, **places)

        def leave() -> None:
            wanted.abandon()
            lock.release()

        signals.farewell = leave
        try:
            train_setup.check_place(keeper, resume=resume, force=force)
            run, trainer = (train_setup.resumed if resume else train_setup.new)(wanted, keeper, asked, console)

            from charrnn.cli.train_progress import resume_command, tell_verdict, watch

            finished = watch(trainer, run, keeper, signals, console)
            found_by = [f"--{name}={value}" for name, value in places.items() if value]
            tell_verdict(finished, path, resume_command(corpus, path, found_by), console)
        finally:
            lock.release()
    emit(f"{path}\n")
    if signals.caught:
        raise typer.Exit(128 + signals.caught)
