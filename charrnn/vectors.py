"""What compiled code computes with: numbers of the processor's vectors, their rounding and their nonlinearities.

float32, or float64 for tests. bfloat16 arrives as the uint16 of its bits, since NumPy has no such type.

Importing this module raises ImportError where Numba is missing.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, overload

FEATURES = (get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES).split(",")
# Sums may be fused and re-ordered; NaN and infinity stay what they are, for a diverging run must be seen to diverge.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",  # x / 0 is infinite and raises nothing: a test for it would forbid vectors
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
}
ONE = np.float32(1)  # a plain 1 would widen float32 to float64


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compiles a function for callers outside; the machine code is kept on disk."""
    before, file = config.CACHE_DIR, Path(function.__code__.co_filename)
    config.CACHE_DIR = str(Path(before or file.with_name("__pycache__"), _version(file)))
    try:
        return cast(Callable[..., None], njit(cache=True, no_cfunc_wrapper=True, **_OPTIONS)(function))
    except RuntimeError:  # nowhere to keep it: compiled again each time
        return cast(Callable[..., None], njit(**_OPTIONS)(function))
    finally:
        config.CACHE_DIR = before


def _version(file: Path) -> str:
    """Names what a kernel is made of beside its own file, with which alone Numba would compile it anew."""
    parts = [part for part in (Path(__file__), file.with_name("tiles.py")) if part.exists()]
    return "kernels-" + hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:12]


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function for kernels to call."""
    return cast(Callable[..., Any], njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function))


@intrinsic
def _float_of(typing_context: Any, bits: Any) -> Any:
    """The float32 that has these 32 bits."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), code


@intrinsic
def _bits_of(typing_context: Any, number: Any) -> Any:
    """The 32 bits of a float32."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), code


def wide(number: Any) -> Any:
    """The number to compute with: bfloat16 as float32, all others as they are."""
    raise NotImplementedError  # compiled code only


@overload(wide, strict=False)
def _(number: Any) -> Any:
    if isinstance(number, types.Integer):
        return lambda number: _float_of(np.uint32(number) << np.uint32(16))
    return lambda number: number


@inlined
def _nearest(number: Any) -> Any:
    """The 16 bits of the bfloat16 that is nearest to a float32, ties to even."""
    bits = _bits_of(number)
    return np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


def narrow(number: Any, row: Any) -> Any:
    """The number as the row holds it: in bfloat16 the nearest one, ties to even."""
    raise NotImplementedError  # compiled code only


@overload(narrow, strict=False)
def _(number: Any, row: Any) -> Any:
    def bfloat16(number: Any, row: Any) -> Any:
        return np.uint16(_nearest(np.float32(number)))

    return bfloat16 if isinstance(row.dtype, types.Integer) else lambda number, row: number


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    raise NotImplementedError  # compiled code only


@overload(tanh, strict=False, jit_options=_OPTIONS)
def _(x: Any) -> Any:
    if x == types.float64:
        return lambda x: math.tanh(x)

    def rational(x: Any) -> Any:
        """The quotient of polynomials that Eigen uses, off by a few units in the last place. No calls: vectors."""
        x = x if not x > np.float32(7.9053111) else np.float32(7.9053111)  # in this form NaN passes
        x = x if not x < np.float32(-7.9053111) else np.float32(-7.9053111)
        s = x * x
        p = s * np.float32(-2.76076847742355e-16) + np.float32(2.00018790482477e-13)
        p = s * p + np.float32(-8.60467152213735e-11)
        p = s * p + np.float32(5.12229709037114e-08)
        p = s * p + np.float32(1.48572235717979e-05)
        p = s * p + np.float32(6.37261928875436e-04)
        p = s * p + np.float32(4.89352455891786e-03)
        q = s * np.float32(1.19825839466702e-06) + np.float32(1.18534705686654e-04)
        q = s * q + np.float32(2.26843463243900e-03)
        q = s * q + np.float32(4.89352518554385e-03)
        return x * p / q

    return rational


@inlined
def sigmoid(x: Any) -> Any:
    """The logistic function."""
    return np.float32(0.5) + np.float32(0.5) * tanh(np.float32(0.5) * x)
