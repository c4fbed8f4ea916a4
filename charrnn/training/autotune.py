"""What this machine is and how fast it trains: measured, not looked up.

A short race of a few real optimizer steps decides between fp32 and bf16, our kernels and torch's layers, all cores
and fewer, and tells how long a step takes.
"""

import ctypes
import math
import os
import statistics
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from charrnn.config import Device, Engine, ModelConfig, Precision, TrainConfig
from charrnn.data.corpus import Corpus
from charrnn.errors import SettingError, is_out_of_memory
from charrnn.overrides import Overrides
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.training.cuda_graphs import Captured
from charrnn.training.plan import Plan, StepTiming, make_plan
from charrnn.training.train_step import TrainStep, autocast

RACE_SECONDS = 0.25  # how long one contestant runs
RACE_STEPS = 3  # and at least how many steps, those to warm up not counted
HANDICAP = 1.15  # of torch's layers, which our kernels need not quite beat
_MALLOC = {-4: 0, -1: 2**31 - 1, -8: 1}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX of malloc.h


class Autotuner:
    """The device that trains.

    Args:
        config: the wishes as to device, threads, precision and engine.
        document: symbols of a document in the mean, where the text consists of documents.

    Raises:
        SettingError: a device that this machine doesn't have.
    """

    def __init__(self, config: TrainConfig, document: float | None = None) -> None:
        self._document = document
        self.device = set_up_torch(config)
        self.threads = config.threads or _cores()
        raced = not config.threads and self.device == "cpu"
        self._fewer = sorted({1, self.threads // 2} - {0, self.threads}) if raced else []
        self._wishes = config

    def pace(self, model: ModelConfig, train: TrainConfig, vocabulary_size: int) -> StepTiming:
        """Races precisions and engines, then numbers of threads, for a moment each, on this very network.

        Fewer threads than cores win with small networks, and where other programs are busy.
        """
        finished: list[tuple[float, Precision, Engine, int]] = []
        notes: list[str] = []

        def race(precision: Precision, engine: Engine, threads: int) -> None:
            torch.set_num_threads(threads)
            settled = replace(train, device=self.device, precision=precision, engine=engine, threads=threads)
            limit = 2 * min(finished)[0] if finished else math.inf
            finished.append((self._race(model, settled, vocabulary_size, limit, notes), precision, engine, threads))

        def attempt(precision: Precision) -> None:
            for engine in self._engines():
                try:
                    race(precision, engine, self.threads)
                except (RuntimeError, ImportError, OSError) as error:  # no such kernel here (pytorch#88136)
                    if is_out_of_memory(error) or (precision, engine) == ("fp32", "stock"):
                        raise
                    reason = (str(error).splitlines() or [type(error).__name__])[0]
                    if engine == "fused":
                        notes.append(f"our kernels cannot run here ({reason}), so torch's layers train")
                    elif not finished:
                        notes.append(f"this machine cannot train in bf16 ({reason}), so fp32 it is")

        precisions = self._precisions()
        for precision in precisions:
            attempt(precision)
        if not finished and "fp32" not in precisions:
            attempt("fp32")
        if not finished:
            race("fp32", "stock", self.threads)
        _, precision, engine, _ = min(finished, key=_price)
        for threads in self._fewer:
            race(precision, engine, threads)
        seconds, precision, engine, threads = min(finished, key=_price)
        torch.set_num_threads(threads)
        return StepTiming(seconds, precision, engine, threads, "; ".join(dict.fromkeys(notes)))

    def _precisions(self) -> tuple[Precision, ...]:
        """Those that are worth a race."""
        if self._wishes.precision != "auto":
            return (self._wishes.precision,)
        return cpu_precisions() if self.device == "cpu" else ("fp32", "bf16")

    def _engines(self) -> tuple[Engine, ...]:
        if self.device != "cpu":
            return ("stock",)
        return ("fused", "stock") if self._wishes.engine == "auto" else (self._wishes.engine,)

    def _race(
        self, model: ModelConfig, train: TrainConfig, vocabulary_size: int, limit: float, notes: list[str]
    ) -> float:
        """Seconds per step, of fewer where they take longer than ``limit``; adds to the notes what went wrong."""
        network = CharRNN(model, vocabulary_size, None if self._document is None else 0)
        network.initialize(seed=0)
        learner = TrainStep(network, train)
        with autocast(self.device, train.precision):  # compiles kernels that were never used, which is no lap
            first = torch.zeros(1, 1, dtype=torch.long, device=self.device)
            network(first, network.zero_state(1))[0].sum().backward()
        random, size = np.random.default_rng(0), (train.seq_length, train.batch_size)
        ids = random.integers(vocabulary_size, size=size)
        if self._document is not None:
            ids = np.where(random.random(size) < 1 / (1 + self._document), 0, np.maximum(ids, 1))
        state = network.zero_state(train.batch_size)
        laps: list[float] = []
        while len(laps) < learner.warm_up + RACE_STEPS or sum(laps[learner.warm_up :]) < RACE_SECONDS:
            started = time.perf_counter()
            _, state = learner.step(len(laps), ids, ids, state, learning_rate=1e-4)
            laps.append(time.perf_counter() - started)
            if laps[0] > max(10 * limit, 4 * RACE_SECONDS):  # hopeless, such as all cores where one of them is busy
                return laps[0]
            counted = laps[learner.warm_up :]
            if counted and (counted[-1] > limit or sum(counted) > 4 * RACE_SECONDS):
                break
        if Captured.refusal:
            notes.append(f"the step cannot be a CUDA graph here ({Captured.refusal}), so Python slows it down")
        return statistics.median(laps[learner.warm_up :])


def _price(finished: tuple[float, Precision, Engine, int]) -> float:
    """Seconds of a step, and a little for what a race of a moment does not see.

    Torch's layers divide each operation among the cores and wait for the slowest: another program that wants a core
    for a while slows them four to sixty times, and ours two to three times. And a run that always takes the same
    engine can be repeated to the bit.
    """
    seconds, _, engine, _ = finished
    return seconds * (HANDICAP if engine == "stock" else 1)


def cpu_precisions() -> tuple[Precision, ...]:
    """Those that could be the faster one: bf16 where there are instructions for it, else it takes a hundredfold.

    Where its products are more than twice as fast, fp32 need not be tried, nor kernels compiled for it.
    """
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(256, 256, dtype=dtype)
        laps = []
        for _ in range(3):
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            laps.append(time.perf_counter() - started)
        seconds.append(min(laps))
    gain = seconds[0] / seconds[1]
    return ("fp32",) if gain < 1 else ("fp32", "bf16") if gain < 2 else ("bf16",)


def keep_memory() -> None:
    """Lets the GNU C library keep the memory that this process frees, instead of asking the system for it anew.

    Every step allocates the same large arrays, and the system hands memory out page by page, each filled with zeros
    first: that takes a tenth of the time of a step, or two. Other C libraries are left alone.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


def plan_here(corpus: Corpus, overrides: Overrides) -> Plan:
    """`make_plan` for a text with the pace of this machine, which is set up to train on the way.

    Raises:
        SettingError: a device that this machine doesn't have.
    """
    document = corpus.characters / corpus.documents if corpus.documents else None
    machine = Autotuner(overrides.apply(TrainConfig()), document)
    overrides = replace(overrides, device=machine.device)
    return make_plan(len(corpus.stored), len(corpus.vocabulary), overrides, machine.pace)


def set_up_torch(config: TrainConfig) -> Device:
    """Set torch's threads, precision and memory for a run, and return its device.

    Raises:
        SettingError: a device that this machine doesn't have.
    """
    device = _device(config.device)
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    torch.set_num_threads(config.threads or _cores())
    keep_memory()
    return device


def _device(wish: Device) -> Device:
    if wish == "auto":  # never mps: its recurrent gradients have been silently wrong (pytorch#190056)
        return "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(wish, True):
        raise SettingError("device", f"torch finds no {wish} here", "give cpu")
    return wish


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
