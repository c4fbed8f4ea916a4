"""Compiled functions as Python callables. They take arrays and numbers by keyword, and release the GIL.

Importing this module raises ImportError if llvmlite is missing.
"""

import ctypes
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir

from charrnn.rnn.kernels.object_cache import Target, load
from charrnn.rnn.kernels.simd import Element, Parameters

_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # releases the GIL during a call


class Kernel:
    """A compiled function.

    Args:
        address: The address of the function.
        parameters: The parameters of its `Function`.
        owner: The object that keeps the code in memory.
    """

    def __init__(self, address: int, parameters: Parameters, owner: object) -> None:
        self._function, self._parameters, self._owner = _PROTOTYPE(address), parameters, owner
        kinds = "".join("d" if kind is float else "q" for kind in parameters.values())
        self._pack = struct.Struct(f"={kinds}").pack

    def __call__(self, **arguments: "np.ndarray[Any, Any] | float") -> None:
        """Call the function.

        Args:
            arguments: A value for each parameter. Arrays must be contiguous and have the parameter's element type.

        Raises:
            TypeError: If an argument is missing, unknown or of another type. The function is then not called.
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
    """Return the functions of a module by name, compiled for a processor or loaded from disk.

    Args:
        name: The name of the module.
        functions: The parameters of each function, by the function's name.
        build: Builds the module for a processor.
        target: The processor; None means that of this machine.

    Raises:
        ImportError: If LLVM cannot compile for the processor.
    """
    processor = target or Target.host()
    code = load(name, lambda: build(processor), processor)
    return {function: Kernel(code.address(function), parameters, code) for function, parameters in functions.items()}


def _address(name: str, array: "np.ndarray[Any, Any] | float", element: Element) -> int:
    if not isinstance(array, np.ndarray) or array.dtype != element.dtype:
        raise TypeError(f"{name}: expected an array of {element.dtype}, got {getattr(array, 'dtype', type(array))}")
    if not array.flags.c_contiguous:
        raise TypeError(f"{name}: expected a contiguous array")
    return int(array.__array_interface__["data"][0])
