"""The time costs of the backends, measured on this machine, or typical of a laptop.

``charrnn bench`` measures them (``training/autotune.py``), and `save_costs` stores them in the user's cache.
"""

import json
import os
import platform
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from charrnn.config.checks import Range
from charrnn.config.schema import from_json, to_json
from charrnn.config.settings import check, setting
from charrnn.errors import CacheWarning, FileError, SettingError, describe_value
from charrnn.io.atomic_io import write_atomic
from charrnn.io.regular_file import read_regular
from charrnn.io.strict_json import parse_json
from charrnn.io.user_cache import user_cache
from charrnn.version import __version__

_NAME = "costs.json"
_MAX_BYTES = 1 << 16  # maximum size of the file, which has about 400 bytes
_COST = Range(0, 1e3, "a number of seconds above 0, at most 1,000", exclude_low=True)


@dataclass(frozen=True)
class Costs:
    """Costs in seconds. Only their ratios matter."""

    load_compiled: float = setting(0.05, _COST)  # load llvmlite and compiled code
    compile: float = setting(1.5, _COST)  # compile the decoder, once on a machine
    load_torch: float = setting(2.0, _COST)  # load torch and the training kernels
    numpy_char: float = setting(2e-4, _COST)  # NumPy in int8, one stream: base cost per character
    numpy_char_parameter: float = setting(4e-10, _COST)  # the same: added per character and parameter
    numpy_step: float = setting(6e-5, _COST)  # NumPy in fp32: base cost per step
    numpy_stream: float = setting(5e-6, _COST)  # the same: added per step and stream
    numpy_stream_parameter: float = setting(3e-11, _COST)  # the same: added per step, stream and parameter

    def decoding(self, characters: float, parameters: int) -> float:
        """Return the time that NumPy takes to read and generate characters one by one."""
        return characters * (self.numpy_char + parameters * self.numpy_char_parameter)

    def reading(self, steps: int, streams: int, parameters: int) -> float:
        """Return the time that NumPy takes to read T steps of B streams."""
        return steps * (self.numpy_step + streams * (self.numpy_stream + parameters * self.numpy_stream_parameter))


TYPICAL = Costs()


@dataclass(frozen=True, kw_only=True)
class _File:
    machine: str  # versions and hardware that the costs depend on
    costs: Costs


def load_costs() -> Costs:
    """Return the costs saved for this machine and these versions, or typical costs if there are none.

    Warns:
        CacheWarning: If the file is damaged. The file is deleted if possible.
    """
    if (path := _path()) is None:
        return TYPICAL
    try:
        data = parse_json(read_regular(path, _MAX_BYTES))
        if isinstance(data, dict) and data.get("machine") not in (None, _machine()):
            return TYPICAL
        return from_json(_File, data).costs
    except OSError:  # missing or unreadable
        return TYPICAL
    except ValueError as error:
        with suppress(OSError):
            path.unlink()
        message = f"{path}: is damaged ({describe_value(error)}) and not used; run charrnn bench to measure again"
        warnings.warn(message, CacheWarning, stacklevel=2)
        return TYPICAL


def save_costs(costs: Costs) -> bool:
    """Save costs for later processes, and return whether they were saved."""
    path = _path()
    if path is None:
        return False
    try:
        check(costs)
        write_atomic(path, json.dumps(to_json(_File(machine=_machine(), costs=costs))).encode())
    except (FileError, SettingError):  # SettingError: a cost is not finite, or too large
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
