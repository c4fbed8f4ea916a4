"""How fast this machine trains a network: measured, not looked up.

A few optimizer steps of each way to train decide between float32 and bfloat16, the compiled kernels and torch's
layers, all cores and fewer, and tell how long a step takes.
"""

import ctypes
import math
import statistics
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from charrnn.config import Engine, ModelConfig, Precision, SamplePrecision, TrainConfig
from charrnn.config.overrides import Overrides
from charrnn.data.corpus import Corpus
from charrnn.errors import is_out_of_memory
from charrnn.rnn.backend import fastest, resolve_device
from charrnn.rnn.costs import TYPICAL, Costs
from charrnn.rnn.numpy_rnn import NumPyRNN
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.torch_scorer import autocast
from charrnn.rnn.worker_pool import usable_cores
from charrnn.training.plan import Plan, StepTiming, make_plan
from charrnn.training.train_step import WARMUP_STEPS, TrainStep

TRIAL_SECONDS = 0.25  # how long one way to train is tried
TRIAL_STEPS = 3  # and at least how many steps, those to warm up not counted
_COSTS_VOCABULARY = 65  # characters of the networks that are timed in NumPy
_MIN_COST = 1e-13  # seconds; what is measured may be lost in the noise
_MALLOC = {-4: 0, -1: 2**31 - 1, -8: 1}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX of malloc.h


class Autotuner:
    """Finds the fastest way to train a network on this machine.

    Args:
        config: what the user asked for as to device, threads, precision and engine.
        document: mean symbols of a document, where the text consists of documents.

    Raises:
        SettingError: a device that this machine doesn't have.
    """

    def __init__(self, config: TrainConfig, document: float | None = None) -> None:
        self.device = resolve_device(config.device)
        self.threads = config.threads or usable_cores()
        tries_threads = not config.threads and self.device == "cpu"
        self._fewer_threads = sorted({1, self.threads // 2} - {0, self.threads}) if tries_threads else []
        self._config, self._document = config, document

    def measure_step(self, model: ModelConfig, train: TrainConfig, vocab_size: int) -> StepTiming:
        """Try precisions and engines, then numbers of threads, for a moment each, on this very network.

        Fewer threads than cores win with small networks, and where other programs are busy.
        """
        timings: list[StepTiming] = []
        notes: list[str] = []

        def attempt(precision: Precision, engine: Engine, threads: int) -> None:
            settled = replace(train, device=self.device, precision=precision, engine=engine, threads=threads)
            limit = 2 * min(timing.seconds_per_step for timing in timings) if timings else math.inf
            seconds = self._time_step(model, settled, vocab_size, limit)
            timings.append(StepTiming(seconds, precision, engine, threads))

        def attempt_engines(precision: Precision) -> None:
            for engine in self._engines():
                try:
                    attempt(precision, engine, self.threads)
                except (RuntimeError, ImportError, OSError) as error:  # no such kernel here (pytorch#88136)
                    if is_out_of_memory(error) or (precision, engine) == ("fp32", "torch"):
                        raise
                    reason = (str(error).splitlines() or [type(error).__name__])[0]
                    if engine == "native":
                        notes.append(f"our kernels cannot run here ({reason}), so torch's layers train")
                    elif not timings:
                        notes.append(f"this machine cannot train in bf16 ({reason}), so fp32 it is")

        precisions = self._precisions()
        for precision in precisions:
            attempt_engines(precision)
        if not timings and "fp32" not in precisions:
            attempt_engines("fp32")
        if not timings:
            attempt("fp32", "torch", self.threads)
        best = fastest(timings)
        for threads in self._fewer_threads:
            attempt(best.precision, best.engine, threads)
        return replace(fastest(timings), note="; ".join(dict.fromkeys(notes)))

    def _precisions(self) -> tuple[Precision, ...]:
        """Return those that are worth a trial."""
        if self._config.precision != "auto":
            return (self._config.precision,)
        return cpu_precisions() if self.device == "cpu" else ("fp32", "bf16")

    def _engines(self) -> tuple[Engine, ...]:
        if self.device != "cpu":
            return ("torch",)
        return ("native", "torch") if self._config.engine == "auto" else (self._config.engine,)

    def _time_step(self, model: ModelConfig, train: TrainConfig, vocab_size: int, limit: float) -> float:
        """Return the seconds of a step; after fewer steps where they take longer than ``limit``."""
        network = CharRNN(model, vocab_size, None if self._document is None else 0)
        network.initialize(seed=0)
        train_step = TrainStep(network, train)
        with autocast(self.device, train.precision):  # compiles kernels that were never used, outside the timing
            first = torch.zeros(1, 1, dtype=torch.long, device=self.device)
            network(first, network.zero_state(1))[0].sum().backward()
        random, size = np.random.default_rng(0), (train.seq_length, train.batch_size)
        ids = random.integers(vocab_size, size=size)
        if self._document is not None:
            ids = np.where(random.random(size) < 1 / (1 + self._document), 0, np.maximum(ids, 1))
        state = network.zero_state(train.batch_size)
        seconds: list[float] = []
        while len(seconds) < WARMUP_STEPS + TRIAL_STEPS or sum(seconds[WARMUP_STEPS:]) < TRIAL_SECONDS:
            started = time.perf_counter()
            _, state = train_step.step(len(seconds), ids, ids, state, learning_rate=1e-4)
            seconds.append(time.perf_counter() - started)
            if seconds[0] > max(10 * limit, 4 * TRIAL_SECONDS):  # hopeless, such as all cores where one is busy
                return seconds[0]
            counted = seconds[WARMUP_STEPS:]
            if counted and (counted[-1] > limit or sum(counted) > 4 * TRIAL_SECONDS):
                break
        return statistics.median(seconds[WARMUP_STEPS:])


def measure_costs() -> Costs:
    """Measure what NumPy takes on this machine; a second. What it is compared with stays as it is typical."""
    small, large = ModelConfig(hidden=64), ModelConfig(hidden=256)
    sizes = [model.num_parameters(_COSTS_VOCABULARY) for model in (small, large)]
    decoding = [_seconds_per_step(model, "int8", 1) for model in (small, large)]
    per_parameter = max(decoding[1] - decoding[0], 0) / (sizes[1] - sizes[0])
    alone, together, larger = (
        _seconds_per_step(model, "fp32", streams) for model, streams in ((small, 1), (small, 33), (large, 33))
    )
    per_stream_parameter = max(larger - together, 0) / 33 / (sizes[1] - sizes[0])
    per_stream = max((together - alone) / 32 - sizes[0] * per_stream_parameter, 0)
    measured = {
        "numpy_char": decoding[0] - sizes[0] * per_parameter, "numpy_char_parameter": per_parameter,
        "numpy_step": alone - per_stream, "numpy_stream": per_stream,
        "numpy_stream_parameter": per_stream_parameter,
    }  # fmt: skip
    return replace(TYPICAL, **{name: max(seconds, _MIN_COST) for name, seconds in measured.items()})


def _seconds_per_step(model: ModelConfig, precision: SamplePrecision, streams: int) -> float:
    """Return the seconds in which NumPy reads a character of each stream."""
    random = np.random.default_rng(0)
    shapes = model.tensor_shapes(_COSTS_VOCABULARY).items()
    network = NumPyRNN(model, {name: random.random(shape, np.float32) * 0.1 for name, shape in shapes}, precision)
    ids, state, seconds = np.arange(streams), network.zero_state(streams), list[float]()
    while len(seconds) < 20 or sum(seconds) < 0.05:
        started = time.perf_counter()
        _, state = network.step(ids, state)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def set_up_torch(threads: int) -> None:
    """Set what holds for the whole process while it trains."""
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    torch.set_num_threads(threads)
    keep_freed_memory()


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


def keep_freed_memory() -> None:
    """Make the GNU C library keep freed memory for later allocations instead of returning it to the system.

    Every step allocates the same large arrays. The system provides new memory page by page and fills each page with
    zeros, which takes 10 to 20 % of a step. With other C libraries this does nothing.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


def plan_for_this_machine(corpus: Corpus, overrides: Overrides) -> Plan:
    """`make_plan` for a text with the pace of this machine, which is set up to train on the way.

    Raises:
        SettingError: a device that this machine doesn't have.
    """
    document = corpus.characters / corpus.num_documents if corpus.num_documents else None
    tuner = Autotuner(overrides.apply(TrainConfig()), document)
    set_up_torch(tuner.threads)
    overrides = replace(overrides, device=tuner.device)
    return make_plan(len(corpus.stored_ids), len(corpus.vocabulary), overrides, tuner.measure_step)
