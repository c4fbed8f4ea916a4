"""The program: its list of commands, and the one function that turns whatever happens into an exit code.

Exit codes: 0 done (also when the reader of stdout went away), 1 an expected failure, 2 wrong usage, 130 interrupted,
143 terminated. An error is one line on stderr, ``charrnn: WHAT: reason; what to do``.
"""

import re
import signal
import sys
from collections.abc import Sequence
from enum import IntEnum
from types import FrameType
from typing import Annotated

import typer

from charrnn.cli import bench, classify, corpus, eval, info, log, options, sample, score, train
from charrnn.cli.console import StdoutClosed, discard_unflushed, print_error
from charrnn.cli.help_format import HelpCommand, HelpGroup
from charrnn.errors import CharrnnError, SettingError, is_out_of_memory
from charrnn.version import __version__


class ExitCode(IntEnum):
    """What the shell is told."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130
    TERMINATED = 143


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


def _version(wanted: bool) -> None:
    if wanted:
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
    if context.invoked_subcommand is None:  # somebody's first try, who is better served by all of it than by one line
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(ExitCode.USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code; nothing but a defect of ours leaves as an exception."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _terminate)
    if sys.stdout is None:  # how Python says that it was closed before we began
        print_error("stdout: is closed; redirect it to a file or a pipe")
        return ExitCode.FAILED
    try:
        return _run(argv)
    finally:
        discard_unflushed()


def _run(argv: Sequence[str] | None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        result = app(arguments, prog_name="charrnn", standalone_mode=False)
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
    except SystemExit as end:  # ours when terminated, or Typer's own
        gone = isinstance(end.__context__, BrokenPipeError)  # the reader of a help text
        return ExitCode.DONE if gone or not isinstance(end.code, int) else end.code
    except OSError as error:
        print_error(f"{error.filename or 'system'}: {(error.strerror or str(error)).lower()}; nothing more was done")
        return ExitCode.FAILED
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print_error("memory: there is not enough of it; give a smaller text, --batch-size or --hidden")
        return ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.DONE


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


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    sys.exit(ExitCode.TERMINATED)
