"""The Typer application: its commands and its exit codes.

Exit codes: 0 success (also if the reader of stdout goes away), 1 an expected failure, 2 wrong usage, 130 interrupted,
143 terminated. An error is one line on stderr: ``charrnn: SUBJECT: reason; what to do``.
"""

import signal
import sys
from collections.abc import Sequence
from enum import IntEnum
from types import FrameType
from typing import Annotated

import typer

from charrnn.cli import bench, classify, corpus, eval, info, log, options, sample, score, train
from charrnn.cli.console import StdoutClosed, discard_unflushed, print_error
from charrnn.errors import CharrnnError, SettingError, is_out_of_memory
from charrnn.version import __version__


class ExitCode(IntEnum):
    """Exit codes of the process."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130
    TERMINATED = 143


app = typer.Typer(
    help="Train a small recurrent network on a text, and write new text in its style.",
    epilog="Start with: charrnn train TEXT.txt, then: charrnn sample --temp 0.8",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("sample")(sample.sample)
app.command("eval")(eval.evaluate)
app.command("score")(score.score)
app.command("classify")(classify.classify)
app.command("info")(info.info)
app.command("log")(log.log)
app.command("bench")(bench.bench)
app.add_typer(corpus.app, name="corpus")


def _version(is_set: bool) -> None:
    if is_set:
        typer.echo(f"charrnn {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _charrnn(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train a small recurrent network on a text, and write new text in its style."""
    if context.invoked_subcommand is None:  # a first-time user needs the full help, not an error
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(ExitCode.USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    An exception that leaves this function is a bug in charrnn.
    """
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _terminate)
    if sys.stdout is None:  # it was closed when Python started
        print_error("stdout: is closed; redirect it to a file or a pipe")
        return ExitCode.FAILED
    try:
        return _run(argv)
    finally:
        discard_unflushed()


def _run(argv: Sequence[str] | None) -> int:
    try:
        result = app(sys.argv[1:] if argv is None else list(argv), prog_name="charrnn", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "charrnn"
        reason = error.format_message().rstrip(".")
        print_error(f"{reason}; see {command} --help")
        return error.exit_code
    except SettingError as error:
        print_error(f"{options.flag(error.subject)}: {error.reason}; {error.advice}")
        return ExitCode.USAGE
    except CharrnnError as error:
        print_error(str(error))
        return ExitCode.FAILED
    except StdoutClosed:
        return ExitCode.DONE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as error:  # from _terminate or from Typer
        reader_closed = isinstance(error.__context__, BrokenPipeError)  # while Typer was printing help
        return ExitCode.DONE if reader_closed or not isinstance(error.code, int) else error.code
    except OSError as error:
        print_error(f"{error.filename or 'system'}: {(error.strerror or str(error)).lower()}; fix this and try again")
        return ExitCode.FAILED
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print_error("memory: there is not enough; reduce --batch-size, --hidden or the size of the text")
        return ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.DONE


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(ExitCode.TERMINATED)
