"""Options that several commands share, and the option of a setting."""

from typing import TYPE_CHECKING, Annotated

import typer

from charrnn.config import ModelConfig, ReadConfig, SampleConfig, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.config.settings import Setting, get_setting

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TEXT_SETTINGS = ("unit", "encoding", "newlines", "normalize", "min_count")
MACHINE_SETTINGS = ("device", "threads")

NEWEST = "A path, or a name in ./checkpoints.  [default: the newest model there]"

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A path, or a name in ./checkpoints.", show_default=False)
]
ModelOrNewest = Annotated[str | None, typer.Argument(metavar="MODEL", help=NEWEST, show_default=False)]
LinesFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A file with lines, or - for stdin.  [default: -]", show_default=False)
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print no messages except errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[bool, typer.Option("-f", "--force", help="Replace existing files.")]


def flag(name: str) -> str:
    """Return the option of a setting, such as ``--lr`` for ``learning_rate``."""
    configs: tuple[type[DataclassInstance], ...] = (ReadConfig, ModelConfig, TrainConfig, SampleConfig, Overrides)
    for config in configs:
        if name in config.__dataclass_fields__:
            setting = get_setting(config.__dataclass_fields__[name])
            return flags_of(name, setting)[-1]
    return flags_of(name, None)[-1]


def has_option(name: str) -> bool:
    """Return whether ``charrnn train`` has an option for a setting."""
    setting = get_setting(Overrides.__dataclass_fields__[name])
    return setting is not None and setting.option is not None


def flags_of(name: str, setting: Setting | None) -> tuple[str, ...]:
    """Return all flags of the option of a setting."""
    flags = setting.option.flags if setting is not None and setting.option is not None else ()
    return flags or ("--" + name.replace("_", "-"),)
