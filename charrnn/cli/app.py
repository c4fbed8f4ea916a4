"""The Typer application: its commands and its exit codes.

Exit codes: 0 success (also if the reader of stdout goes away), 1 an expected failure, 2 wrong usage, 130 interrupted,
143 terminated. An error is one line on stderr: ``charrnn: SUBJECT: reason; what to do``.
"""

import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from types import FrameType
from typing import Annotated, Any

import typer

from charrnn.cli import bench, classify, corpus, eval, info, log, options, sample, score, train
from charrnn.cli.console import StdoutClosed, discard_unflushed, print_error
from charrnn.cli.help_format import HelpCommand, HelpGroup
from charrnn.errors import CacheWarning, CharrnnError, SettingError, shortage
from charrnn.version import __version__


class ExitCode(IntEnum):
    """Exit codes of the process."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130
    TERMINATED = 143


SHORTAGES = {  # what has run out, and what to do
    "memory": "not enough is available; reduce the size of the network, the batch or the text",
    "threads": "no more can be started; reduce --threads, or raise the limit on processes or memory (ulimit)",
    "open files": "no more can be opened; raise the limit (ulimit -n)",
}

EXAMPLES = """
charrnn train book.txt                  # train on a text, about five minutes
charrnn sample --temp 0.8               # write 1,000 characters with the newest model
charrnn corpus list                     # texts to start with
"""

app = typer.Typer(
    help="Train a small recurrent network on a text, and write new text in its style.",
    cls=HelpGroup,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _name, _function, _module in (
    ("train", train.train, train),
    ("sample", sample.sample, sample),
    ("eval", eval.evaluate, eval),
    ("score", score.score, score),
    ("classify", classify.classify, classify),
    ("info", info.info, info),
    ("log", log.log, log),
    ("bench", bench.bench, bench),
):
    app.command(_name, cls=HelpCommand, epilog=_module.EXAMPLES)(_function)
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
    if sys.stdout is None:  # it was closed when Python started
        print_error("stdout: is closed; redirect it to a file or a pipe")
        return ExitCode.FAILED
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # as in write_stdout
    try:
        with _signals(), _warnings():
            return _run(argv)
    except KeyboardInterrupt:  # while the command was ending
        return ExitCode.INTERRUPTED
    finally:
        discard_unflushed()


def _run(argv: Sequence[str] | None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        result = _command()(arguments, prog_name="charrnn", standalone_mode=False)
    except typer.TyperException as error:
        print_error(f"{_usage_message(error)}; see {_command_path(arguments)} --help")
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
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        if short := shortage(error):
            print_error(f"{short}: {SHORTAGES[short]}")
        elif isinstance(error, OSError):
            reason = (error.strerror or str(error)).lower()
            print_error(f"{error.filename or 'system'}: {reason}; fix this and try again")
        else:
            raise
        return ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.DONE


@cache
def _command() -> Any:
    """Return the Click command of `app`. It is built only once, because this takes longer than many commands."""
    return typer.main.get_command(app)


def _usage_message(error: typer.TyperException) -> str:
    """Return what is wrong with a command line, in the style of charrnn's other messages."""
    option, param = getattr(error, "option_name", None), getattr(error, "param", None)
    message = error.format_message().rstrip(".?")
    if hasattr(error, "possibilities"):
        closest = (error.possibilities or ())[:1]
        return f"{option}: no such option" + "".join(f" (did you mean {name}?)" for name in closest)
    if option is not None:
        return f"{option}: " + ("a value is missing" if "requires an argument" in message else "takes no value")
    if param is not None:
        name = param.opts[-1] if param.param_type_name == "option" else param.metavar
        return f"{name}: " + ("is missing" if message.startswith("Missing") else error.message)
    if found := re.fullmatch(r"No such command '(.*?)'(?:\. Did you mean '(.*?)'.*)?", message):
        return f"{found[1]}: no such command" + (f" (did you mean {found[2]}?)" if found[2] else "")
    return message[:1].lower() + message[1:]


def _command_path(arguments: Sequence[str]) -> str:
    """Return the command of a command line: ``charrnn``, ``charrnn train`` or ``charrnn corpus get``."""
    names = {command.name for command in app.registered_commands} | {"corpus"}
    path = ["charrnn", *arguments[:1]] if arguments and arguments[0] in names else ["charrnn"]
    if path[1:] == ["corpus"] and arguments[1:2] and arguments[1] in ("list", "get", "check"):
        path.append(arguments[1])
    return " ".join(path)


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise an exception. Ignored signals, such as SIGINT after `&`, stay ignored."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    previous = {number: handler for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in previous:
            signal.signal(number, _handle_signal)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _handle_signal(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt or SystemExit. Exit at once during an import, where an exception could be lost."""
    caller = frame
    while caller is not None:
        if caller.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(128 + number)
        caller = caller.f_back
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


@contextmanager
def _warnings() -> Iterator[None]:
    """Print each `CacheWarning` as one line, and ignore all other warnings, even if PYTHONWARNINGS enables them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", CacheWarning)
        warnings.showwarning = lambda message, *_, **__: print_error(str(message))
        yield
