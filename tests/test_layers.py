"""Rules for layers and modules: imports go down only, and only some modules import torch or print."""

import ast
import re
from pathlib import Path

import pytest

import charrnn

ROOT = Path(charrnn.__file__).parent
LAYERS = [
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


def layer_of(module: str) -> int:
    return next(number for number, modules in enumerate(LAYERS) if module in modules)


def imported(path: Path, *, top_level: bool = False) -> set[str]:
    """Return the modules that a file imports, without "charrnn", which only contains the version."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    modules = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules - {"charrnn"}


def top_level_modules(path: Path) -> set[str]:
    """Return the top-level modules and packages of charrnn that a file imports."""
    names = {name.split(".")[1] for name in imported(path) if name.startswith("charrnn.")}
    return {name for name in names if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down_only(path: Path) -> None:
    module = path.parts[0].removesuffix(".py")
    for other in top_level_modules(path) - {module}:
        in_top_layer = layer_of(other) == layer_of(module) == len(LAYERS) - 1
        assert layer_of(other) < layer_of(module) or in_top_layer, other


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] in {"data", "generation"}], ids=str)
def test_data_and_generation_do_not_import_torch(path: Path) -> None:
    assert not {"charrnn.rnn.torch_rnn", "charrnn.rnn.layers", "charrnn.rnn.recurrence", "torch"} & imported(path)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_three_packages_import_torch(path: Path) -> None:
    if any(name.split(".")[0] == "torch" for name in imported(path)):
        assert path.parts[0] in {"rnn", "training", "evaluation"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_console_module_prints(path: Path) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    if path != Path("cli/console.py"):
        assert not re.search(r"\bprint\(|sys\.stderr|stdout\.write", source)
        assert "tqdm" not in imported(path)
    assert not re.search(r"import pickle|torch\.load|except Exception|except:", source)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_function_has_at_most_six_parameters(path: Path) -> None:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            names = [parameter.arg for parameter in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if "ctx" not in names:  # torch passes each tensor to an autograd function separately
                assert len([name for name in names if name not in ("self", "cls")]) <= 6, node.name


def test_the_changelog_starts_with_this_version() -> None:
    changelog = (ROOT.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", changelog, flags=re.MULTILINE)
    assert next(version for version in versions if version != "Unreleased") == charrnn.__version__
