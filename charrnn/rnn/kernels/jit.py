"""Compiled functions as Python calls them: by keyword, with arrays and numbers, without the GIL.

Importing this module raises ImportError where llvmlite is missing.
"""

import ctypes
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir

from charrnn.rnn.kernels.object_cache import Target, load
from charrnn.rnn.kernels.simd import Element, Parameters

_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # it releases the GIL while the function runs


class Kernel:
    """A compiled function.

    Args:
        address: where it begins.
        parameters: those of its `Function`.
        owner: what keeps the code in memory.
    """

    def __init__(self, address: int, parameters: Parameters, owner: object) -> None:
        self._function, self._parameters, self._owner = _PROTOTYPE(address), parameters, owner
        kinds = "".join("d" if kind is float else "q" for kind in parameters.values())
        self._pack = struct.Struct(f"={kinds}").pack

    def __call__(self, **arguments: "np.ndarray[Any, Any] | float") -> None:
        """Run the function.

        Args:
            arguments: one for each parameter; arrays are contiguous and of the parameter's type.

        Raises:
            TypeError: an argument is missing, unknown or of another type; nothing was run.
        """
        if arguments.keys() != self._parameters.keys():
            raise TypeError(f"expected the arguments {', '.join(self._parameters)}")
        values = [
            _address(name, arguments[name], kind) if isinstance(kind, Element) else arguments[name]
            for name, kind in self._parameters.items()
        ]
        try:
            packed = self._pack(*values)
        except struct.error as error:
            raise TypeError(f"expected numbers: {error}") from None
        self._function(packed)


def load_kernels(
    name: str, functions: Mapping[str, Parameters], build: Callable[[Target], ir.Module], target: Target | None = None
) -> dict[str, Kernel]:
    """Return the functions of a module, compiled for a processor or loaded from disk.

    Args:
        name: of the module.
        functions: their parameters, by their names.
        build: writes the module.
        target: the processor; this machine's unless given.

    Raises:
        ImportError: LLVM cannot compile for it.
    """
    processor = target or Target.host()
    code = load(name, lambda: build(processor), processor)
    return {function: Kernel(code.address(function), its, code) for function, its in functions.items()}


def _address(name: str, array: "np.ndarray[Any, Any] | float", element: Element) -> int:
    if not isinstance(array, np.ndarray) or array.dtype != element.dtype:
        raise TypeError(f"{name}: expected an array of {element.dtype}, got {getattr(array, 'dtype', type(array))}")
    if not array.flags.c_contiguous:
        raise TypeError(f"{name}: expected a contiguous array")
    return int(array.__array_interface__["data"][0])
