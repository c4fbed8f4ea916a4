"""``charrnn info`` prints the command that repeats a training run."""

import shlex
from pathlib import Path

from tests.cli.conftest import NETWORK
from tests.conftest import Charrnn

TEXT = "the rain in spain stays mainly in the plain,\n" * 60


def test_the_repeat_command_trains_the_same_model(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "rain.txt").write_text(TEXT, encoding="utf-8")
    charrnn("train", "rain.txt", "--hidden", "32", "--epochs", "2", "--patience", "0")
    facts = charrnn("info", "rain").stdout.decode().splitlines()
    command = next(line.removeprefix("repeat").strip() for line in facts if line.startswith("repeat"))
    arguments = shlex.split(command.replace("CORPUS", "rain.txt"))
    assert arguments[0] == "charrnn"
    repeated = charrnn(*arguments[1:], "-o", "again")
    assert repeated.returncode == 0, repeated.stderr.decode()
    first, second = (tmp_path / "checkpoints" / f"{name}.safetensors" for name in ("rain", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_with_a_time_budget_has_no_repeat_command(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "rain.txt").write_text(TEXT, encoding="utf-8")
    charrnn("train", "rain.txt", "--minutes", "0.005", *NETWORK)
    facts = charrnn("info", "rain").stdout.decode()
    assert "\nsimilar " in facts
    assert "\nrepeat " not in facts
