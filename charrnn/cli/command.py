"""From a frozen dataclass to the options of a command, and from their values to the dataclass.

An option is made of each field: of a setting as ``config/`` declares it, of others as their annotation says. A
field that is a dataclass stands for all of its settings. Fields of the same name share one option: the first of them
describes it, and all get its value.
"""

import inspect
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from charrnn.cli.options import flags_of
from charrnn.config.checks import OneOf
from charrnn.config.settings import Option, Setting, check, declaration, get_setting

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


class Only:
    """Marks a dataclass field: the command has options for these of its settings only."""

    def __init__(self, *names: str) -> None:
        self.names = names


def command(function: Callable[[Options], None]) -> Callable[..., None]:
    """Give a function of one dataclass the signature from which Typer makes its options."""
    (options,) = (hint for name, hint in get_type_hints(function).items() if name != "return")
    parameters: dict[str, inspect.Parameter] = {}
    for parameter in _parameters(options):
        parameters.setdefault(parameter.name, parameter)

    @wraps(function)
    def run(**values: Any) -> None:
        filled = _filled(options, values)
        check(filled)
        function(filled)

    run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return run


def _parameters(
    options: "type[DataclassInstance]", names: Container[str] | None = None
) -> Iterator[inspect.Parameter]:
    """Yield a parameter for each option of a dataclass, of the fields with these names or of all."""
    hints = get_type_hints(options, include_extras=True)
    for field in fields(options):
        hint, setting = hints[field.name], get_setting(field)
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if is_dataclass(kind):
            assert isinstance(kind, type)
            chosen = next((mark.names for mark in marks if isinstance(mark, Only)), None)
            yield from _parameters(kind, chosen)
        elif names is not None and field.name not in names:
            continue
        elif setting is None:
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        elif setting.option is not None:
            default, kind = _option(field, setting, setting.option), _option_type(kind, setting.option)
            yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _option_type(kind: Any, option: Option) -> Any:
    """Return the type that Typer reads: that of the setting, with choices as strings, which are checked later."""
    if option.type is not None:
        kind = option.type
    elif get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        kind = str
    return kind | None


def _option(field: Field[Any], setting: Setting, option: Option) -> Any:
    """Return the option of a setting as Typer describes one; it has no value unless one is given."""
    default, default_text = declaration(field).default, option.default_text
    if default_text is None and default is not None and not isinstance(default, bool):
        default_text = f"{default:g}" if isinstance(default, float) else str(default)
    help = option.help + (f"  [default: {default_text.format(default=default)}]" if default_text else "")
    metavar = option.metavar or "|".join(setting.check.choices if isinstance(setting.check, OneOf) else ()) or None
    return typer.Option(None, *flags_of(field.name, setting), metavar=metavar, help=help)


def _filled(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Create a dataclass, and those within, of the values of options; what was not given has its default."""
    hints, arguments = get_type_hints(options), dict[str, Any]()
    for field in fields(options):
        kind, value, setting = hints[field.name], values.get(field.name), get_setting(field)
        if is_dataclass(kind):
            assert isinstance(kind, type)
            arguments[field.name] = _filled(kind, values)
        elif value is not None:
            parse = setting.option.parse if setting is not None and setting.option is not None else None
            arguments[field.name] = value if parse is None else parse(value)
    return options(**arguments)
