"""The benchmarks run and print their tables. The figures depend on the machine and are not compared."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TEXT, environment
from tests.warm import PYTHON

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def figures(output: str) -> list[list[float]]:
    """Return the numbers in the rows of a table, which are below the rule. The first column is a name."""
    lines = output.splitlines()
    rule = next(number for number, line in enumerate(lines) if set(line) == {"-", " "})
    width = len(lines[rule].split()[0])
    return [[float(cell.replace(",", "")) for cell in line[width:].split()] for line in lines[rule + 1 :]]


@pytest.mark.parametrize(
    ("script", "rows", "columns"),
    [
        ("sampling.py", 2, 14),
        ("overhead.py", 1, 5),
        ("saving.py", 1, 6),
        ("scoring.py", 1, 9),
        pytest.param("memory.py", 1, 4, marks=pytest.mark.slow),
        pytest.param("startup.py", 5, 2, marks=pytest.mark.slow),
        pytest.param("training.py", 1, 7, marks=pytest.mark.slow),
        pytest.param("backends.py", 1, 5, marks=pytest.mark.slow),
        pytest.param("quality.py", 1, 6, marks=pytest.mark.slow),
        pytest.param("corpora.py", 2, 9, marks=pytest.mark.slow),
        pytest.param("classification.py", 1, 4, marks=pytest.mark.slow),
    ],
)
def test_a_benchmark_prints_finite_positive_figures_and_leaves_no_files(
    script: str, rows: int, columns: int, tmp_path: Path, warm: list[str]
) -> None:
    text = tmp_path / "tiny.txt"
    text.write_text(TEXT * 40, encoding="utf-8")
    command = [*warm, PYTHON, str(BENCHMARKS / script), "--quick", *([str(text)] if script == "quality.py" else [])]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    table = figures(result.stdout)
    assert [len(row) for row in table] == [columns] * rows
    assert all(math.isfinite(figure) and figure > 0 for row in table for figure in row)
    assert list(tmp_path.iterdir()) == [text]


@pytest.mark.parametrize(
    "script", sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name != "side_by_side.py")
)
def test_the_help_of_every_benchmark_says_what_it_measures(script: str, warm: list[str]) -> None:
    result = subprocess.run(
        [*warm, PYTHON, str(BENCHMARKS / script), "--help"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "--quick" in result.stdout
    assert len(result.stdout) > 400
