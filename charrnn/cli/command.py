"""Converts a frozen dataclass to the options of a command, and the values of the options to the dataclass.

Every field becomes an option. A setting of ``config/`` becomes the option that it declares; any other field is
annotated with a Typer option. A field that is a dataclass stands for all settings of that dataclass. Fields of the
same name share one option: the first field describes it, and all of them get its value.
"""

import inspect
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from charrnn.cli.options import flags_of
from charrnn.config.checks import Integer, OneOf, Range
from charrnn.config.settings import Option, Setting, check, declaration, get_setting

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


class Only:
    """Annotation of a dataclass field: the command has options only for these settings of the dataclass."""

    def __init__(self, *names: str) -> None:
        self.names = names


def command(function: Callable[[Options], None]) -> Callable[..., None]:
    """Convert a function of one dataclass to one with a parameter for each option, as Typer expects."""
    (options,) = (hint for name, hint in get_type_hints(function).items() if name != "return")
    parameters: dict[str, inspect.Parameter] = {}
    for parameter in _parameters(options):
        parameters.setdefault(parameter.name, parameter)

    @wraps(function)
    def run(**values: Any) -> None:
        args = _build(options, values)
        check(args)
        function(args)

    run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return run


def _parameters(
    options: "type[DataclassInstance]", names: Container[str] | None = None
) -> Iterator[inspect.Parameter]:
    """Yield a parameter for each option of a dataclass, or only for the fields with these names."""
    hints = get_type_hints(options, include_extras=True)
    for field in fields(options):
        hint, setting = hints[field.name], get_setting(field)
        kind, *annotations = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if is_dataclass(kind):
            assert isinstance(kind, type)
            chosen = next((item.names for item in annotations if isinstance(item, Only)), None)
            yield from _parameters(kind, chosen)
        elif names is not None and field.name not in names:
            continue
        elif setting is None:
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        elif setting.option is not None:
            default, kind = _option(field, setting, setting.option), _option_type(kind, setting, setting.option)
            yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _option_type(kind: Any, setting: Setting, option: Option) -> Any:
    """Return the type of an option for Typer. Choices and numbers are strings, which charrnn checks and converts."""
    if option.type is not None:
        kind = option.type
    elif get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal or isinstance(setting.check, Integer | Range):
        kind = str
    return kind | None


def _option(field: Field[Any], setting: Setting, option: Option) -> Any:
    """Return the option of a setting for Typer. Its value is None unless the user gives one."""
    default, default_text = declaration(field).default, option.default_text
    if default_text is None and default is not None and not isinstance(default, bool):
        default_text = f"{default:g}" if isinstance(default, float) else str(default)
    help = option.help + (f"  [default: {default_text.format(default=default)}]" if default_text else "")
    metavar = option.metavar or "|".join(setting.check.choices if isinstance(setting.check, OneOf) else ()) or None
    return typer.Option(
        None, *flags_of(field.name, setting), metavar=metavar, help=help, rich_help_panel=option.group
    )


def _build(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Create a dataclass, and the dataclasses in it, from the values of options. Missing values are the defaults."""
    hints, arguments = get_type_hints(options), dict[str, Any]()
    for field in fields(options):
        kind, value, setting = hints[field.name], values.get(field.name), get_setting(field)
        if is_dataclass(kind):
            assert isinstance(kind, type)
            arguments[field.name] = _build(kind, values)
        elif value is not None:
            arguments[field.name] = value if setting is None else _parse(field.name, value, setting)
    return options(**arguments)


def _parse(name: str, value: Any, setting: Setting) -> Any:
    """Return the value of a setting from the value of its option."""
    if setting.option is not None and setting.option.parse is not None:
        return setting.option.parse(value)
    if isinstance(value, str) and isinstance(setting.check, Integer | Range):
        return setting.check.parse(name, value)
    return value
