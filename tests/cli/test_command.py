"""Options that are made from dataclasses: what they are called, what they say, and what becomes of their values."""

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


def called(**values: Any) -> Outer:
    """What a command receives when Typer passes it these values."""
    seen: list[Outer] = []

    @command
    def run(args: Outer) -> None:
        seen.append(args)

    run(**values)
    return seen[0]


def test_options_that_are_not_given_leave_their_settings_alone() -> None:
    assert called(name="a", size=None, kind=None) == Outer(name="a", inner=Inner())


def test_fields_of_the_same_name_get_the_value_of_one_option() -> None:
    assert called(name="a", size=5, kind=None) == Outer(name="a", inner=Inner(size=5), size=5)


def test_a_value_is_checked_before_the_command_begins() -> None:
    @command
    def never(args: Outer) -> None:
        raise AssertionError

    with pytest.raises(SettingError, match="size: invalid value 0; give an integer, 1 or more"):
        never(name="a", size=0)


def test_an_option_has_the_flags_the_help_and_the_default_of_its_setting() -> None:
    @command
    def run(args: Outer) -> None: ...

    parameters = inspect.signature(run).parameters
    assert [*parameters] == ["name", "size", "kind"]  # and none of a setting without an option
    size, kind = parameters["size"].default, parameters["kind"].default
    assert (size.param_decls, size.metavar, size.help) == (("-s", "--size"), "N", "How large.  [default: 3]")
    assert kind.help == "Which.  [default: the plain one]"
    assert parameters["size"].annotation == str | None  # parsed by charrnn, not by Typer


def test_a_command_may_have_options_of_some_settings_only() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Few:
        inner: Annotated[Inner, Only("kind")]

    def few(args: Any) -> None: ...

    few.__annotations__["args"] = Few
    assert [*inspect.signature(command(few)).parameters] == ["kind"]


def test_every_setting_with_an_option_is_an_option_of_train_and_sample() -> None:
    for function, config in ((train.train, Overrides), (sample.sample, SampleConfig)):
        expected = {field.name for field in fields(config) if (found := get_setting(field)) and found.option}
        assert expected <= inspect.signature(function).parameters.keys()


@pytest.mark.parametrize("function", [train.train, eval.evaluate, bench.bench])
def test_a_setting_is_told_in_the_same_words_by_every_command(function: Callable[..., None]) -> None:
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


def test_settings_that_follow_from_others_have_no_option() -> None:
    settings = {field.name for field in fields(TrainConfig)}
    assert {name for name in settings if not options.has_option(name)} == {"warmup", "weight_decay", "evaluations"}


def test_the_first_of_the_fields_with_the_same_name_describes_their_option() -> None:
    @dataclass(frozen=True, kw_only=True)
    class First:
        size: Annotated[int | None, typer.Option("--size", help="In turn.")] = None
        inner: Inner

    def run(args: Any) -> None: ...

    run.__annotations__["args"] = First
    parameters = inspect.signature(command(run)).parameters
    assert [*parameters] == ["size", "kind"]
    assert parameters["size"].annotation.__metadata__[0].help == "In turn."
