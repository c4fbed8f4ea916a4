"""How a setting is declared: its default, check, option and help text are metadata of a dataclass field.

    @dataclass(frozen=True, kw_only=True)
    class Config:
        layers: int = setting(2, Integer(1), Option("Stacked layers of cells.", "N"))

        def __post_init__(self) -> None:
            check(self)

A command line option and a Python keyword are made from the same declaration. Knows no particular setting.
"""

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from charrnn.config.checks import Check

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """The command line option of a setting."""

    help: str
    metavar: str | None = None  # what the help text calls the value; None lists the choices, if there are any
    flags: tuple[str, ...] = ()  # () makes one from the name
    default_text: str | None = (
        None  # what the help text calls the default; None shows the default itself, "" shows none
    )
    type: Any = None  # where it differs from that of the setting
    parse: Callable[[Any], Any] | None = None  # makes the setting from a value of that type


@dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its name, type and default."""

    check: Check | None
    option: Option | None


def setting(default: T, check: Check | None = None, option: Option | None = None) -> T:
    """Declare a setting, as a dataclass field.

    Args:
        default: the value, unless one is given.
        check: raises an error for a wrong value.
        option: that of the command line, if there is one.
    """
    made: T = field(default=default, metadata={"setting": Setting(check, option)})
    return made


def override(config: type["DataclassInstance"]) -> Any:
    """Declare an optional field for the setting of the same name in another dataclass; None leaves it as it is."""
    return field(default=None, metadata={"overrides": config})


def declaration(declared: Field[Any]) -> Field[Any]:
    """The field itself, or the one that it overrides."""
    overridden = declared.metadata.get("overrides")
    return declared if overridden is None else overridden.__dataclass_fields__[declared.name]


def get_setting(declared: Field[Any]) -> Setting | None:
    """The setting that a dataclass field declares or overrides."""
    return declaration(declared).metadata.get("setting")


def check(config: "DataclassInstance") -> None:
    """Check every setting of a dataclass; None passes where it is the default.

    Raises:
        SettingError: a wrong value.
    """
    for declared in fields(config):
        found, value = get_setting(declared), getattr(config, declared.name)
        if found is not None and found.check is not None and not (value is None and declared.default is None):
            found.check(declared.name, value)
