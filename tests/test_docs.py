"""Every command and every Python block of the README and of ``docs/`` runs, and their lists are up to date."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from charrnn import checkpoint
from tests.conftest import Charrnn, environment, make_checkpoint, within

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))]
BLOCK_LANGUAGES = {"sh", "python", "text", "{include}", "{toctree}", "{eval-rst}"}
MAX_README_BYTES = 9_500
BUDGET = "--steps 3"  # replaces a budget in minutes
SMALL = " --hidden 16 --force --threads 1 --engine torch --precision fp32"
SMALL_KEYWORDS = "steps=3, hidden=16, threads=1, engine='torch', precision='fp32'"
INSTALLING = ("pip install", "git clone", "cd charrnn", "python3 -m venv", "source .venv")
HELLO = "charrnn train corpora/hello.txt", "charrnn sample hello --prompt h --echo --temp 0 -n 4"  # tested separately
RUN_ELSEWHERE = ("pytest", "sphinx-build", *HELLO)  # run by .ci/run, or by another test
OFFLINE = {
    '"$(charrnn corpus get tiny-shakespeare)"': "corpora/tiny-shakespeare.txt",
    '"$(charrnn corpus get names)"': "names.txt",
}  # tests do not use the network


@dataclass(frozen=True)
class Example:
    """A shell command or a Python block of a page."""

    page: str
    line: int
    language: str
    source: str

    def __str__(self) -> str:
        """Return the id of the test."""
        return f"{self.page}:{self.line}" + (f" {self.source}" if self.language == "sh" else "")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> Iterator[tuple[int, str]]:
    """Yield the blocks in a language, each with the number of its first line."""
    text = text_of(page)
    for match in re.finditer(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)) + 1, match[1]


def help_examples(page: str) -> Iterator[tuple[int, str]]:
    """Yield the examples at the end of each help text, each with the number of its first line."""
    for start, block in blocks(page, "text"):
        help_text, heading, lines = block.partition("\nExamples:\n")
        if heading:
            yield start + help_text.count("\n") + 2, lines


def commands(page: str) -> Iterator[Example]:
    """Yield each command of the shell blocks, and of the examples in help texts, without comments."""
    for start, block in [*blocks(page, "sh"), *help_examples(page)]:
        for number, line in enumerate(block.splitlines(), start):
            assert not line.endswith("\\"), f"{page}:{number}: a command stands on one line"
            if command := re.sub(r"(^|\s+)# .*", "", line).strip().replace("tail -f", "cat"):
                yield Example(page, number, "sh", command)


def examples() -> Iterator[Example]:
    """Yield the examples of each page from top to bottom. A command that a page repeats is yielded once."""
    for page in PAGES:
        shell = {example.source: example for example in reversed([*commands(page)])}.values()
        python = [Example(page, start, "python", block) for start, block in blocks(page, "python")]
        yield from sorted([*shell, *python], key=lambda example: example.line)


def shortened(command: str) -> str:
    """Return the command without installation, and with a small network trained for a few steps."""
    command = " && ".join(part for part in command.split(" && ") if not part.startswith(INSTALLING))
    for text, path in OFFLINE.items():
        command = command.replace(text, path)
    command = re.sub(r"--minutes [\d.]+", BUDGET, command)
    if "--resume" in command:  # continues a run of three steps
        return command.replace(BUDGET, "--steps 6")
    if "charrnn train" in command and "hello" not in command:
        options = SMALL if "--steps" in command else f"{SMALL} {BUDGET}"
        command = re.sub(r"(charrnn train (?:\"\$\([^)]*\)\"|\S+))", rf"\1{options}", command)
    return command.replace("charrnn bench", "charrnn bench --hidden 16 --threads 1")


def is_run_here(example: Example) -> bool:
    """Return whether an example runs here. Only the recipes run bench, because it is slow."""
    if example.language == "python":
        return True
    command = shortened(example.source)
    return bool(command) and not command.startswith(
        (*RUN_ELSEWHERE, *["charrnn bench"] * (example.page == "docs/cli.md"))
    )


EXAMPLES = list(filter(is_run_here, examples()))


@pytest.fixture(scope="module")
def directory_of(tmp_path_factory: pytest.TempPathFactory, warm: list[str]) -> Callable[[str], Path]:
    """A function that returns the directory in which the examples of a page run in order."""
    directories: dict[str, Path] = {}

    def find(page: str) -> Path:
        if page not in directories:
            directories[page] = tmp_path_factory.mktemp(Path(page).stem)
            write_inputs(directories[page], warm)
        return directories[page]

    return find


def write_inputs(directory: Path, warm: list[str]) -> None:
    """Write the texts that the pages use, and a program ``charrnn``."""
    sentence = "It was the best of times, it was the worst of times,\n"
    texts = {
        "mine.txt": sentence * 60,
        "book.txt": sentence * 60,
        "other.txt": sentence * 9,
        "names.txt": ("emma olivia ava isabella sophia " * 12 + "\n") * 4,  # few lines: a command runs for each
        "poems/one.txt": "Roses are red,\nviolets are blue.\n" * 9,
        "corpora/hello.txt": (ROOT / "corpora" / "hello.txt").read_text(),
        "corpora/tiny-shakespeare.txt": sentence * 200,
        "app.log": "installed libfoo\n" * 90,
        "new.log": "Segmentation fault\n",
        "english.txt": sentence * 9,
        "german.txt": "Es war die beste Zeit, es war die schlimmste Zeit,\n" * 9,
        "lines.txt": sentence,
    }
    for name, text in texts.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")
    (directory / "old.txt").write_bytes("Я помню чудное мгновенье.\r\n".encode("cp1251") * 9)
    (directory / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2)
    for name in ("app", "english", "german", "web", "db") if directory.name.startswith("cli") else ():
        checkpoint.save(directory / "checkpoints" / f"{name}.safetensors", make_checkpoint())
    program = directory / "bin" / "charrnn"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(warm)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)


def run(command: str, directory: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command in this process, or in a shell if it needs one."""
    if command.startswith("charrnn ") and not re.search(r"[|<>$&;]", command):
        return within(directory)(*shlex.split(command)[1:])
    path = os.pathsep.join([str(directory / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(
        shell, cwd=directory, env=environment(PATH=path), capture_output=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def namespaces() -> dict[str, dict[str, Any]]:
    """The names that the Python blocks of each page have defined so far."""
    return {}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_example_runs(
    example: Example,
    directory_of: Callable[[str], Path],
    namespaces: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run in the order of the page, because later examples need the models of earlier ones."""
    directory = directory_of(example.page)
    if example.language == "python":
        short = re.sub(r"minutes=[\d.]+", SMALL_KEYWORDS, example.source)
        monkeypatch.chdir(directory)
        code = compile("\n" * (example.line - 1) + short, example.page, "exec")  # with the line numbers of the page
        exec(code, namespaces.setdefault(example.page, {}))
    else:
        result = run(shortened(example.source), directory)
        assert result.returncode == 0, result.stderr.decode()
        assert b"Traceback" not in result.stderr


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 60


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_known_language(page: str) -> None:
    """A block in another language, such as ``bash``, would not run."""
    openings = re.findall(r"^```(.*)$", text_of(page), flags=re.MULTILINE)[::2]
    assert {opening.split(" ")[0] for opening in openings} <= BLOCK_LANGUAGES


@pytest.mark.parametrize("budget", ["--steps 40", pytest.param("", id="unchanged", marks=pytest.mark.slow)])
def test_the_tutorial_generates_hello(directory_of: Callable[[str], Path], budget: str) -> None:
    page = "docs/tutorial.md"
    train, sample = HELLO
    assert {train, sample} <= {example.source for example in commands(page)}
    assert run(f"{train} {budget} --force -q", directory_of(page)).stdout == b"checkpoints/hello.safetensors\n"
    assert run(sample, directory_of(page)).stdout == b"hello"


def test_the_readme_shows_both_commands() -> None:
    first = (
        'pip install . && charrnn train "$(charrnn corpus get python-docs)" --minutes 1 && charrnn sample --temp 0.8'
    )
    assert {first, "pip install -e '.[test]' && pytest"} <= {example.source for example in commands("README.md")}


def test_the_readme_is_short() -> None:
    size = len((ROOT / "README.md").read_bytes())
    assert size <= MAX_README_BYTES


def test_the_readme_installs_a_torch_that_charrnn_accepts() -> None:
    """With another version, pip would replace torch with the CUDA build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (required,) = [dependency for dependency in project["dependencies"] if dependency.startswith("torch")]
    (shown,) = re.findall(r"pip install 'torch(<\S+)' --index-url", text_of("README.md"))
    assert required.endswith(f",{shown}")


def test_the_help_in_the_docs_is_up_to_date() -> None:
    up_to_date = text_of("docs/cli.md") == runpy.run_path(str(DOCS / "generate_cli.py"))["render"]()
    assert up_to_date, "docs/cli.md is out of date; run: python docs/generate_cli.py"


def test_every_option_on_the_pages_exists() -> None:
    option = r"(?<![\w-])--[a-z][a-z0-9-]*"
    existing = set(re.findall(option, text_of("docs/cli.md")))
    for page in PAGES:
        prose = "\n".join(line for line in text_of(page).splitlines() if not re.search("pip |sphinx-build", line))
        assert set(re.findall(option, prose)) <= existing, page


def test_the_tree_lists_every_module() -> None:
    (tree,) = [block for _, block in blocks("docs/architecture.md", "text") if "charrnn/" in block]
    listed, directories = set(), list[str]()
    for line in tree.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        directories[len(indent) // 2 :] = [name]
        if name.endswith(".py"):
            listed.add("".join(directories))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "charrnn").rglob("*.py")}
    packages = {module for module in modules - listed if module.endswith("/__init__.py")}
    assert listed == modules - packages | {"cli.py"}


MAPPINGS = {"aliases", "costs", "counts", "encodings", "line_ends", "overrides"}  # their keys are data, not fields


def keys_of(value: Any) -> Iterator[str]:
    """Yield the fields of a JSON value, and those of the objects in it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in MAPPINGS:
                yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


def header_of(path: Path) -> dict[str, Any]:
    """Return the JSON of a container, read as docs/file-formats.md describes it."""
    data = path.read_bytes()
    ((_, contents),) = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"].items()
    return dict(json.loads(contents))


def test_file_formats_lists_every_field(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("It was the best of times,\n" * 60)
    arguments = f"train text.txt --lines --cache cache {SMALL} --steps 3 -q"
    assert charrnn(*arguments.split()).returncode == 0
    assert charrnn("sample", "text", "--save-state", "state", "-n", "1").returncode == 0
    ids = next((tmp_path / "cache").glob("text-*.ids")).read_bytes()
    values = [
        *(header_of(tmp_path / name) for name in ("checkpoints/text.safetensors", "state")),
        header_of(tmp_path / "checkpoints" / "text.training.safetensors"),
        *map(json.loads, (tmp_path / "checkpoints" / "text.jsonl").read_text().splitlines()),
        json.loads(ids[-48 - int.from_bytes(ids[-16:-8], "little") : -48]),
        {"machine": "", "costs": {}},
    ]
    cells = re.findall(r"^\| (`.*?) \|", text_of("docs/file-formats.md"), flags=re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`([a-z][a-z0-9_]*)`", cell)}
    assert set(keys_of(values)) == listed
