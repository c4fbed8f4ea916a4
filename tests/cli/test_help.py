"""Help pages: groups of options, examples, and plain words for types and wrong values."""

import re
from collections.abc import Iterator

import pytest
import typer.main

from charrnn.cli.app import app
from tests.conftest import Charrnn, one_line


def commands() -> Iterator[str]:
    """Yield every command, such as "corpus get"; the program itself is an empty string."""

    def walk(command: object, path: tuple[str, ...]) -> Iterator[str]:
        yield " ".join(path)
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*path, name))

    return walk(typer.main.get_command(app), ())


def help_page(charrnn: Charrnn, command: str) -> str:
    result = charrnn(*command.split(), "--help")
    assert result.returncode == 0
    return result.stdout.decode()


def sections(page: str) -> dict[str, str]:
    """Return the sections of a help page by their headings."""
    parts = re.split(r"^(\w[\w ]*):\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("command", [*commands()])
def test_every_page_ends_with_examples(charrnn: Charrnn, command: str) -> None:
    page = help_page(charrnn, command)
    assert [*sections(page)][-1] == "Examples"
    assert 2 <= len(sections(page)["Examples"].strip().splitlines()) <= 4
    assert command in sections(page)["Examples"]


@pytest.mark.parametrize("command", [*commands()])
def test_no_page_shows_python_types_or_markup(charrnn: Charrnn, command: str) -> None:
    assert not re.search(r"``|<\w+(\[\w+\])?>", help_page(charrnn, command))


def test_the_options_of_train_are_grouped(charrnn: Charrnn) -> None:
    page = sections(help_page(charrnn, "train"))
    assert [*page] == ["Arguments", "Basics", "Text", "Network", "Training", "Machine", "Examples"]
    for group, option in [
        ("Basics", "--minutes"), ("Text", "--encoding"), ("Network", "--hidden"), ("Training", "--lr"),
        ("Machine", "--threads"),
    ]:  # fmt: skip
        assert re.search(rf"^  {option} ", page[group], flags=re.MULTILINE), option


def test_a_page_with_few_options_has_a_single_group(charrnn: Charrnn) -> None:
    assert [*sections(help_page(charrnn, "log"))] == ["Arguments", "Options", "Examples"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train x --minutes five", "--minutes: invalid value five; give a number above 0"),
        ("train x --hidden 2.5", "--hidden: invalid value 2.5; give an integer, 1 or more"),
        ("sample --temp warm", "--temp: invalid value warm; give a number such as 0.8, or two such as 0.6:1.1"),
        ("score x --threshold high", "--threshold: invalid value high; give a number"),
        ("sample --stop", "--stop: a value is missing; see charrnn sample --help"),
        ("sample --echo=yes", "--echo: takes no value; see charrnn sample --help"),
        ("train", "CORPUS: is missing; see charrnn train --help"),
        ("classify", "--model: is missing; see charrnn classify --help"),
        ("corpus get", "NAME: is missing; see charrnn corpus get --help"),
    ],
)
def test_a_wrong_command_line_is_explained_in_plain_words(charrnn: Charrnn, command: str, message: str) -> None:
    result = charrnn(*command.split())
    assert result.returncode == 2
    assert one_line(result) == f"charrnn: {message}\n"
