"""The choice of a backend: by saved costs, or by typical costs if none are saved."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from charrnn.checkpoint import Checkpoint
from charrnn.errors import CacheWarning
from charrnn.rnn.backend import DecoderSelector, fastest
from charrnn.rnn.compiled_rnn import CompiledRNN
from charrnn.rnn.costs import TYPICAL, Costs, load_costs, save_costs
from charrnn.rnn.numpy_rnn import NumPyRNN
from charrnn.training.autotune import measure_costs
from charrnn.training.plan import StepTiming

SLOW_NUMPY = replace(TYPICAL, numpy_char=1.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of the saved costs in a temporary cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "charrnn" / "costs.json"


def test_costs_are_typical_until_measured_costs_are_saved() -> None:
    assert load_costs() == TYPICAL
    assert save_costs(SLOW_NUMPY)
    assert load_costs() == SLOW_NUMPY


def test_saved_costs_determine_the_decoder(tiny: Checkpoint) -> None:
    assert isinstance(DecoderSelector(tiny).choose("int8", 10), NumPyRNN)
    save_costs(SLOW_NUMPY)
    assert isinstance(DecoderSelector(tiny).choose("int8", 10), CompiledRNN)


@pytest.mark.parametrize(
    "change",
    [
        {"machine": None}, {"costs": {}}, {"costs": None}, {"costs": asdict(TYPICAL) | {"compile": -1.0}},
        {"costs": asdict(TYPICAL) | {"compile": float("nan")}}, {"costs": asdict(TYPICAL) | {"compile": 1e300}},
        {"costs": asdict(TYPICAL) | {"compile": "1"}}, {"costs": asdict(TYPICAL) | {"more": 1.0}},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_saved_costs_are_reported_and_deleted(cache: Path, change: dict[str, Any]) -> None:
    save_costs(SLOW_NUMPY)
    cache.write_text(json.dumps({**json.loads(cache.read_text()), **change}))
    with pytest.warns(CacheWarning, match=rf"^{cache}: is damaged \(.*\) and not used; run charrnn bench"):
        assert load_costs() == TYPICAL
    assert load_costs() == TYPICAL
    assert not cache.exists()


def test_costs_of_another_machine_are_ignored(cache: Path) -> None:
    save_costs(SLOW_NUMPY)
    cache.write_text(json.dumps({"machine": "another", "costs": {}}))
    assert load_costs() == TYPICAL
    assert cache.exists()


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"1", b"{", b"[" * 100_000])
def test_a_damaged_file_is_reported_and_deleted(cache: Path, data: bytes) -> None:
    save_costs(SLOW_NUMPY)
    cache.write_bytes(data)
    with pytest.warns(CacheWarning):
        assert load_costs() == TYPICAL
    assert not cache.exists()


def test_an_unwritable_cache_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for value in (str(tmp_path / "file"), "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert not save_costs(TYPICAL)
        assert load_costs() == TYPICAL


def test_measured_costs_grow_with_the_amount_of_work() -> None:
    costs = measure_costs()
    assert all(0 < cost < 10 for cost in asdict(costs).values())
    assert costs.decoding(100, 10**6) > costs.decoding(10, 10**6)
    assert costs.reading(10, 64, 10**6) > costs.reading(10, 1, 10**6)
    assert costs.load_torch == Costs().load_torch


def test_torch_is_chosen_only_if_faster_by_a_margin() -> None:
    native, torch = (StepTiming(seconds, "fp32", engine, 1) for seconds, engine in ((1.1, "native"), (1.0, "torch")))
    assert fastest([torch, native]) is native
    assert fastest([replace(torch, seconds_per_step=0.9), native]).engine == "torch"
