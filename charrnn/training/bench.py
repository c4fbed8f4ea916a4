"""Measure how fast this machine trains and generates.

Training is timed by the autotuning that precedes every run (``autotune.py``), and generation by the loop of ``charrnn
sample`` (``generation/generate.py``). Training is compared with the speed of a large matrix product on the same
machine, because a fast implementation spends most of its time in matrix products.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

import torch

from charrnn.checkpoint import Checkpoint
from charrnn.config import Engine, ModelConfig, Precision, SampleConfig, TrainConfig
from charrnn.data.vocabulary import Vocabulary
from charrnn.generation.generate import generate
from charrnn.io.memory import available_memory
from charrnn.rnn.backend import DecoderSelector
from charrnn.rnn.costs import processor_name
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.training.autotune import Autotuner, set_up_torch
from charrnn.training.memory import check_memory, step_bytes

VOCABULARY = Vocabulary("".join(map(chr, range(32, 97))))  # V = 65, as in tiny-shakespeare
FLOPS = 6  # flops per parameter and character: a multiplication and an addition, once forward and twice backward
SAMPLING_SECONDS = 0.3  # duration of the timed generation
SAMPLING_WARM_UP = 50  # characters before the timed generation
LIMIT_SIZE = 2048  # rows and columns of the matrices of the timed product
LIMIT_SECONDS = 0.5  # duration of all trials
LIMIT_TRIAL_SECONDS = 0.05  # duration of a trial; in a shorter one, a GPU would mostly wait for the host

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class HostInfo:
    """The measured machine."""

    processor: str
    cores: int  # cores that this process may use
    device: str
    torch: str  # version of torch


@dataclass(frozen=True)
class BenchResult:
    """The measured speed of one network."""

    cell: str
    layers: int
    hidden: int
    parameters: int
    precision: Precision  # fastest precision
    engine: Engine  # fastest engine
    threads: int  # fastest number of threads
    seconds_per_step: float
    training_chars_per_second: float  # B * T characters per step
    gflops: float  # 1e9 floating-point operations per second in training, counted with FLOPS
    limit_gflops: float  # 1e9 floating-point operations per second of the matrix product at this precision
    share_of_limit: float  # gflops / limit_gflops
    sampling_chars_per_second: float  # one stream on the CPU
    note: str  # note for the user, such as the reason why bf16 is not used


class Bench:
    """Measurements on this machine.

    Args:
        config: Device and threads, batch size B and sequence length T of the training.

    Raises:
        SettingError: If this machine does not have the device.
    """

    def __init__(self, config: TrainConfig) -> None:
        cores = Autotuner(replace(config, threads=0)).threads
        self._config = config
        self._autotuner = Autotuner(config)
        self._limits: dict[Precision, float] = {}
        device = self._autotuner.device
        self.host = HostInfo(_processor(device), cores, device, torch.__version__)

    def check_memory(self, models: Iterable[ModelConfig], chosen: Collection[str]) -> None:
        """Check that there is enough memory for each network; see `charrnn.training.memory.check_memory`."""
        for model in models:
            check_memory(model, self._config, len(VOCABULARY), available_memory(), chosen, step_bytes)

    def speed(self, model: ModelConfig) -> BenchResult:
        """Measure the speed of one network. This takes a few seconds."""
        set_up_torch(self._autotuner.threads)
        vocab_size, config = len(VOCABULARY), self._config
        timing = self._autotuner.measure_step(model, config, vocab_size)
        parameters = model.num_parameters(vocab_size)
        training_chars_per_second = config.batch_size * config.seq_length / timing.seconds_per_step
        gflops = FLOPS * parameters * training_chars_per_second / 1e9
        limit_gflops = self._limit_gflops(timing.precision)
        return BenchResult(
            cell=model.cell,
            layers=model.layers,
            hidden=model.hidden,
            parameters=parameters,
            precision=timing.precision,
            engine=timing.engine,
            threads=timing.threads,
            seconds_per_step=timing.seconds_per_step,
            training_chars_per_second=training_chars_per_second,
            gflops=gflops,
            limit_gflops=limit_gflops,
            share_of_limit=gflops / limit_gflops,
            sampling_chars_per_second=_sampling_chars_per_second(model),
            note=timing.note,
        )

    def _limit_gflops(self, precision: Precision) -> float:
        """Return the speed of the matrix product in Gflop/s, measured once for each precision."""
        if precision not in self._limits:
            torch.set_num_threads(self._autotuner.threads)
            self._limits[precision] = _product_gflops(self._autotuner.device, _DTYPES[precision])
        return self._limits[precision]


def _product_gflops(device: str, dtype: torch.dtype) -> float:
    """Return the speed of square matrix products in Gflop/s, the best of several trials."""
    matrix = torch.full((LIMIT_SIZE, LIMIT_SIZE), 1 / LIMIT_SIZE, device=device, dtype=dtype)

    def seconds_per_product(products: int) -> float:
        started = time.perf_counter()
        for _ in range(products):
            product = matrix @ matrix
        float(product[0, 0])  # waits for a GPU
        return (time.perf_counter() - started) / products

    seconds_per_product(1)  # warmup
    products = max(1, round(LIMIT_TRIAL_SECONDS / seconds_per_product(1)))
    return 2 * LIMIT_SIZE**3 / min(_repeat(lambda: seconds_per_product(products), LIMIT_SECONDS)) / 1e9


def _repeat(measure: Callable[[], float], seconds: float) -> Iterable[float]:
    """Yield measurements for a number of seconds, at least one."""
    end = time.perf_counter() + seconds
    yield measure()
    while time.perf_counter() < end:
        yield measure()


def _sampling_chars_per_second(config: ModelConfig) -> float:
    """Return the number of characters per second that a single stream generates."""
    network = CharRNN(config, len(VOCABULARY))
    network.initialize(seed=0)
    model = Checkpoint(config, VOCABULARY, network.tensors())
    decoder = DecoderSelector(model).choose("int8", math.inf)
    chunks = generate(decoder, VOCABULARY, SampleConfig(length=0, seed=0))
    characters = 0
    while characters < SAMPLING_WARM_UP:
        characters += len(next(chunks).text)
    characters, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < SAMPLING_SECONDS:
        characters += len(next(chunks).text)
    return characters / seconds


def _processor(device: str) -> str:
    """Return the name of the processor, and the vector instructions that torch uses on a CPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor_name()} ({torch.backends.cpu.get_cpu_capability()})"
