"""The benchmark of a machine: derived figures, and the number of measurements."""

import pytest
import torch

from charrnn.config import ModelConfig, Precision, TrainConfig
from charrnn.errors import SettingError
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.training import bench as module
from charrnn.training.autotune import Autotuner
from charrnn.training.bench import VOCABULARY, Bench
from charrnn.training.plan import StepTiming

MODEL = ModelConfig(hidden=8)


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLING_SECONDS", 0.001)


def set_precisions(
    monkeypatch: pytest.MonkeyPatch, *precisions: Precision, gflops: float = 10.0
) -> list[torch.dtype]:
    """Make autotuning choose these precisions in turn, and return the list of measured products."""
    timings = iter(StepTiming(0.25, precision, "torch", 1, "a note") for precision in precisions)
    measured: list[torch.dtype] = []

    def product(device: str, dtype: torch.dtype) -> float:
        measured.append(dtype)
        return gflops

    monkeypatch.setattr(Autotuner, "measure_step", lambda *_: next(timings))
    monkeypatch.setattr(module, "_product_gflops", product)
    return measured


def test_throughput_follows_from_the_step_time(monkeypatch: pytest.MonkeyPatch) -> None:
    set_precisions(monkeypatch, "fp32", gflops=0.5)
    speed = Bench(TrainConfig(device="cpu", batch_size=5, seq_length=10)).speed(MODEL)

    parameters = sum(part.numel() for part in CharRNN(MODEL, 65).parameters())
    assert speed.parameters == parameters
    assert speed.training_chars_per_second == 5 * 10 / 0.25
    assert speed.gflops == pytest.approx(6 * parameters * 200 / 1e9)
    assert speed.share_of_limit == pytest.approx(speed.gflops / 0.5)
    assert (speed.note, speed.engine, speed.threads) == ("a note", "torch", 1)


def test_the_limit_is_measured_once_per_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = set_precisions(monkeypatch, "fp32", "bf16", "fp32", "bf16")
    bench = Bench(TrainConfig(device="cpu"))
    for _ in range(4):
        bench.speed(MODEL)

    assert measured == [torch.float32, torch.bfloat16]


def test_the_limit_counts_two_operations_per_term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_SIZE", 10)
    monkeypatch.setattr(module, "LIMIT_SECONDS", 0)
    monkeypatch.setattr(module, "LIMIT_TRIAL_SECONDS", 0)
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))

    assert module._product_gflops("cpu", torch.float32) == pytest.approx(2 * 10**3 / 1e9)  # each lap takes a second


def test_the_number_of_cores_does_not_depend_on_the_threads_option() -> None:
    assert Bench(TrainConfig(device="cpu", threads=1)).host.cores == Autotuner(TrainConfig(device="cpu")).threads


def test_the_vocabulary_has_the_size_of_tiny_shakespeare() -> None:
    assert len(VOCABULARY) == 65


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="mps is available")
def test_an_unavailable_device_is_rejected() -> None:
    with pytest.raises(SettingError, match="torch finds no mps device"):
        Bench(TrainConfig(device="mps"))
