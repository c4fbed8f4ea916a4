"""The time costs of the backends, measured on this machine, or typical of a laptop.

``charrnn bench`` measures them (``training/autotune.py``), and `save_costs` stores them in the user's cache.
"""

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from charrnn.errors import FileError
from charrnn.io.atomic_io import write_atomic
from charrnn.io.user_cache import user_cache
from charrnn.version import __version__

_NAME = "costs.json"
_MAX_BYTES = 1 << 16  # of the file, which has about 400
_MAX_COST = 1e3  # seconds; a file with a larger cost is treated as damaged


@dataclass(frozen=True)
class Costs:
    """Costs in seconds. Only their ratios matter."""

    load_compiled: float = 0.05  # load llvmlite and compiled code
    compile: float = 1.5  # compile the decoder, once on a machine
    load_torch: float = 2.0  # load torch and the training kernels
    numpy_char: float = 2e-4  # NumPy in int8, one stream: base cost per character
    numpy_char_parameter: float = 4e-10  # the same: added per character and parameter
    numpy_step: float = 6e-5  # NumPy in fp32: base cost per step
    numpy_stream: float = 5e-6  # the same: added per step and stream
    numpy_stream_parameter: float = 3e-11  # the same: added per step, stream and parameter

    def decoding(self, characters: float, parameters: int) -> float:
        """Return the time that NumPy takes to read and generate characters one by one."""
        return characters * (self.numpy_char + parameters * self.numpy_char_parameter)

    def reading(self, steps: int, streams: int, parameters: int) -> float:
        """Return the time that NumPy takes to read T steps of B streams."""
        return steps * (self.numpy_step + streams * (self.numpy_stream + parameters * self.numpy_stream_parameter))


TYPICAL = Costs()


def load_costs() -> Costs:
    """Return the costs saved for this machine and these versions, or typical costs if there are none."""
    if (path := _path()) is None:
        return TYPICAL
    try:
        with path.open("rb") as file:
            saved = json.loads(file.read(_MAX_BYTES))
        costs = saved["costs"]
        matches = saved["machine"] == _machine() and costs.keys() == {field.name for field in fields(Costs)}
        valid = matches and all(isinstance(cost, float) and 0 < cost < _MAX_COST for cost in costs.values())
        return Costs(**costs) if valid else TYPICAL
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):  # missing or damaged
        return TYPICAL


def save_costs(costs: Costs) -> bool:
    """Save costs for later processes, and return whether they were saved."""
    path, values = _path(), asdict(costs)
    if path is None or not all(math.isfinite(value) for value in values.values()):
        return False
    try:
        write_atomic(path, json.dumps({"machine": _machine(), "costs": values}).encode())
    except FileError:
        return False
    return True


def processor_name() -> str:
    """Return the name of the processor, or its architecture if the system does not report a name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _machine() -> str:
    """Return a description of the versions and hardware that the costs depend on."""
    return f"charrnn {__version__}, numpy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores"


def _path() -> Path | None:
    directory = user_cache()
    return None if directory is None else directory / _NAME
