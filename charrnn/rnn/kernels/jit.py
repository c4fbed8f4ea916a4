"""What compiled code computes with: numbers of the processor's vectors, their rounding and their nonlinearities.

float32, or float64 for tests. bfloat16 arrives as the uint16 of its bits, since NumPy has no such type.

Importing this module raises ImportError where Numba is missing.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, overload

from charrnn.rnn.tanh_approx import FURTHEST, quotient

FEATURES = (get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES).split(",")
# Sums may be fused and re-ordered; NaN and infinity stay what they are, for a diverging run must be seen to diverge.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",  # x / 0 is infinite and raises nothing: a test for it would forbid vectors
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
}
EXACT: dict[str, Any] = {**_OPTIONS, "fastmath": False}
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
    own = Path(__file__)
    parts = [
        part for part in (own, own.parent.with_name("tanh_approx.py"), file.with_name("tiles.py")) if part.exists()
    ]
    return "kernels-" + hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:12]


def inlined(function: Callable[..., Any], options: Mapping[str, Any] = _OPTIONS) -> Callable[..., Any]:
    """Compiles a function for kernels to call."""
    return cast(Callable[..., Any], njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(function))


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same with every sum and product rounded as it is written, as NumPy does."""
    return inlined(function, EXACT)


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


_quotient = inlined(quotient)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    raise NotImplementedError  # compiled code only


@overload(tanh, strict=False, jit_options=_OPTIONS)
def _(x: Any) -> Any:
    if x == types.float64:
        return lambda x: math.tanh(x)

    def clamped(x: Any) -> Any:
        x = x if not x > FURTHEST else FURTHEST  # in this form NaN passes
        x = x if not x < -FURTHEST else -FURTHEST
        return _quotient(x)

    return clamped


@inlined
def sigmoid(x: Any) -> Any:
    """The logistic function."""
    return np.float32(0.5) + np.float32(0.5) * tanh(np.float32(0.5) * x)
