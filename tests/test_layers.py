"""The rules of the house: imports go down only, and each floor stays what it is."""

import ast
import re
from pathlib import Path

import pytest

import charrnn

ROOT = Path(charrnn.__file__).parent
FLOORS = [
    {"errors", "suggestions", "units", "version"},
    {"charset", "io"},
    {"config"},
    {"data"},
    {"checkpoint"},
    {"rnn"},
    {"generation", "evaluation"},
    {"training"},
    {"cli", "api", "__init__", "__main__"},
]
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def floor_of(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def imported(path: Path, *, top_level: bool = False) -> set[str]:
    """Modules that a file imports, "charrnn" itself left out (it only carries the version)."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found - {"charrnn"}


def rooms(path: Path) -> set[str]:
    """The rooms of the house that a file imports."""
    parts = {name.split(".")[1] for name in imported(path) if name.startswith("charrnn.")}
    return {room for room in parts if (ROOT / room).is_dir() or (ROOT / f"{room}.py").is_file()}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down_only(path: Path) -> None:
    own = path.parts[0].removesuffix(".py")
    for room in rooms(path) - {own}:
        assert floor_of(room) < floor_of(own) or floor_of(room) == floor_of(own) == len(FLOORS) - 1, room


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] in {"data", "generation"}], ids=str)
def test_data_and_generation_never_import_torch(path: Path) -> None:
    assert not {"charrnn.rnn.torch_rnn", "charrnn.rnn.layers", "charrnn.rnn.recurrence", "torch"} & imported(path)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_torch_is_known_on_three_floors_only(path: Path) -> None:
    if any(name.split(".")[0] == "torch" for name in imported(path)):
        assert path.parts[0] in {"rnn", "training", "evaluation"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_console_talks(path: Path) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    if path != Path("cli/console.py"):
        assert not re.search(r"\bprint\(|sys\.stderr|stdout\.write", source)
        assert "tqdm" not in imported(path)
    assert not re.search(r"import pickle|torch\.load|except Exception|except:", source)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_says_what_it_does(path: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_function_with_many_parameters_takes_an_object(path: Path) -> None:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if "ctx" not in names:  # torch calls the methods of an autograd function with each tensor by itself
                assert len([name for name in names if name not in ("self", "cls")]) <= 6, node.name


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", changelog, flags=re.MULTILINE)
    assert next(version for version in versions if version != "Unreleased") == charrnn.__version__
