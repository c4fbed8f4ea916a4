"""What this machine is and how fast it trains: measured, not looked up.

A short race of a few real optimizer steps decides between fp32 and bf16 and tells how long a step takes.
"""

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from charrnn.config import ModelConfig, Precision, TrainConfig
from charrnn.errors import SettingError
from charrnn.model.network import CharRNN
from charrnn.training.learner import Learner
from charrnn.training.plan import Pace, Plan, make_plan

RACE_SECONDS = 0.4  # how long one contestant runs
RACE_STEPS = 3  # and at least how many steps, one to warm up not counted


class Machine:
    """The device that trains.

    Args:
        config: the wishes as to device, threads and precision.

    Raises:
        SettingError: a device that this machine doesn't have.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.device = _device(config.device)
        self.threads = config.threads or _cores()
        self._precision = config.precision
        torch.set_num_threads(self.threads)

    def pace(self, model: ModelConfig, train: TrainConfig, vocabulary_size: int) -> Pace:
        """Races the precisions that come into question on this very network, for a moment."""
        contestants: tuple[Precision, ...] = ("fp32", "bf16") if self._precision == "auto" else (self._precision,)
        seconds: dict[Precision, float] = {}
        note = ""
        for precision in contestants:
            try:
                seconds[precision] = self._race(model, train, vocabulary_size, precision)
            except RuntimeError as error:  # no bf16 kernel for this processor (pytorch#88136)
                if precision == "fp32":
                    raise
                note = f"this machine cannot train in bf16 ({str(error).splitlines()[0]}), so fp32 it is"
        if not seconds:
            seconds["fp32"] = self._race(model, train, vocabulary_size, "fp32")
        best = min(seconds, key=lambda precision: seconds[precision])
        return Pace(seconds[best], best, note)

    def _race(self, model: ModelConfig, train: TrainConfig, vocabulary_size: int, precision: Precision) -> float:
        network = CharRNN(model, vocabulary_size)
        network.initialize(seed=0)
        learner = Learner(network, replace(train, seed=0), self.device, precision)
        ids = np.random.default_rng(0).integers(vocabulary_size, size=(train.seq_length, train.batch_size))
        state = network.zero_state(train.batch_size)
        laps: list[float] = []
        while len(laps) <= RACE_STEPS or sum(laps) < RACE_SECONDS:
            started = time.perf_counter()
            _, state = learner.step(ids, ids, state, learning_rate=1e-4)
            laps.append(time.perf_counter() - started)
            if len(laps) > 1 and sum(laps) > 10 * RACE_SECONDS:
                break
        return statistics.median(laps[1:])


def plan_here(characters: int, distinct: int, given: Mapping[str, Any]) -> Plan:
    """`make_plan` with the pace of this machine, which is set up to train on the way.

    Raises:
        SettingError: a given value out of range, or a device that this machine doesn't have.
    """
    machine = Machine(
        TrainConfig(**{name: given[name] for name in ("device", "precision", "threads") if name in given})
    )
    here = {"device": machine.device, "threads": machine.threads}
    return make_plan(characters, distinct, {**given, **here}, machine.pace)


def _device(wish: str) -> str:
    if wish == "auto":  # never mps: its recurrent gradients have been silently wrong (pytorch#190056)
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[wish]:
        raise SettingError("device", f"torch finds no {wish} here", "leave it out or give cpu")
    return wish


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
