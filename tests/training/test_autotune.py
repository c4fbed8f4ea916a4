"""What this machine is: devices, threads, and the race of the precisions."""

import platform
import subprocess
import sys
import time
from typing import Any

import pytest
import torch

from charrnn.config import ModelConfig, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.data.corpus_reader import corpus_from_text
from charrnn.errors import SettingError
from charrnn.training import autotune as module
from charrnn.training.autotune import Autotuner, plan_for_this_machine

MODEL, TRAIN = ModelConfig(hidden=8, layers=1), TrainConfig(batch_size=2, seq_length=4)


@pytest.fixture(autouse=True)
def _short_races(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIAL_SECONDS", 0.0)


def race(monkeypatch: pytest.MonkeyPatch, **outcome: Any) -> None:
    """Makes the races end as told: seconds by precision or precision_engine, by threads, or an error."""

    def fixed(self: Autotuner, model: ModelConfig, train: TrainConfig, size: int, *rest: Any) -> float:
        result = outcome.get(f"{train.precision}_{train.engine}", outcome.get(train.precision))
        if isinstance(result, Exception):
            raise result
        return float(result[train.threads] if isinstance(result, dict) else result)

    monkeypatch.setattr(Autotuner, "_time_step", fixed)
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.setattr(
        module, "cpu_precisions", lambda: sorted({name.partition("_")[0] for name in outcome}, reverse=True)
    )


@pytest.mark.parametrize(("fp32", "bf16", "winner"), [(2.0, 1.0, "bf16"), (1.0, 2.0, "fp32")])
def test_the_faster_precision_wins(monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float, winner: str) -> None:
    race(monkeypatch, fp32=fp32, bf16=bf16)
    pace = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert (pace.precision, pace.seconds_per_step, pace.note) == (winner, 1.0, "")


@pytest.mark.parametrize(
    ("native", "torch_", "winner"), [(2.0, 1.0, "torch"), (1.0, 2.0, "native"), (1.1, 1.0, "native")]
)
def test_the_faster_engine_wins_unless_ours_is_nearly_as_fast(
    monkeypatch: pytest.MonkeyPatch, native: float, torch_: float, winner: str
) -> None:
    race(monkeypatch, fp32_native=native, fp32_torch=torch_)
    pace = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    seconds = {"native": native, "torch": torch_}[winner]
    assert (pace.engine, pace.seconds_per_step, pace.note) == (winner, seconds, "")


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_chosen_engine_is_not_raced(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    race(monkeypatch, fp32=1.0, **{f"fp32_{engine}": 5.0})
    assert Autotuner(TrainConfig(device="cpu", engine=engine)).measure_step(MODEL, TRAIN, 5).engine == engine


def test_a_processor_without_bf16_trains_in_fp32_and_wastes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    race(monkeypatch, fp32=1.0)
    pace = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert (pace.precision, pace.note) == ("fp32", "")


def test_bf16_that_torch_has_no_layer_for_is_left_to_our_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    race(monkeypatch, fp32=2.0, bf16_native=1.0, bf16=RuntimeError("could not create a primitive descriptor"))
    pace = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert (pace.precision, pace.engine, pace.note) == ("bf16", "native", "")


def test_bf16_that_fails_where_it_looked_best_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    race(monkeypatch, bf16=RuntimeError("no"), fp32=1.0)
    monkeypatch.setattr(module, "cpu_precisions", lambda: ("bf16",))
    pace = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert pace.precision == "fp32"
    assert "cannot train in bf16 (no)" in pace.note


@pytest.mark.parametrize(("gain", "worth"), [(0.01, "fp32"), (1.5, "fp32 bf16"), (4.0, "bf16")])
def test_a_precision_that_cannot_win_is_not_raced(monkeypatch: pytest.MonkeyPatch, gain: float, worth: str) -> None:
    clock = [0.0]

    def product(one: torch.Tensor, _: torch.Tensor) -> None:
        clock[0] += 1.0 if one.dtype == torch.float32 else 1 / gain

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    assert module.cpu_precisions() == tuple(worth.split())


def test_bf16_that_was_asked_for_and_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    race(monkeypatch, fp32=1.0, bf16=RuntimeError("could not create a primitive descriptor"))
    pace = Autotuner(TrainConfig(device="cpu", precision="bf16", engine="torch")).measure_step(MODEL, TRAIN, 5)
    assert pace.precision == "fp32"
    assert "cannot train in bf16 (could not create a primitive descriptor)" in pace.note


@pytest.mark.parametrize("wish", ["auto", "native"])
def test_kernels_that_cannot_be_compiled_leave_the_training_to_torch_and_are_told_once(
    monkeypatch: pytest.MonkeyPatch, wish: Any
) -> None:
    race(monkeypatch, fp32=1.0, bf16=2.0, fp32_native=ImportError("No module named 'llvmlite'"),
         bf16_native=ImportError("No module named 'llvmlite'"))  # fmt: skip
    pace = Autotuner(TrainConfig(device="cpu", engine=wish)).measure_step(MODEL, TRAIN, 5)
    assert pace.engine == "torch"
    assert pace.note.count("the compiled kernels cannot run (No module named 'llvmlite')") == 1


def test_a_shortage_of_memory_is_not_taken_for_a_missing_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    race(monkeypatch, fp32=1.0, fp32_native=MemoryError())
    with pytest.raises(MemoryError):
        Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)


def test_a_chosen_precision_is_not_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    race(monkeypatch, fp32=5.0)
    assert Autotuner(TrainConfig(device="cpu", precision="fp32")).measure_step(MODEL, TRAIN, 5).precision == "fp32"


@pytest.mark.parametrize(
    ("seconds", "winner"), [({1: 3, 2: 2, 4: 1}, 4), ({1: 3, 2: 1, 4: 2}, 2), ({1: 1, 2: 2, 4: 3}, 1)]
)
def test_the_fastest_number_of_threads_wins(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], winner: int
) -> None:
    race(monkeypatch, fp32=seconds, bf16=9.0)
    pace = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert (pace.threads, pace.precision) == (winner, "fp32")


def test_a_chosen_number_of_threads_is_not_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    race(monkeypatch, fp32={3: 1.0}, bf16={3: 2.0})
    assert Autotuner(TrainConfig(device="cpu", threads=3)).measure_step(MODEL, TRAIN, 5).threads == 3


def test_a_real_race_gives_a_real_pace() -> None:
    pace = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert 0 < pace.seconds_per_step < 10


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match="torch finds no cuda device"):
        Autotuner(TrainConfig(device="cuda"))


def test_auto_never_takes_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert Autotuner(TrainConfig()).device == "cpu"


def test_torch_is_set_up_for_the_threads_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        module.set_up_torch(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_plan_names_the_device_and_the_threads_it_was_made_for() -> None:
    plan = plan_for_this_machine(
        corpus_from_text("abcdefghij" * 300), Overrides(steps=3, device="cpu", threads=1, hidden=8)
    )
    assert (plan.train_config.device, plan.train_config.threads, plan.train_config.precision) != ("auto", 0, "auto")
    assert plan.train_config.precision in {"fp32", "bf16"}


def test_the_first_compilation_of_a_kernel_does_not_lose_it_the_race(monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = module.CharRNN.read, []

    def compiled_at_first(self: Any, *arguments: Any, **more: Any) -> Any:
        time.sleep(0 if calls else 1)
        calls.append(1)
        return read(self, *arguments, **more)

    monkeypatch.setattr(module.CharRNN, "read", compiled_at_first)
    train = TrainConfig(batch_size=2, seq_length=4, device="cpu", precision="fp32", engine="native", threads=1)
    assert Autotuner(train)._time_step(MODEL, train, 5, limit=0.001) < 1


def test_steps_to_warm_up_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    step = module.TrainStep.step

    def slow_at_first(self: Any, number: int, *arguments: Any, **more: Any) -> Any:
        time.sleep(0.3 if number < module.WARMUP_STEPS else 0)
        return step(self, number, *arguments, **more)

    monkeypatch.setattr(module.TrainStep, "step", slow_at_first)
    train = TrainConfig(batch_size=2, seq_length=4, device="cpu", precision="fp32", engine="native", threads=1)
    assert Autotuner(train)._time_step(MODEL, train, 5, limit=0.1) < 0.1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_memory_is_not_asked_for_anew_at_every_step() -> None:
    program = """
import resource, sys, torch
from charrnn.training.autotune import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(6):  # until the heap has grown to what its alignment wants
    torch.ones(9_000_000)
before = faults()
for _ in range(8):
    torch.ones(9_000_000)
print(faults() - before)
"""
    lost, kept = (
        int(subprocess.run([sys.executable, "-c", program, how], capture_output=True, check=True).stdout)
        for how in ("lost", "kept")
    )
    assert kept < lost / 10
