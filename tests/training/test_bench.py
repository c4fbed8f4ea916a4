"""What a machine gives with a network: the arithmetic of it, and what is measured how often."""

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
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLING_SECONDS", 0.001)


def fixed(monkeypatch: pytest.MonkeyPatch, *precisions: Precision, gflops: float = 10.0) -> list[torch.dtype]:
    """Makes the races end with these precisions in turn; the list fills with the products that are timed."""
    paces = iter(StepTiming(0.25, precision, "torch", 1, "a note") for precision in precisions)
    timed: list[torch.dtype] = []

    def product(device: str, dtype: torch.dtype) -> float:
        timed.append(dtype)
        return gflops

    monkeypatch.setattr(Autotuner, "measure_step", lambda *_: next(paces))
    monkeypatch.setattr(module, "_product_gflops", product)
    return timed


def test_characters_and_operations_follow_from_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, "fp32", gflops=0.5)
    speed = Bench(TrainConfig(device="cpu", batch_size=5, seq_length=10)).speed(MODEL)

    parameters = sum(part.numel() for part in CharRNN(MODEL, 65).parameters())
    assert speed.parameters == parameters
    assert speed.training_chars_per_second == 5 * 10 / 0.25
    assert speed.gflops == pytest.approx(6 * parameters * 200 / 1e9)
    assert speed.share_of_limit == pytest.approx(speed.gflops / 0.5)
    assert (speed.note, speed.engine, speed.threads) == ("a note", "torch", 1)


def test_the_limit_is_that_of_the_precision_and_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = fixed(monkeypatch, "fp32", "bf16", "fp32", "bf16")
    bench = Bench(TrainConfig(device="cpu"))
    for _ in range(4):
        bench.speed(MODEL)

    assert timed == [torch.float32, torch.bfloat16]


def test_the_limit_counts_a_product_and_a_sum_for_each_of_the_cubed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_SIZE", 10)
    monkeypatch.setattr(module, "LIMIT_SECONDS", 0)
    monkeypatch.setattr(module, "LIMIT_TRIAL_SECONDS", 0)
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))

    assert module._product_gflops("cpu", torch.float32) == pytest.approx(2 * 10**3 / 1e9)  # each lap takes a second


def test_the_cores_are_those_of_the_machine_whatever_threads_are_asked_for() -> None:
    assert Bench(TrainConfig(device="cpu", threads=1)).host.cores == Autotuner(TrainConfig(device="cpu")).threads


def test_the_vocabulary_is_as_large_as_that_of_tiny_shakespeare() -> None:
    assert len(VOCABULARY) == 65


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="mps is here")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(SettingError, match="torch finds no mps device"):
        Bench(TrainConfig(device="mps"))
