"""``charrnn bench`` with one small network, because larger ones take long to measure."""

import json
import math
import re
import signal
import subprocess
from datetime import date
from pathlib import Path

import pytest

import charrnn as package
from charrnn.training import autotune, bench
from charrnn.training.autotune import Autotuner
from tests.cli.conftest import CORPUS, files, running
from tests.conftest import Charrnn, one_line, within

SMALL = ("--hidden", "16", "--threads", "1")


def run_bench(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``charrnn bench ARGUMENTS`` for one small network, in a directory with a corpus."""
    (directory / "corpus.txt").write_text(CORPUS)
    return within(directory)("bench", *arguments, *SMALL)


@pytest.fixture(scope="module")
def text_result(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[bytes]:
    return run_bench(tmp_path_factory.mktemp("text"), "corpus.txt")


@pytest.fixture(scope="module")
def json_result(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[bytes]:
    return run_bench(tmp_path_factory.mktemp("json"), "corpus.txt", "--json", "-q", "--cell", "gru")


def test_the_table_has_an_aligned_row_for_the_size(text_result: subprocess.CompletedProcess[bytes]) -> None:
    lines = text_result.stdout.decode().splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("size "))

    assert text_result.returncode == 0
    assert re.fullmatch(
        r"2 x 16 +8,593 +[\d,]+ +(fp32|bf16) (native|torch), 1 thread +[\d,]+ +\d+% +[\d,]+", lines[header + 1]
    )
    assert len({len(line) for line in lines[header - 1 : header + 2]}) == 1
    assert max(map(len, lines)) <= 80


def test_the_limit_is_that_of_the_fastest_precision(text_result: subprocess.CompletedProcess[bytes]) -> None:
    lines = text_result.stdout.decode().splitlines()
    (precision,) = (line.split()[5] for line in lines if line.startswith("2 x 16 "))

    assert re.fullmatch(rf"LSTM networks; limit \(a large matrix product\): {precision} [\d,]+ GFLOP/s", lines[2])


def test_a_text_is_planned_with_the_given_options_and_with_a_minute(
    text_result: subprocess.CompletedProcess[bytes],
) -> None:
    plans = [part.splitlines() for part in text_result.stdout.decode().split("\n\n")[2:]]
    train = "charrnn train corpus.txt --hidden 16 --threads 1"

    assert [plan[0] for plan in plans] == [train, f"{train} --minutes 1"]
    for plan in plans:
        assert plan[1].startswith("  2 x 16 LSTM, ")
        assert plan[-1].endswith(" per epoch")


def test_progress_goes_to_stderr(text_result: subprocess.CompletedProcess[bytes]) -> None:
    assert re.fullmatch(r"measuring: .+ cores\n", text_result.stderr.decode())
    assert b"\x1b" not in text_result.stdout


def test_bench_writes_one_json_object_and_nothing_else(json_result: subprocess.CompletedProcess[bytes]) -> None:
    facts = json.loads(json_result.stdout)

    assert (json_result.returncode, json_result.stderr, json_result.stdout.count(b"\n")) == (0, b"", 1)
    assert date.fromisoformat(facts["date"]) <= date.today()
    assert facts["charrnn"] == package.__version__
    assert facts["corpus"] == {"name": "corpus", "characters": len(CORPUS), "vocab_size": len(set(CORPUS))}
    assert facts["cores"] >= 1
    assert facts["processor"]


def test_the_figures_of_the_json_agree_with_each_other(json_result: subprocess.CompletedProcess[bytes]) -> None:
    facts = json.loads(json_result.stdout)
    (speed,) = facts["speeds"]
    training = facts["batch_size"] * facts["seq_length"] / speed["seconds_per_step"]

    assert (speed["cell"], speed["layers"], speed["hidden"], speed["threads"]) == ("gru", 2, 16, 1)
    assert speed["training_chars_per_second"] == pytest.approx(training)
    assert speed["gflops"] == pytest.approx(6 * speed["parameters"] * training / 1e9)
    assert speed["share_of_limit"] == pytest.approx(speed["gflops"] / speed["limit_gflops"])
    assert 0 < speed["sampling_chars_per_second"] < math.inf
    assert 0 < speed["limit_gflops"] < math.inf


def test_the_json_contains_the_complete_plans(json_result: subprocess.CompletedProcess[bytes]) -> None:
    plans = json.loads(json_result.stdout)["plans"]

    assert [plan["train_config"]["minutes"] for plan in plans] == [None, 1]
    for plan in plans:
        assert (plan["model_config"]["cell"], plan["model_config"]["hidden"]) == ("gru", 16)
        assert plan["epoch_seconds"] == pytest.approx(plan["seconds"] / plan["steps"] * plan["steps_per_epoch"])


def test_without_arguments_bench_measures_four_sizes_and_plans_nothing(
    monkeypatch: pytest.MonkeyPatch, charrnn: Charrnn
) -> None:
    monkeypatch.setattr(Autotuner, "_time_step", lambda *_: 0.5)
    monkeypatch.setattr(autotune, "cpu_precisions", lambda: ("fp32",))
    monkeypatch.setattr(bench, "LIMIT_SECONDS", 0)
    monkeypatch.setattr(bench, "SAMPLING_SECONDS", 0.001)

    facts = json.loads(charrnn("bench", "--json", "--device", "cpu").stdout)

    assert [(speed["layers"], speed["hidden"]) for speed in facts["speeds"]] == [
        (2, 64),
        (2, 128),
        (2, 256),
        (2, 512),
    ]
    assert {speed["training_chars_per_second"] for speed in facts["speeds"]} == {32 * 64 / 0.5}
    assert (facts["corpus"], facts["plans"]) == (None, [])


@pytest.mark.parametrize(
    "option", ["--cell elman", "--device abacus", "--threads -1", "--hidden 0"]
)  # fmt: skip
def test_an_invalid_value_is_rejected_before_anything_is_read_or_imported(
    tmp_path: Path, without_torch: Charrnn, option: str
) -> None:
    flag, value = option.split()
    result = without_torch("bench", "nothing.txt", flag, value)

    assert (result.returncode, result.stdout) == (2, b"")
    assert one_line(result).startswith(f"charrnn: {flag}: invalid value {value}; ")
    assert files(tmp_path) == {}


def test_a_missing_text_is_reported_before_torch_is_imported(without_torch: Charrnn) -> None:
    result = without_torch("bench", "nothing.txt")

    assert (result.returncode, result.stdout) == (1, b"")
    assert one_line(result).startswith("charrnn: nothing.txt: ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_ends_the_measurement_without_a_message(
    tmp_path: Path, number: signal.Signals, code: int, warm: list[str]
) -> None:
    with running("bench", "--threads", "1", program=warm, cwd=tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"measuring: ")
        process.send_signal(number)
        stdout, stderr = process.communicate()

    assert (process.returncode, stdout, stderr) == (code, b"", b"")
