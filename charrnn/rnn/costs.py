"""What the backends cost, in seconds, measured on this machine or of a laptop's order of magnitude.

``training/autotune.py`` measures it when `charrnn bench` asks for it, and `save_costs` keeps it in the user's cache.
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
_MOST_SECONDS = 1e3  # of any cost


@dataclass(frozen=True)
class Costs:
    """Seconds. Only their ratios matter."""

    load_compiled: float = 0.05  # to load the compiler's library and the code
    compile: float = 1.5  # once on a machine
    load_torch: float = 2.0  # and the training kernels
    numpy_char: float = 2e-4  # NumPy in int8: a character of a stream alone,
    numpy_char_parameter: float = 4e-10  # and for each parameter
    numpy_step: float = 6e-5  # NumPy in fp32: a step,
    numpy_stream: float = 5e-6  # for each stream of it,
    numpy_stream_parameter: float = 3e-11  # and for each parameter

    def decoding(self, characters: float, parameters: int) -> float:
        """Return the seconds in which NumPy reads and chooses characters one by one."""
        return characters * (self.numpy_char + parameters * self.numpy_char_parameter)

    def reading(self, steps: int, streams: int, parameters: int) -> float:
        """Return the seconds in which NumPy reads T steps of B streams."""
        return steps * (self.numpy_step + streams * (self.numpy_stream + parameters * self.numpy_stream_parameter))


TYPICAL = Costs()


def load_costs() -> Costs:
    """Return the costs that `save_costs` kept of this machine and these versions, or typical ones."""
    if (path := _path()) is None:
        return TYPICAL
    try:
        facts = json.loads(path.read_bytes())
        costs = facts["costs"]
        known = facts["machine"] == _machine() and costs.keys() == {field.name for field in fields(Costs)}
        sound = known and all(isinstance(cost, float) and 0 < cost < _MOST_SECONDS for cost in costs.values())
        return Costs(**costs) if sound else TYPICAL
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):  # none, or damaged
        return TYPICAL


def save_costs(costs: Costs) -> bool:
    """Keep costs for later processes, and return whether that could be done."""
    path, values = _path(), asdict(costs)
    if path is None or not all(math.isfinite(value) for value in values.values()):
        return False
    try:
        write_atomic(path, json.dumps({"machine": _machine(), "costs": values}).encode())
    except FileError:  # it is measured again the next time
        return False
    return True


def processor_name() -> str:
    """Return the name of the processor, or its architecture where the system does not tell the name."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        facts = []
    names = (line.partition(":")[2].strip() for line in facts if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _machine() -> str:
    """Return what the costs depend on."""
    return f"charrnn {__version__}, numpy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores"


def _path() -> Path | None:
    folder = user_cache()
    return None if folder is None else folder / _NAME
