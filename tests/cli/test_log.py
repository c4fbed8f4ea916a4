"""``charrnn log``: a table, a curve, a picture."""

import json
from pathlib import Path

import pytest

from charrnn import checkpoint
from charrnn.checkpoint import Checkpoint
from tests.cli.conftest import Run
from tests.conftest import Charrnn, one_line

LINES = [
    {"step": 10 * n, "epoch": n / 3, "fraction": n / 9, "train_nats": 3 / n, "validation_nats": 3.3 / n + 0.1 * n,
     "best": n < 6, "learning_rate": 0.01 / n, "seconds": 7.0 * n}
    for n in range(1, 10)
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, tiny: Checkpoint) -> Path:
    checkpoint.save(tmp_path / "m.safetensors", tiny)
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return tmp_path


def test_a_training_leaves_a_log_that_can_be_shown(trained: Run, charrnn: Charrnn) -> None:
    result = charrnn("log", "corpus", cwd=trained.folder)
    rows = result.stdout.decode().splitlines()
    assert rows[0].split() == ["step", "epoch", "train", "validation", "lr", "time"]
    assert rows[5].split()[0] == "20"


def test_it_shows_a_row_per_evaluation_and_both_curves(folder: Path, charrnn: Charrnn) -> None:
    told = charrnn("log", "m.safetensors").stdout.decode()
    assert told.splitlines()[2].split() == ["20", "0.7", "2.164", "2.669", "0.005", "14", "s", "best"]
    assert "best" not in told.splitlines()[9]
    assert "train" in told.split("Legend")[1]
    assert "validation" in told.split("Legend")[1]
    assert max(map(len, told.splitlines())) <= 80
    assert sum("o" in line for line in told.split("bits/char")[1].splitlines()) >= 5


def test_an_unmeasured_run_shows_its_training_loss_alone(folder: Path, charrnn: Charrnn) -> None:
    lines = [{**line, "validation_nats": None} for line in LINES]
    (folder / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = charrnn("log", "m.safetensors").stdout.decode()
    assert "validation" not in told.split("Legend")[1]
    assert "best" not in told


def test_json_is_what_the_log_holds(folder: Path, charrnn: Charrnn) -> None:
    told = charrnn("log", "m.safetensors", "--json").stdout.decode()
    assert [json.loads(line) for line in told.splitlines()] == LINES


@pytest.mark.parametrize(("name", "begins"), [("curve.png", b"\x89PNG"), ("curve.svg", b"<?xml")])
def test_the_curve_is_saved_as_a_picture(folder: Path, charrnn: Charrnn, name: str, begins: bytes) -> None:
    result = charrnn("log", "m.safetensors", "-o", name)
    assert (result.returncode, result.stdout, result.stderr) == (0, name.encode() + b"\n", b"")
    picture = (folder / name).read_bytes()
    assert picture.startswith(begins)
    charrnn("log", "m.safetensors", "-o", "again" + name)
    assert (folder / ("again" + name)).read_bytes() == picture


def test_any_name_makes_a_title(folder: Path, charrnn: Charrnn) -> None:
    for name in ("a$^$b", "水"):
        for suffix in (".safetensors", ".jsonl"):
            (folder / f"{name}{suffix}").write_bytes((folder / f"m{suffix}").read_bytes())
        result = charrnn("log", f"{name}.safetensors", "-o", "curve.svg")
        assert (result.returncode, result.stderr) == (0, b"")


def test_another_format_is_refused(folder: Path, charrnn: Charrnn) -> None:
    result = charrnn("log", "m.safetensors", "-o", "curve.pdf")
    assert result.returncode == 2
    assert "--out: cannot be curve.pdf; give a file that ends in .png or .svg" in one_line(result)


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (None, "m.jsonl: no such file or directory"),
        (b"", "m.jsonl: contains no evaluation yet"),
        (b"{}\n", "m.jsonl:1: is not an entry of a log"),
        (b'{"step": 1', "m.jsonl:1: is not an entry of a log"),
        (b"[1]\n", "m.jsonl:1: is not an entry of a log"),
        (b"\xff\xfe", "m.jsonl: is not a log"),
    ],
)
def test_what_is_no_log_is_one_line(folder: Path, charrnn: Charrnn, contents: bytes | None, told: str) -> None:
    (folder / "m.jsonl").unlink() if contents is None else (folder / "m.jsonl").write_bytes(contents)
    result = charrnn("log", "m.safetensors")
    assert result.returncode == 1
    assert told in one_line(result)
