"""Help pages with options in groups and examples at the end.

A group of one option is merged into the first group.
"""

from collections import Counter
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

GROUPS = (  # groups of options, in the order of the help page
    "Prompt",
    "Choice of characters",
    "End of a sample",
    "Several samples",
    "Output",
    "Text",
    "Network",
    "Training",
    "Machine",
)


class HelpCommand(TyperCommand):
    """A command with a help page that shows its options in groups and its epilog as it is."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the name of the command: ``[OPTIONS] CORPUS...``."""
        return ["[OPTIONS]", *(_usage_name(param) for param in self.params if isinstance(param, TyperArgument))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the groups of options."""
        arguments = [param for param in self.params if isinstance(param, TyperArgument)]
        options = [param for param in self.get_params(ctx) if not isinstance(param, TyperArgument)]
        sizes = Counter(getattr(option, "rich_help_panel", None) for option in options)
        groups: dict[str | None, list[tuple[str, str]]] = {name: [] for name in (None, *GROUPS)}
        for option in options:
            group = getattr(option, "rich_help_panel", None)
            if record := option.get_help_record(ctx):
                groups[group if sizes[group] > 1 else None].append(record)
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl([(_usage_name(param).strip("[]"), param.help or "") for param in arguments])
        for name, records in groups.items():
            if records:
                with formatter.section(name or ("Basics" if len(records) < len(options) else "Options")):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one per line."""
        _write_examples(self.epilog, formatter)


class HelpGroup(TyperGroup):
    """A group of commands with a help page that shows its epilog as it is."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one per line."""
        _write_examples(self.epilog, formatter)


def _usage_name(param: TyperArgument) -> str:
    name = (param.metavar or str(param.name).upper()) + ("..." if param.nargs != 1 else "")
    return name if param.required else f"[{name}]"


def _write_examples(examples: str | None, formatter: Any) -> None:
    if examples:
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in examples.strip().splitlines()))
