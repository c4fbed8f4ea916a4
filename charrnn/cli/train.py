"""``charrnn train``: train a model on a text.

Progress goes to stderr. At the end, the path of the model goes to stdout.
"""

from dataclasses import dataclass
from typing import Annotated

import typer

from charrnn.cli import options
from charrnn.cli.command import command
from charrnn.cli.console import Console, write_stdout
from charrnn.cli.corpus_options import TextOptions
from charrnn.cli.plan_explanation import explain
from charrnn.cli.signals import Signals
from charrnn.config import SaveConfig
from charrnn.config.overrides import Overrides
from charrnn.errors import SettingError

EXAMPLES = """
charrnn train book.txt                               # about five minutes
charrnn train book.txt --minutes 1 -o quick          # one minute; name the model quick
charrnn train names.txt --lines --cell gru           # every line is a document
charrnn train book.txt --resume --minutes 30         # continue with a larger budget
"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of ``charrnn train``."""

    corpus: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS", help="Files (also .gz, .xz, .bz2, .zst), directories, or - for stdin."),
    ]
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", metavar="MODEL", help="A path, or a name in ./checkpoints.  [default: name of the text]"
        ),
    ] = None
    force: options.Force = False
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted run, or a finished one with a larger budget.")
    ] = False
    text: TextOptions
    cache: Annotated[
        str | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Cache the encoded text here.  [default: beside the model, for large texts]",
            rich_help_panel="Text",
        ),
    ] = None
    overrides: Overrides
    saving: SaveConfig
    explain: Annotated[bool, typer.Option("--explain", help="Explain every setting of the plan.")] = False
    quiet: options.Quiet = False


@command
def train(args: TrainOptions) -> None:
    """Train a network to predict the next character of a text.

    Without options, the size of the network, the learning rate and the budget follow from the text and the speed of
    this machine. Every option replaces one planned setting. Ctrl-C saves everything and stops; --resume continues
    from there, bit for bit.
    """
    overrides = args.text.apply_to(args.overrides)
    if overrides.freeze_vocabulary and overrides.from_model is None and not args.resume:
        raise SettingError("freeze_vocabulary", "given without --from", "add --from MODEL")
    if args.resume and args.force:
        raise SettingError("resume", "cannot be combined with --force", "give one of them")

    from charrnn import checkpoint
    from charrnn.cli import train_setup
    from charrnn.data import sources
    from charrnn.training.checkpointing import Checkpointer

    console = Console(quiet=args.quiet)
    path = checkpoint.model_path(args.out if args.out is not None else sources.default_name(args.corpus))
    checkpointer = Checkpointer(path, args.saving.save_every)
    with Signals() as signals:
        lock = checkpointer.lock()
        corpus_spec = train_setup.CorpusSpec(args.corpus, checkpointer, glob=args.text.glob, cache=args.cache)

        def clean_up() -> None:
            corpus_spec.discard_unfinished()
            lock.release()

        signals.on_exit = clean_up
        try:
            train_setup.check_target(checkpointer, resume=args.resume, force=args.force)
            prepare = train_setup.resume_run if args.resume else train_setup.new_run
            run, trainer = prepare(corpus_spec, checkpointer, overrides, console)
            for line in explain(run.plan, run.overrides) if args.explain else ():
                console.line(line)

            from charrnn.cli.train_progress import print_result, resume_command, run_with_progress

            finished = run_with_progress(trainer, run, checkpointer, signals, console)
            corpus_args = [f"--{name}={value}" for name, value in corpus_spec.corpus_args if value]
            print_result(finished, path, resume_command(args.corpus, path, corpus_args), console)
        finally:
            lock.release()
    write_stdout(f"{path}\n")
    if signals.received:
        raise typer.Exit(128 + signals.received)
