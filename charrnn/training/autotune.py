"""Autotuning: measure how fast this machine trains a network.

A few optimizer steps are timed with float32 and bfloat16, with the compiled kernels and torch's layers, and with all
cores and with fewer. The fastest settings are chosen. Their time per step is the basis of the plan.
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
from charrnn.errors import SettingError, shortage
from charrnn.io.memory import available_memory
from charrnn.rnn.backend import fastest, resolve_device
from charrnn.rnn.costs import TYPICAL, Costs
from charrnn.rnn.numpy_rnn import NumPyRNN
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.rnn.worker_pool import check_threads, usable_cores
from charrnn.training.plan import Plan, StepTiming, make_plan
from charrnn.training.train_step import WARMUP_STEPS, TrainStep

TRIAL_SECONDS = 0.25  # minimum time for which each combination of settings is timed
TRIAL_STEPS = 3  # minimum number of steps that are timed, without the warmup
_COSTS_VOCAB_SIZE = 65  # V of the networks that are timed in NumPy
_MIN_COST = 1e-13  # seconds; replaces measured costs that are 0 or negative because of noise
_MALLOC = {-4: 0, -1: 2**31 - 1, -8: 1}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX of malloc.h


class Autotuner:
    """Finds the fastest settings to train a network on this machine.

    Args:
        config: Device, threads, precision and engine. The autotuner chooses those that the user did not set.
        document_length: Mean number of symbols in a document, or None if the text is not divided into documents.

    Attributes:
        device: Device that trains.
        threads: Number of CPU threads that the user chose, or else of usable cores.

    Raises:
        SettingError: If this machine does not have the device, or the engine does not run on it.
    """

    def __init__(self, config: TrainConfig, document_length: float | None = None) -> None:
        self.device = resolve_device(config.device)
        self.threads = config.threads or usable_cores()
        try_threads = not config.threads and self.device == "cpu"
        if config.engine == "native" and self.device != "cpu":
            raise SettingError("engine", f"native cannot be combined with --device {self.device}", "leave it out")
        self._fewer_threads = sorted({1, self.threads // 2} - {0, self.threads}) if try_threads else []
        self._config, self._document_length = config, document_length

    def measure_step(self, model: ModelConfig, train: TrainConfig, vocab_size: int) -> StepTiming:
        """Time the training step of a network with each precision and engine, then with fewer threads.

        Fewer threads than cores are faster for small networks, and when other programs use the cores.

        Returns:
            The timing with the fastest settings.

        Raises:
            SettingError: If the chosen engine or precision is not available on this machine.
        """
        timings: list[StepTiming] = []
        notes: list[str] = []

        def measure(precision: Precision, engine: Engine, threads: int) -> None:
            config = replace(train, device=self.device, precision=precision, engine=engine, threads=threads)
            limit = 2 * min(timing.seconds_per_step for timing in timings) if timings else math.inf
            seconds = self._time_step(model, config, vocab_size, limit)
            timings.append(StepTiming(seconds, precision, engine, threads))

        def measure_engines(precision: Precision) -> None:
            for engine in self._engines():
                try:
                    measure(precision, engine, self.threads)
                except (RuntimeError, ImportError, OSError) as error:  # missing kernel (pytorch#88136)
                    if shortage(error) or (precision, engine) == ("fp32", "torch"):
                        raise
                    reason = (str(error).splitlines() or [type(error).__name__])[0]
                    if engine == self._config.engine == "native":
                        raise _unavailable("engine", "native", reason, "torch") from None
                    if engine == "native":
                        notes.append(f"using torch's layers, because the compiled kernels cannot run ({reason})")
                    elif not timings and precision == self._config.precision:
                        raise _unavailable("precision", precision, reason, "fp32") from None
                    elif not timings:
                        notes.append(f"using fp32, because this machine cannot train in bf16 ({reason})")

        precisions = self._precisions()
        for precision in precisions:
            measure_engines(precision)
        if not timings and "fp32" not in precisions:
            measure_engines("fp32")
        if not timings:
            measure("fp32", "torch", self.threads)
        best = fastest(timings)
        for threads in self._fewer_threads:
            measure(best.precision, best.engine, threads)
        return replace(fastest(timings), note="; ".join(dict.fromkeys(notes)))

    def _precisions(self) -> tuple[Precision, ...]:
        """Return the precisions that are worth timing."""
        if self._config.precision != "auto":
            return (self._config.precision,)
        return cpu_precisions() if self.device == "cpu" else ("fp32", "bf16")

    def _engines(self) -> tuple[Engine, ...]:
        if self.device != "cpu":
            return ("torch",)
        return ("native", "torch") if self._config.engine == "auto" else (self._config.engine,)

    def _time_step(self, model: ModelConfig, train: TrainConfig, vocab_size: int, limit: float) -> float:
        """Return the median seconds of a step. Measure fewer steps if they take longer than ``limit`` seconds."""
        network = CharRNN(model, vocab_size, None if self._document_length is None else 0)
        network.initialize(seed=0)
        train_step = TrainStep(network, train)
        train_step.try_layers()  # compiles kernels on first use, outside the timing
        random, shape = np.random.default_rng(0), (train.seq_length, train.batch_size)
        ids = random.integers(vocab_size, size=shape)
        if self._document_length is not None:  # id 0 is the document boundary
            ids = np.where(random.random(shape) < 1 / (1 + self._document_length), 0, np.maximum(ids, 1))
        state = network.zero_state(train.batch_size)
        seconds: list[float] = []
        while len(seconds) < WARMUP_STEPS + TRIAL_STEPS or sum(seconds[WARMUP_STEPS:]) < TRIAL_SECONDS:
            started = time.perf_counter()
            _, state = train_step.step(len(seconds), ids, ids, state, learning_rate=1e-4)
            seconds.append(time.perf_counter() - started)
            if seconds[0] > max(10 * limit, 4 * TRIAL_SECONDS):  # far too slow, as with all cores when one is busy
                return seconds[0]
            timed = seconds[WARMUP_STEPS:]
            if timed and (timed[-1] > limit or sum(timed) > 4 * TRIAL_SECONDS):
                break
        return statistics.median(seconds[WARMUP_STEPS:])


def _unavailable(setting: str, value: str, reason: str, alternative: str) -> SettingError:
    return SettingError(setting, f"{value} is not available here ({reason})", f"leave it out, or give {alternative}")


def measure_costs() -> Costs:
    """Measure the time costs of NumPy on this machine, in about a second. The other costs are typical values."""
    small, large = ModelConfig(hidden=64), ModelConfig(hidden=256)
    small_size, large_size = (model.num_parameters(_COSTS_VOCAB_SIZE) for model in (small, large))
    small_char, large_char = (_seconds_per_step(model, "int8", 1) for model in (small, large))
    per_parameter = max(large_char - small_char, 0) / (large_size - small_size)
    small_1, small_33, large_33 = (
        _seconds_per_step(model, "fp32", streams) for model, streams in ((small, 1), (small, 33), (large, 33))
    )
    per_stream_parameter = max(large_33 - small_33, 0) / 33 / (large_size - small_size)
    per_stream = max((small_33 - small_1) / 32 - small_size * per_stream_parameter, 0)
    measured = {
        "numpy_char": small_char - small_size * per_parameter, "numpy_char_parameter": per_parameter,
        "numpy_step": small_1 - per_stream, "numpy_stream": per_stream,
        "numpy_stream_parameter": per_stream_parameter,
    }  # fmt: skip
    return replace(TYPICAL, **{name: max(seconds, _MIN_COST) for name, seconds in measured.items()})


def _seconds_per_step(model: ModelConfig, precision: SamplePrecision, streams: int) -> float:
    """Return the median seconds in which NumPy reads a character of each stream."""
    random = np.random.default_rng(0)
    shapes = model.tensor_shapes(_COSTS_VOCAB_SIZE).items()
    network = NumPyRNN(model, {name: random.random(shape, np.float32) * 0.1 for name, shape in shapes}, precision)
    ids, state, seconds = np.arange(streams), network.zero_state(streams), list[float]()
    while len(seconds) < 20 or sum(seconds) < 0.05:
        started = time.perf_counter()
        _, state = network.step(ids, state)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def set_up_torch(threads: int) -> None:
    """Set the options of this process for training: no TF32, number of threads, memory allocation.

    Raises:
        RuntimeError: If the threads cannot be started.
    """
    check_threads(2 * threads)  # of torch and of the worker pool
    torch.backends.cudnn.allow_tf32 = False  # TF32 is less precise than fp32
    torch.set_num_threads(threads)
    keep_freed_memory()


def cpu_precisions() -> tuple[Precision, ...]:
    """Return the precisions that may be the fastest on this CPU.

    Without instructions for bf16, a matrix product in bf16 takes up to a hundred times as long. If bf16 is
    more than twice as fast, fp32 is not timed, which saves the compilation of its kernels.
    """
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(256, 256, dtype=dtype)
        trials = []
        for _ in range(3):
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            trials.append(time.perf_counter() - started)
        seconds.append(min(trials))
    speedup = seconds[0] / seconds[1]
    return ("fp32",) if speedup < 1 else ("fp32", "bf16") if speedup < 2 else ("bf16",)


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
    """Return a plan for a corpus with the measured speed of this machine, and call `set_up_torch`.

    Raises:
        SettingError: If this machine does not have the device, two settings exclude each other, or a chosen size
            needs more memory than is available.
        CharrnnError: If even the smallest network needs more memory than is available.
    """
    document_length = corpus.characters / corpus.num_documents if corpus.num_documents else None
    autotuner = Autotuner(overrides.apply(TrainConfig()), document_length)
    set_up_torch(autotuner.threads)
    overrides = replace(overrides, device=autotuner.device)
    return make_plan(
        len(corpus.stored_ids), len(corpus.vocabulary), overrides, autotuner.measure_step, available_memory()
    )
