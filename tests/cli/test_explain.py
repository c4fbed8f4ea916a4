"""``charrnn train --explain``: the value, the origin and the meaning of every setting."""

from pathlib import Path

import pytest

from tests.conftest import Charrnn

TRAIN = "train text.txt --steps 3 --hidden 16 --threads 1 --engine torch --precision fp32 --force"


@pytest.fixture
def explained(charrnn: Charrnn, tmp_path: Path) -> dict[str, list[str]]:
    """The words of each line of the explanation, by option."""
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 90)
    result = charrnn(*TRAIN.split(), "--explain")
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stderr.decode().splitlines() if line.startswith("  --")]
    return {line[0]: line[1:] for line in lines}


def test_every_setting_is_listed_with_its_value_and_origin(explained: dict[str, list[str]]) -> None:
    assert explained["--hidden"][:2] == ["16", "given"]
    assert explained["--batch-size"][1] == "planned"
    assert explained["--layers"][:2] == ["2", "default"]
    assert explained["--embedding"][:2] == ["0", "planned"]  # also if the plan chooses the default


def test_the_meaning_is_the_help_text(explained: dict[str, list[str]], charrnn: Charrnn) -> None:
    help_text = " ".join(charrnn("train", "--help").stdout.decode().split())
    for words in explained.values():
        assert " ".join(words[2:]) in help_text


def test_without_the_option_there_is_no_explanation(charrnn: Charrnn, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 90)
    assert b"  --hidden" not in charrnn(*TRAIN.split()).stderr
