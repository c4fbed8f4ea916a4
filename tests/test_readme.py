"""Every command of the README does what the README says."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Charrnn, environment, within

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOO_LONG = {"--minutes": ("--steps", "3")}  # a budget may be shortened, nothing else
HELLO = "charrnn train corpora/hello.txt", "charrnn sample hello --prompt h --echo --temp 0 -n 4"  # a test of its own
INSTALLING = ("pip install", "git clone", "cd charrnn")
ELSEWHERE = ("pytest", "ruff", "python benchmarks", *HELLO)  # run by other tests, or by hand
OFFLINE = {"tiny-shakespeare": "python-docs"}  # no test reaches the network; another text serves as well


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines of all shell blocks, in order, without prompts of the reader's shell and comments."""
    joined = "\n".join(blocks("sh")).replace("\\\n", " ")
    lines = (re.sub(r"\s+# .*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def shortened(command: str) -> str:
    """The same command without installing and with a budget of a few steps of a small network."""
    command = " && ".join(part for part in command.split(" && ") if not part.startswith(INSTALLING))
    for name, stand_in in OFFLINE.items():
        command = command.replace(name, stand_in)
    for option, (instead, value) in TOO_LONG.items():
        command = re.sub(rf"{option} [\d.]+", f"{instead} {value}", command)
    if "--resume" in command:  # which is for more than there was
        return command.replace("--steps 3", "--steps 6")
    if "charrnn train" in command and "hello" not in command:
        extra = " --hidden 16 --force --threads 1 --engine torch --precision fp32" + (
            "" if "--steps" in command else " --steps 3"
        )
        command = re.sub(r"(charrnn train (?:\"\$\([^)]*\)\"|\S+))", rf"\1{extra}", command)
    return command.replace("charrnn bench", "charrnn bench --hidden 16 --threads 1")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, warm: list[str]) -> Path:
    """A folder as the README's reader has it: a clone in which the commands run one after the other."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "corpora").mkdir()
    (folder / "corpora" / "hello.txt").write_bytes((ROOT / "corpora" / "hello.txt").read_bytes())
    for name in ("corpus.txt", "mine.txt"):
        (folder / name).write_text("It was the best of times, it was the worst of times,\n" * 60, encoding="utf-8")
    names = "emma olivia ava isabella sophia " * 12  # few lines, for a command is run with each
    (folder / "names.txt").write_text(f"{names}\n" * 4, encoding="utf-8")
    (folder / "poems").mkdir()
    (folder / "poems" / "one.txt").write_text("Roses are red,\nviolets are blue.\n" * 9, encoding="utf-8")
    (folder / "old.txt").write_bytes("Я помню чудное мгновенье.\r\n".encode("cp1251") * 9)
    (folder / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2)
    program = folder / "bin" / "charrnn"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(warm)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command of the README: in this process, unless it needs a shell."""
    if command.startswith("charrnn ") and not re.search(r"[|<>$&;]", command):
        return within(folder)(*shlex.split(command)[1:])
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    shell = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(
        shell, cwd=folder, env=environment(PATH=path), capture_output=True, timeout=300, check=False
    )


CASES = [short for short in map(shortened, commands()) if short and not short.startswith(ELSEWHERE)]


@pytest.mark.parametrize("command", CASES, ids=str)
def test_a_command_runs(workshop: Path, command: str) -> None:
    """In the order of the README, for the later commands need the models of the earlier ones."""
    result = run(command, workshop)
    assert result.returncode == 0, result.stderr.decode()
    assert b"Traceback" not in result.stderr


def test_there_are_commands() -> None:
    assert len(CASES) >= 30


@pytest.mark.parametrize("budget", ["--steps 40", pytest.param("", id="as it stands", marks=pytest.mark.slow)])
def test_hello_is_written_as_the_readme_shows(workshop: Path, budget: str) -> None:
    train, sample = HELLO
    assert {train, sample} <= set(commands())
    assert run(f"{train} {budget} --force -q", workshop).stdout == b"checkpoints/hello.safetensors\n"
    assert run(sample, workshop).stdout == b"hello"


def test_the_python_of_the_readme_runs(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("python")
    short = re.sub(r"minutes=[\d.]+", "steps=3, hidden=16, threads=1, engine='torch', precision='fp32'", code)
    assert short != code
    monkeypatch.chdir(workshop)
    exec(compile(short, "README.md", "exec"), {})
    assert "It was" in capsys.readouterr().out


def test_the_two_commands_stand_there_whole() -> None:
    first = (
        'pip install . && charrnn train "$(charrnn corpus get python-docs)" --minutes 1 && charrnn sample --temp 0.8'
    )
    assert first in commands()
    assert "pip install -e '.[test]' && pytest" in commands()


def test_the_tree_names_every_module() -> None:
    tree = next(block for block in blocks("text") if "charrnn/" in block)
    for path in (ROOT / "charrnn").rglob("*.py"):
        if path.name != "__init__.py" or path.parent == ROOT / "charrnn":
            assert re.search(rf"\b{re.escape(path.name)}\b", tree), path


def test_every_option_of_the_readme_exists(charrnn: Charrnn) -> None:
    names = (
        "train",
        "sample",
        "eval",
        "score",
        "classify",
        "info",
        "bench",
        "corpus get",
        "corpus check",
        "corpus list",
    )
    helps = "".join(charrnn(*name.split(), "--help").stdout.decode() for name in names)
    prose = "\n".join(line for line in README.splitlines() if "pip " not in line)
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose)):
        assert option in helps, option
