"""How settings are declared: a setting is a dataclass field with its default, check, option and help text.

    @dataclass(frozen=True, kw_only=True)
    class Config:
        layers: int = setting(2, Integer(1), Option("Number of stacked layers.", "N"))

        def __post_init__(self) -> None:
            check(self)

The command line option and the Python keyword of a setting are made from this declaration.
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
    metavar: str | None = None  # placeholder of the value in the help text; None lists the choices
    flags: tuple[str, ...] = ()  # () derives the flag from the name of the setting
    default_text: str | None = None  # default in the help text; None shows the value, "" shows nothing
    type: Any = None  # type of the option, if it differs from the type of the setting
    parse: Callable[[Any], Any] | None = None  # converts a value of that type to the setting
    group: str | None = None  # heading in the help text; None is the first one


@dataclass(frozen=True)
class Setting:
    """The check and the option of a setting."""

    check: Check | None
    option: Option | None


def setting(default: T, check: Check | None = None, option: Option | None = None) -> T:
    """Declare a setting, as a dataclass field.

    Args:
        default: Default value.
        check: Raises SettingError for a wrong value.
        option: The command line option, if there is one.
    """
    declared: T = field(default=default, metadata={"setting": Setting(check, option)})
    return declared


def checked(check: Check) -> Any:
    """Declare a dataclass field with a check and without a default, for the contents of a file."""
    return field(metadata={"setting": Setting(check, None)})


def override(config: type["DataclassInstance"]) -> Any:
    """Declare an optional field for the setting of the same name in another dataclass. None means not set."""
    return field(default=None, metadata={"overrides": config})


def declaration(declared: Field[Any]) -> Field[Any]:
    """Return the field that declares a setting: the field itself, or the field that it overrides."""
    overridden = declared.metadata.get("overrides")
    return declared if overridden is None else overridden.__dataclass_fields__[declared.name]


def get_setting(declared: Field[Any]) -> Setting | None:
    """Return the setting that a dataclass field declares or overrides."""
    return declaration(declared).metadata.get("setting")


def check(config: "DataclassInstance") -> None:
    """Check every setting of a dataclass. None passes if it is the default.

    Raises:
        SettingError: If a value is wrong.
    """
    for declared in fields(config):
        found, value = get_setting(declared), getattr(config, declared.name)
        if found is not None and found.check is not None and not (value is None and declared.default is None):
            found.check(declared.name, value)
