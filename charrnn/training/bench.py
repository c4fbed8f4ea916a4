"""How fast this machine trains and samples: a few networks, a moment each.

Training is timed by the race that precedes every run (``autotune.py``), sampling by the loop that ``charrnn
sample`` runs (``generation/generate.py``). Beside them stands what the same machine gives in one
large matrix product, which is where the time of a well-built training goes. Knows nothing
about corpora, tables or terminals.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from charrnn.checkpoint import Checkpoint
from charrnn.config import Engine, ModelConfig, Precision, SampleConfig, TrainConfig
from charrnn.data.vocabulary import Vocabulary
from charrnn.generation.generate import generate
from charrnn.rnn.backend import DecoderSelector
from charrnn.rnn.costs import processor_name
from charrnn.rnn.torch_rnn import CharRNN
from charrnn.training.autotune import Autotuner, set_up_torch

VOCABULARY = Vocabulary("".join(map(chr, range(32, 97))))  # V = 65, as in tiny-shakespeare
FLOPS = 6  # per parameter and character: a product and a sum, forward once and backward twice
SAMPLING_SECONDS = 0.3
SAMPLING_WARM_UP = 50  # characters
LIMIT_SIZE = 2048  # rows and columns of the matrices whose product is the limit
LIMIT_SECONDS = 0.5
LIMIT_LAP_SECONDS = 0.05  # products are timed in groups that take this long, or a GPU's clock would be our waiting

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class HostInfo:
    """What was measured."""

    processor: str
    cores: int  # that this process may use
    device: str
    torch: str  # its version


@dataclass(frozen=True)
class BenchResult:
    """What a machine gives with one network."""

    cell: str
    layers: int
    hidden: int
    parameters: int
    precision: Precision  # the fastest, and so the next two
    engine: Engine
    threads: int
    seconds_per_step: float
    training_chars_per_second: float  # B * T characters in each step
    gflops: float  # 1e9 floating-point operations per second, counted as FLOPS per parameter and character
    limit_gflops: float  # of the matrix product at this precision
    share_of_limit: float
    sampling_chars_per_second: float  # one stream, by NumPy on the CPU
    note: str  # anything that a person should know, such as why bf16 is not used


class Bench:
    """A machine to try networks on.

    Args:
        config: device and threads; B and T of the training.

    Raises:
        SettingError: a device that this machine doesn't have.
    """

    def __init__(self, config: TrainConfig) -> None:
        cores = Autotuner(replace(config, threads=0)).threads  # told nothing, it takes them all
        self._config = config
        self._autotuner = Autotuner(config)
        self._limits: dict[Precision, float] = {}
        device = self._autotuner.device
        self.host = HostInfo(_processor(device), cores, device, torch.__version__)

    def speed(self, model: ModelConfig) -> BenchResult:
        """Measures one network; a few seconds."""
        set_up_torch(self._autotuner.threads)
        size, config = len(VOCABULARY), self._config
        timing = self._autotuner.measure_step(model, config, size)
        parameters = model.num_parameters(size)
        training = config.batch_size * config.seq_length / timing.seconds_per_step
        gflops = FLOPS * parameters * training / 1e9
        limit = self._limit(timing.precision)
        return BenchResult(
            cell=model.cell,
            layers=model.layers,
            hidden=model.hidden,
            parameters=parameters,
            precision=timing.precision,
            engine=timing.engine,
            threads=timing.threads,
            seconds_per_step=timing.seconds_per_step,
            training_chars_per_second=training,
            gflops=gflops,
            limit_gflops=limit,
            share_of_limit=gflops / limit,
            sampling_chars_per_second=_sampling(model),
            note=timing.note,
        )

    def _limit(self, precision: Precision) -> float:
        """Gflop/s of the matrix product, measured once for each precision."""
        if precision not in self._limits:
            torch.set_num_threads(self._autotuner.threads)
            self._limits[precision] = _product_gflops(self._autotuner.device, _DTYPES[precision])
        return self._limits[precision]


def _product_gflops(device: str, dtype: torch.dtype) -> float:
    """The rate of the fastest group of square products."""
    matrix = torch.full((LIMIT_SIZE, LIMIT_SIZE), 1 / LIMIT_SIZE, device=device, dtype=dtype)

    def lap(products: int) -> float:
        """Seconds per product."""
        started = time.perf_counter()
        for _ in range(products):
            product = matrix @ matrix
        float(product[0, 0])  # a GPU is done only now
        return (time.perf_counter() - started) / products

    lap(1)
    group = max(1, round(LIMIT_LAP_SECONDS / lap(1)))
    return 2 * LIMIT_SIZE**3 / min(_repeat(lambda: lap(group), LIMIT_SECONDS)) / 1e9


def _repeat(lap: Callable[[], float], seconds: float) -> Iterable[float]:
    """The same again for so long, at least once."""
    end = time.perf_counter() + seconds
    yield lap()
    while time.perf_counter() < end:
        yield lap()


def _sampling(config: ModelConfig) -> float:
    """Characters per second of one stream, written to nowhere."""
    network = CharRNN(config, len(VOCABULARY))
    network.initialize(seed=0)
    model = Checkpoint(config, VOCABULARY, network.tensors(), {})
    engine = DecoderSelector(model).choose("int8", math.inf)
    pieces = generate(engine, VOCABULARY, SampleConfig(length=0, seed=0))
    written = 0
    while written < SAMPLING_WARM_UP:
        written += len(next(pieces).text)
    written, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < SAMPLING_SECONDS:
        written += len(next(pieces).text)
    return written / seconds


def _processor(device: str) -> str:
    """Its name and the vector instructions that torch uses, as far as the system tells."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor_name()} ({torch.backends.cpu.get_cpu_capability()})"
