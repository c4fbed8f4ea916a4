"""What this machine is and how fast it trains: measured, not looked up.

A short race of a few real optimizer steps decides between fp32 and bf16, all cores and fewer, and tells how long a
step takes.
"""

import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from charrnn.config import ModelConfig, Precision, TrainConfig
from charrnn.errors import SettingError, is_out_of_memory
from charrnn.model.network import CharRNN
from charrnn.training.learner import Learner
from charrnn.training.plan import Pace, Plan, make_plan

RACE_SECONDS = 0.25  # how long one contestant runs
RACE_STEPS = 3  # and at least how many steps, one to warm up not counted
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


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
        raced = not config.threads and self.device == "cpu"
        self._fewer = sorted({1, self.threads // 2} - {0, self.threads}) if raced else []
        self._precision = config.precision
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
        torch.set_num_threads(self.threads)

    def pace(self, model: ModelConfig, train: TrainConfig, vocabulary_size: int) -> Pace:
        """Races precisions, then numbers of threads, for a moment each, on this very network.

        Fewer threads than cores win with small networks, and where other programs are busy.
        """
        finished: list[tuple[float, Precision, int]] = []
        note = ""

        def race(precision: Precision, threads: int) -> None:
            torch.set_num_threads(threads)
            finished.append((self._race(model, train, vocabulary_size, precision), precision, threads))

        for precision in _PRECISIONS if self._precision == "auto" else (self._precision,):
            try:
                race(precision, self.threads)
            except RuntimeError as error:  # no bf16 kernel for this processor (pytorch#88136)
                if precision == "fp32" or is_out_of_memory(error):
                    raise
                note = f"this machine cannot train in bf16 ({str(error).splitlines()[0]}), so fp32 it is"
        if not finished:
            race("fp32", self.threads)
        winner = min(finished)[1]
        for threads in self._fewer:
            race(winner, threads)
        seconds, precision, threads = min(finished)
        torch.set_num_threads(threads)
        return Pace(seconds, precision, threads, note)

    def _race(self, model: ModelConfig, train: TrainConfig, vocabulary_size: int, precision: Precision) -> float:
        network = CharRNN(model, vocabulary_size)
        network.initialize(seed=0)
        learner = Learner(network, train, self.device, precision)
        ids = np.random.default_rng(0).integers(vocabulary_size, size=(train.seq_length, train.batch_size))
        state = network.zero_state(train.batch_size)
        laps: list[float] = []
        while len(laps) <= RACE_STEPS or sum(laps) < RACE_SECONDS:
            started = time.perf_counter()
            _, state = learner.step(ids, ids, state, learning_rate=1e-4)
            laps.append(time.perf_counter() - started)
            if len(laps) > 1 and sum(laps) > 4 * RACE_SECONDS:
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
    return make_plan(characters, distinct, {**given, "device": machine.device}, machine.pace)


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
