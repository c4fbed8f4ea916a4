"""``charrnn log``: the table, the curves and the image."""

import json
import math
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from tests.cli.conftest import Run
from tests.conftest import Charrnn, one_line

ROOT = Path(__file__).parent.parent.parent
LINES = [
    {"step": 10 * n, "epoch": n / 3, "fraction": n / 9, "train_nats": 3 / n, "validation_nats": 3.3 / n + 0.1 * n,
     "best": n < 6, "learning_rate": 0.01 / n, "seconds": 7.0 * n}
    for n in range(1, 10)
]  # fmt: skip


def entry(**changes: Any) -> bytes:
    """Return a line of a log with changed fields."""
    return json.dumps(LINES[0] | changes).encode() + b"\n"


@pytest.fixture
def directory(tmp_path: Path, tiny: Checkpoint) -> Path:
    checkpoint.save(tmp_path / "m.safetensors", tiny)
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return tmp_path


def test_the_log_of_a_training_run_can_be_shown(trained: Run, charrnn: Charrnn) -> None:
    result = charrnn("log", "corpus", cwd=trained.folder)
    rows = result.stdout.decode().splitlines()
    assert rows[0].split() == ["step", "epoch", "train", "validation", "lr", "time"]
    assert rows[5].split()[0] == "20"


def test_log_shows_a_row_per_evaluation_and_both_curves(directory: Path, charrnn: Charrnn) -> None:
    output = charrnn("log", "m.safetensors").stdout.decode()
    assert output.splitlines()[2].split() == ["20", "0.7", "2.164", "2.669", "0.005", "14", "s", "best"]
    assert "best" not in output.splitlines()[9]
    assert "train" in output.split("Legend")[1]
    assert "validation" in output.split("Legend")[1]
    assert max(map(len, output.splitlines())) <= 80
    assert sum("o" in line for line in output.split("bits/char")[1].splitlines()) >= 5


def test_without_validation_only_the_training_loss_is_shown(directory: Path, charrnn: Charrnn) -> None:
    lines = [{**line, "validation_nats": None} for line in LINES]
    (directory / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = charrnn("log", "m.safetensors").stdout.decode()
    assert "validation" not in output.split("Legend")[1]
    assert "best" not in output


def test_json_contains_the_entries_of_the_log(directory: Path, charrnn: Charrnn) -> None:
    output = charrnn("log", "m.safetensors", "--json").stdout.decode()
    assert [json.loads(line) for line in output.splitlines()] == LINES


@pytest.mark.parametrize(("name", "signature"), [("curve.png", b"\x89PNG"), ("curve.svg", b"<?xml")])
def test_the_curves_are_saved_as_an_image(directory: Path, charrnn: Charrnn, name: str, signature: bytes) -> None:
    result = charrnn("log", "m.safetensors", "-o", name)
    assert (result.returncode, result.stdout, result.stderr) == (0, name.encode() + b"\n", b"")
    image = (directory / name).read_bytes()
    assert image.startswith(signature)
    charrnn("log", "m.safetensors", "-o", "again" + name)
    assert (directory / ("again" + name)).read_bytes() == image


def test_any_name_can_be_a_title(directory: Path, charrnn: Charrnn) -> None:
    for name in ("a$^$b", "水"):
        for suffix in (".safetensors", ".jsonl"):
            (directory / f"{name}{suffix}").write_bytes((directory / f"m{suffix}").read_bytes())
        result = charrnn("log", f"{name}.safetensors", "-o", "curve.svg")
        assert (result.returncode, result.stderr) == (0, b"")


def test_without_matplotlib_the_error_says_what_to_install(
    directory: Path, charrnn: Charrnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    result = charrnn("log", "no-such-model", "-o", "curve.png")  # the package is checked first
    assert result.returncode == 1
    message = "a picture needs matplotlib, which is not installed; run: pip install 'charrnn-cli[plot]'"
    assert one_line(result) == f"charrnn: --out: {message}\n"
    assert not (directory / "curve.png").exists()
    assert charrnn("log", "m.safetensors").returncode == 0


def test_the_extra_in_this_error_installs_matplotlib() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "charrnn-cli"
    assert project["optional-dependencies"]["plot"][0].startswith("matplotlib")
    assert not any(requirement.startswith("matplotlib") for requirement in project["dependencies"])


def test_another_image_format_is_rejected(directory: Path, charrnn: Charrnn) -> None:
    result = charrnn("log", "m.safetensors", "-o", "curve.pdf")
    assert result.returncode == 2
    assert "--out: invalid value curve.pdf; give a file that ends in .png or .svg" in one_line(result)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "m.jsonl: no such file or directory"),
        (b"", "m.jsonl: contains no evaluation yet"),
        (b"{}\n", "m.jsonl:1: is not an entry of a log"),
        (b'{"step": 1', "m.jsonl:1: is not an entry of a log"),
        (b"[1]\n", "m.jsonl:1: is not an entry of a log"),
        (b"\xff\xfe", "m.jsonl:1: is not an entry of a log"),
        (b"[" * 100_000, "m.jsonl:1: is not an entry of a log: the JSON is nested too deeply"),
        (entry(step=0), "m.jsonl:1: is not an entry of a log: step: invalid value 0"),
        (entry(step=-5), "m.jsonl:1: is not an entry of a log: step: invalid value -5"),
        (entry(step=5) * 2, "m.jsonl:2: is not an entry of a log: step 5 follows step 5"),
        (entry(step=10**400), "m.jsonl:1: is not an entry of a log: step is 1000"),
        (entry(seconds=math.nan), "m.jsonl:1: is not an entry of a log: NaN is not a JSON number"),
        (entry(train_nats="1"), "m.jsonl:1: is not an entry of a log: train_nats is 1, not a finite number"),
        (entry(best=1), "m.jsonl:1: is not an entry of a log: best is 1, not true or false"),
        (entry(more=1), "m.jsonl:1: is not an entry of a log: more is unknown"),
    ],
)
def test_an_invalid_log_is_a_one_line_error(
    directory: Path, charrnn: Charrnn, contents: bytes | None, message: str
) -> None:
    (directory / "m.jsonl").unlink() if contents is None else (directory / "m.jsonl").write_bytes(contents)
    result = charrnn("log", "m.safetensors")
    assert result.returncode == 1
    assert message in one_line(result)


def test_a_named_pipe_is_not_waited_for(directory: Path, charrnn: Charrnn) -> None:
    (directory / "m.jsonl").unlink()
    os.mkfifo(directory / "m.jsonl")
    assert "m.jsonl: is not a regular file" in one_line(charrnn("log", "m.safetensors"))


def test_a_huge_log_is_rejected(directory: Path, charrnn: Charrnn) -> None:
    os.truncate(directory / "m.jsonl", 1 << 40)
    assert "m.jsonl: is larger than " in one_line(charrnn("log", "m.safetensors"))
