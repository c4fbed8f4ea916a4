"""Autotuning: the device, and the choice of threads, precision and backend by timing."""

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
def _short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIAL_SECONDS", 0.0)


def set_timings(monkeypatch: pytest.MonkeyPatch, **timings: Any) -> None:
    """Replace the timings: seconds (or an error) by precision or precision_engine, and optionally by threads."""

    def fixed(self: Autotuner, model: ModelConfig, train: TrainConfig, size: int, *rest: Any) -> float:
        result = timings.get(f"{train.precision}_{train.engine}", timings.get(train.precision))
        if isinstance(result, Exception):
            raise result
        return float(result[train.threads] if isinstance(result, dict) else result)

    monkeypatch.setattr(Autotuner, "_time_step", fixed)
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.setattr(
        module, "cpu_precisions", lambda: sorted({name.partition("_")[0] for name in timings}, reverse=True)
    )


@pytest.mark.parametrize(("fp32", "bf16", "winner"), [(2.0, 1.0, "bf16"), (1.0, 2.0, "fp32")])
def test_the_faster_precision_is_chosen(
    monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float, winner: str
) -> None:
    set_timings(monkeypatch, fp32=fp32, bf16=bf16)
    timing = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert (timing.precision, timing.seconds_per_step, timing.note) == (winner, 1.0, "")


@pytest.mark.parametrize(
    ("native", "torch_", "winner"), [(2.0, 1.0, "torch"), (1.0, 2.0, "native"), (1.1, 1.0, "native")]
)
def test_the_faster_backend_is_chosen_with_a_preference_for_native(
    monkeypatch: pytest.MonkeyPatch, native: float, torch_: float, winner: str
) -> None:
    set_timings(monkeypatch, fp32_native=native, fp32_torch=torch_)
    timing = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    seconds = {"native": native, "torch": torch_}[winner]
    assert (timing.engine, timing.seconds_per_step, timing.note) == (winner, seconds, "")


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_given_engine_is_not_compared(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    set_timings(monkeypatch, fp32=1.0, **{f"fp32_{engine}": 5.0})
    assert Autotuner(TrainConfig(device="cpu", engine=engine)).measure_step(MODEL, TRAIN, 5).engine == engine


def test_a_processor_without_bf16_trains_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timings(monkeypatch, fp32=1.0)
    timing = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert (timing.precision, timing.note) == ("fp32", "")


def test_bf16_uses_native_kernels_if_torch_has_no_layer_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timings(monkeypatch, fp32=2.0, bf16_native=1.0, bf16=RuntimeError("could not create a primitive descriptor"))
    timing = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert (timing.precision, timing.engine, timing.note) == ("bf16", "native", "")


def test_failing_bf16_falls_back_to_fp32_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timings(monkeypatch, bf16=RuntimeError("no"), fp32=1.0)
    monkeypatch.setattr(module, "cpu_precisions", lambda: ("bf16",))
    timing = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert timing.precision == "fp32"
    assert "cannot train in bf16 (no)" in timing.note


@pytest.mark.parametrize(("gain", "expected"), [(0.01, "fp32"), (1.5, "fp32 bf16"), (4.0, "bf16")])
def test_a_clearly_slower_precision_is_not_compared(
    monkeypatch: pytest.MonkeyPatch, gain: float, expected: str
) -> None:
    clock = [0.0]

    def product(one: torch.Tensor, _: torch.Tensor) -> None:
        clock[0] += 1.0 if one.dtype == torch.float32 else 1 / gain

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    assert module.cpu_precisions() == tuple(expected.split())


def test_requested_bf16_that_is_unavailable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timings(monkeypatch, fp32=1.0, bf16=RuntimeError("could not create a primitive descriptor"))
    with pytest.raises(SettingError, match=r"^precision: bf16 is not available here \(could not create a primitive"):
        Autotuner(TrainConfig(device="cpu", precision="bf16", engine="torch")).measure_step(MODEL, TRAIN, 5)


def test_a_requested_engine_that_is_unavailable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timings(monkeypatch, fp32=1.0, fp32_native=ImportError("No module named 'llvmlite'"))
    with pytest.raises(SettingError, match=r"^engine: native is not available here \(No module named 'llvmlite'\)"):
        Autotuner(TrainConfig(device="cpu", engine="native")).measure_step(MODEL, TRAIN, 5)


def test_native_kernels_run_on_the_cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resolve_device", lambda device: device)
    with pytest.raises(SettingError, match="engine: native cannot be combined with --device cuda"):
        Autotuner(TrainConfig(device="cuda", engine="native"))


def test_kernels_that_cannot_be_compiled_are_replaced_by_torch_with_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timings(monkeypatch, fp32=1.0, bf16=2.0, fp32_native=ImportError("No module named 'llvmlite'"),
         bf16_native=ImportError("No module named 'llvmlite'"))  # fmt: skip
    timing = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert timing.engine == "torch"
    assert timing.note.count("the compiled kernels cannot run (No module named 'llvmlite')") == 1


def test_running_out_of_memory_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timings(monkeypatch, fp32=1.0, fp32_native=MemoryError())
    with pytest.raises(MemoryError):
        Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)


def test_a_given_precision_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timings(monkeypatch, fp32=5.0)
    assert Autotuner(TrainConfig(device="cpu", precision="fp32")).measure_step(MODEL, TRAIN, 5).precision == "fp32"


@pytest.mark.parametrize(
    ("seconds", "winner"), [({1: 3, 2: 2, 4: 1}, 4), ({1: 3, 2: 1, 4: 2}, 2), ({1: 1, 2: 2, 4: 3}, 1)]
)
def test_the_fastest_number_of_threads_is_chosen(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], winner: int
) -> None:
    set_timings(monkeypatch, fp32=seconds, bf16=9.0)
    timing = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert (timing.threads, timing.precision) == (winner, "fp32")


def test_a_given_number_of_threads_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    set_timings(monkeypatch, fp32={3: 1.0}, bf16={3: 2.0})
    assert Autotuner(TrainConfig(device="cpu", threads=3)).measure_step(MODEL, TRAIN, 5).threads == 3


def test_a_measured_step_time_is_plausible() -> None:
    timing = Autotuner(TrainConfig(device="cpu")).measure_step(MODEL, TRAIN, 5)
    assert 0 < timing.seconds_per_step < 10


def test_an_unavailable_device_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match="torch finds no cuda device"):
        Autotuner(TrainConfig(device="cuda"))


def test_auto_never_chooses_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert Autotuner(TrainConfig()).device == "cpu"


def test_torch_uses_the_given_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        module.set_up_torch(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_plan_contains_device_threads_and_precision() -> None:
    plan = plan_for_this_machine(
        corpus_from_text("abcdefghij" * 300), Overrides(steps=3, device="cpu", threads=1, hidden=8)
    )
    assert (plan.train_config.device, plan.train_config.threads, plan.train_config.precision) != ("auto", 0, "auto")
    assert plan.train_config.precision in {"fp32", "bf16"}


def test_compilation_is_not_part_of_the_measured_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = module.CharRNN.read, []

    def compiled_at_first(self: Any, *arguments: Any, **kwargs: Any) -> Any:
        time.sleep(0 if calls else 1)
        calls.append(1)
        return read(self, *arguments, **kwargs)

    monkeypatch.setattr(module.CharRNN, "read", compiled_at_first)
    train = TrainConfig(batch_size=2, seq_length=4, device="cpu", precision="fp32", engine="native", threads=1)
    assert Autotuner(train)._time_step(MODEL, train, 5, limit=0.001) < 1


def test_warmup_steps_are_not_part_of_the_measured_time(monkeypatch: pytest.MonkeyPatch) -> None:
    step = module.TrainStep.step

    def slow_at_first(self: Any, number: int, *arguments: Any, **kwargs: Any) -> Any:
        time.sleep(0.3 if number < module.WARMUP_STEPS else 0)
        return step(self, number, *arguments, **kwargs)

    monkeypatch.setattr(module.TrainStep, "step", slow_at_first)
    train = TrainConfig(batch_size=2, seq_length=4, device="cpu", precision="fp32", engine="native", threads=1)
    assert Autotuner(train)._time_step(MODEL, train, 5, limit=0.1) < 0.1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    program = """
import resource, sys, torch
from charrnn.training.autotune import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(6):  # until the heap has its final size
    torch.ones(9_000_000)
before = faults()
for _ in range(8):
    torch.ones(9_000_000)
print(faults() - before)
"""
    default, kept = (
        int(subprocess.run([sys.executable, "-c", program, how], capture_output=True, check=True).stdout)
        for how in ("default", "kept")
    )
    assert kept < default / 10
