"""The options that commands share: one name, one meaning, one help text each.

Options of a setting default to None, which leaves the setting to its default in ``config.py`` or, in ``train``, to
the plan. `flag` gives back the option that sets a field.
"""

from typing import Annotated, Any

import typer

WITHOUT_OPTION = {"warmup", "weight_decay", "evaluations"}  # settings of a run that follow from the others
_FLAGS = {"temperature": "--temp", "learning_rate": "--lr"}


def flag(field: str) -> str:
    """The option that sets a field of ``config.py``."""
    return _FLAGS.get(field, "--" + field.replace("_", "-"))


def given(**options: Any) -> dict[str, Any]:
    """The options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


NEWEST = "A path, or a name in ./checkpoints; the newest there if left out."

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A path, or a name in ./checkpoints.", show_default=False)
]
ModelOrNewest = Annotated[str | None, typer.Argument(metavar="MODEL", help=NEWEST, show_default=False)]
LinesFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A file of lines; stdin if left out, or -.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing on stderr but errors.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for a program.")]
Force = Annotated[bool, typer.Option("-f", "--force", help="Replace what exists.")]
Unknown = Annotated[
    str | None,
    typer.Option("--unknown", metavar="error|skip", help="Characters the model never saw.  [default: error]"),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="What computes.  [default: auto]")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="CPU threads.  [default: the fastest]"),
]
