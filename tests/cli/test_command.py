"""Options that are made from dataclasses: names, help texts and values."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any

import pytest
import typer

from charrnn.cli import bench, eval, options, sample, train
from charrnn.cli.command import Only, command
from charrnn.config import SampleConfig, TrainConfig
from charrnn.config.checks import Integer
from charrnn.config.overrides import Overrides
from charrnn.config.settings import Option, get_setting, override, setting
from charrnn.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = setting(3, Integer(1), Option("How large.", "N", flags=("-s", "--size")))
    kind: str = setting("plain", option=Option("Which.", "KIND", default_text="the plain one"))
    hidden_away: int = setting(1)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: Annotated[str, typer.Argument(metavar="NAME")]
    inner: Inner
    size: int | None = override(Inner)


def received_object(**values: Any) -> Outer:
    """Return the object that a command receives if Typer passes these values."""
    received: list[Outer] = []

    @command
    def run(args: Outer) -> None:
        received.append(args)

    run(**values)
    return received[0]


def test_omitted_options_leave_the_defaults() -> None:
    assert received_object(name="a", size=None, kind=None) == Outer(name="a", inner=Inner())


def test_fields_of_the_same_name_share_one_option() -> None:
    assert received_object(name="a", size=5, kind=None) == Outer(name="a", inner=Inner(size=5), size=5)


def test_a_value_is_checked_before_the_command_starts() -> None:
    @command
    def never(args: Outer) -> None:
        raise AssertionError

    with pytest.raises(SettingError, match="size: invalid value 0; give an integer, 1 or more"):
        never(name="a", size=0)


def test_an_option_has_the_flags_help_and_default_of_the_setting() -> None:
    @command
    def run(args: Outer) -> None: ...

    parameters = inspect.signature(run).parameters
    assert [*parameters] == ["name", "size", "kind"]  # hidden_away has no option
    size, kind = parameters["size"].default, parameters["kind"].default
    assert (size.param_decls, size.metavar, size.help) == (("-s", "--size"), "N", "How large.  [default: 3]")
    assert kind.help == "Which.  [default: the plain one]"
    assert parameters["size"].annotation == str | None  # parsed by charrnn, not by Typer


def test_a_command_can_have_options_for_selected_settings() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Few:
        inner: Annotated[Inner, Only("kind")]

    def few(args: Any) -> None: ...

    few.__annotations__["args"] = Few
    assert [*inspect.signature(command(few)).parameters] == ["kind"]


def test_train_and_sample_have_every_option_of_the_settings() -> None:
    for function, config in ((train.train, Overrides), (sample.sample, SampleConfig)):
        expected = {field.name for field in fields(config) if (info := get_setting(field)) and info.option}
        assert expected <= inspect.signature(function).parameters.keys()


@pytest.mark.parametrize("function", [train.train, eval.evaluate, bench.bench])
def test_every_command_describes_a_setting_in_the_same_words(function: Callable[..., None]) -> None:
    parameters, reference = inspect.signature(function).parameters, inspect.signature(train.train).parameters
    for name in options.MACHINE_SETTINGS:
        assert parameters[name].default.help == reference[name].default.help
        assert parameters[name].default.help.endswith(f"[default: {'auto' if name == 'device' else 'the fastest'}]")


@pytest.mark.parametrize(
    ("field", "flag"),
    [("learning_rate", "--lr"), ("temperature", "--temp"), ("from_model", "--from"), ("batch_size", "--batch-size"),
     ("keep_stop", "--keep-stop"), ("documents", "--documents"), ("out", "--out")],
)  # fmt: skip
def test_a_field_is_named_by_its_option(field: str, flag: str) -> None:
    assert options.flag(field) == flag


def test_derived_settings_have_no_option() -> None:
    settings = {field.name for field in fields(TrainConfig)}
    assert {name for name in settings if not options.has_option(name)} == {"warmup", "weight_decay", "evaluations"}


def test_the_first_field_of_a_name_describes_the_option() -> None:
    @dataclass(frozen=True, kw_only=True)
    class First:
        size: Annotated[int | None, typer.Option("--size", help="In turn.")] = None
        inner: Inner

    def run(args: Any) -> None: ...

    run.__annotations__["args"] = First
    parameters = inspect.signature(command(run)).parameters
    assert [*parameters] == ["size", "kind"]
    assert parameters["size"].annotation.__metadata__[0].help == "In turn."
