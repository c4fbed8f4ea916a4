"""An embedded language for kernels: LLVM numbers and vectors with Python's operators.

Running a kernel's Python code emits LLVM instructions. `Function` starts a function with named parameters, and its
methods emit loops and conditions. The operators of `Index`, `Number` and `Memory` emit the instructions between them.
Python functions that use only arithmetic, such as those of ``rnn/cells.py`` and ``rnn/tanh_approx.py``, accept a
`Number` unchanged.

Unless a function is ``fused``, every sum and product is rounded separately, as in NumPy, on every processor. On a
processor with narrower vectors, LLVM uses several registers for a vector.

Importing this module raises ImportError if llvmlite is missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from llvmlite import ir

LANES = 16  # numbers in a vector: as many float32 as the widest registers (AVX-512) hold

FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
BYTE, SHORT, INT, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
POINTER = ir.PointerType()


@dataclass(frozen=True)
class Element:
    """The element type of an array."""

    name: str
    type: ir.Type  # LLVM's type in memory
    dtype: np.dtype[Any]  # NumPy's type; an unsigned integer for bfloat16, which NumPy lacks


F32 = Element("f32", FLOAT, np.dtype(np.float32))
F64 = Element("f64", DOUBLE, np.dtype(np.float64))
BF16 = Element("bf16", SHORT, np.dtype(np.uint16))  # the upper half of a float32
PAIR = Element("pair", INT, np.dtype(np.uint32))  # two bfloat16, the first in the lower half
I8, I16, I64 = (
    Element(f"i{8 * dtype.itemsize}", ir.IntType(8 * dtype.itemsize), dtype)
    for dtype in map(np.dtype, (np.int8, np.int16, np.int64))
)

ParameterType = Element | type[int] | type[float]  # an array of elements, or a number
Parameters = Mapping[str, ParameterType]


class Function:
    """A function under construction: ``void name(int64 *arguments)``.

    The arguments are passed as one array of 64-bit values: integers, float64 numbers, and the addresses of arrays, in
    the order of the parameters. ``jit.py`` packs them.

    Args:
        module: The module to which the function is added.
        name: The name of the function.
        parameters: The type of each parameter by name.
        fused: Whether a product and a sum may be fused, which is faster and rounds once instead of twice.

    Attributes:
        builder: LLVM's builder, which emits instructions.
        flags: LLVM's fast-math flags for sums and products.
    """

    def __init__(self, module: ir.Module, name: str, parameters: Parameters, *, fused: bool = False) -> None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), name)
        self.flags = ("contract",) if fused else ()
        self._entry = function.append_basic_block("entry")
        self.builder = ir.IRBuilder(function.append_basic_block("body"))
        self._arguments: dict[str, Any] = {}
        for index, (parameter, kind) in enumerate(parameters.items()):
            address = self.builder.gep(function.args[0], [LONG(index)], source_etype=LONG)
            loaded_type = POINTER if isinstance(kind, Element) else DOUBLE if kind is float else LONG
            value = self.builder.load(address, typ=loaded_type)
            if isinstance(kind, Element):
                self._arguments[parameter] = Memory(self, value, kind)
            else:
                self._arguments[parameter] = Number(self, value) if kind is float else Index(self, value)

    def __getitem__(self, parameter: str) -> Any:
        """Return the `Memory`, `Index` or `Number` of a parameter."""
        return self._arguments[parameter]

    def index(self, value: Any) -> "Index":
        """Return an integer as an `Index`."""
        return value if isinstance(value, Index) else Index(self, LONG(value))

    def variable(self, initial: Any) -> "Variable":
        """Return a variable that can be assigned to, even in loops. LLVM keeps it in a register."""
        return Variable(self, initial)

    @contextmanager
    def range(self, start: Any, stop: Any = None, step: Any = 1) -> Iterator["Index"]:
        """Emit a loop over the integers of Python's ``range``, for a positive step. Yield the loop index."""
        start, stop = (0, start) if stop is None else (start, stop)
        start, stop, step = self.index(start), self.index(stop), self.index(step)
        builder, before = self.builder, self.builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        number = builder.phi(LONG)
        number.add_incoming(start.value, before)
        builder.cbranch(builder.icmp_signed("<", number, stop.value), body, after)
        builder.position_at_end(body)
        yield Index(self, number)
        number.add_incoming(builder.add(number, step.value), builder.block)
        builder.branch(head)
        builder.position_at_end(after)

    def fold(
        self, stop: Any, step: int, initial: Sequence[Any], body: Callable[["Index", list[Any]], Sequence[Any]]
    ) -> list[Any]:
        """Emit a loop that keeps LLVM values in registers, and return their final values.

        Args:
            stop: The end of the loop indices 0, ``step``, 2 ``step``, ... The body runs at least once.
            step: The step between loop indices.
            initial: The initial values.
            body: Takes a loop index and the current values, and returns the next values.
        """
        builder, before = self.builder, self.builder.block
        loop, after = builder.append_basic_block("fold"), builder.append_basic_block("folded")
        builder.branch(loop)
        builder.position_at_end(loop)
        number, values = builder.phi(LONG), [builder.phi(value.type) for value in initial]
        next_values = [builder.add(number, LONG(step)), *body(Index(self, number), list(values))]
        for phi, start, next_value in zip([number, *values], [LONG(0), *initial], next_values, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(next_value, builder.block)
        builder.cbranch(builder.icmp_signed("<", next_values[0], self.index(stop).value), loop, after)
        builder.position_at_end(after)
        return next_values[1:]

    @contextmanager
    def when(self, condition: Any) -> Iterator[None]:
        """Emit a branch: the code in the context runs only if a condition is true."""
        with self.builder.if_then(condition):
            yield

    def finish(self) -> None:
        """Complete the function."""
        self.builder.ret_void()
        body = self._entry.function.blocks[1]
        ir.IRBuilder(self._entry).branch(body)

    @contextmanager
    def _in_entry(self) -> Iterator[None]:
        """Emit into the entry block, where LLVM expects variables to be allocated."""
        block = self.builder.block
        self.builder.position_at_end(self._entry)
        yield
        self.builder.position_at_end(block)


class Index:
    """A 64-bit integer."""

    def __init__(self, function: Function, value: Any) -> None:
        self._function, self.value = function, value

    def __add__(self, other: Any) -> "Index":
        return self._wrap(self._function.builder.add(self.value, self._function.index(other).value))

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Index":
        return self._wrap(self._function.builder.sub(self.value, self._function.index(other).value))

    def __mul__(self, other: Any) -> "Index":
        return self._wrap(self._function.builder.mul(self.value, self._function.index(other).value))

    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> "Index":
        return self._wrap(self._function.builder.udiv(self.value, LONG(other)))

    def __mod__(self, other: int) -> "Index":
        return self._wrap(self._function.builder.urem(self.value, LONG(other)))

    def compare(self, sign: str, other: Any) -> Any:
        """Return the LLVM value of ``self sign other``, where ``sign`` is a comparison operator such as "<"."""
        return self._function.builder.icmp_signed(sign, self.value, self._function.index(other).value)

    def minimum(self, other: Any) -> "Index":
        """Return the smaller of two integers."""
        limit = self._function.index(other)
        return self._wrap(self._function.builder.select(self.compare("<", limit), self.value, limit.value))

    def _wrap(self, value: Any) -> "Index":
        return Index(self._function, value)


class Number:
    """A float, or a vector of floats, in float32 or float64.

    NumPy's ``minimum`` and ``maximum`` accept it as their first argument. They keep a NaN in the first argument, but
    not one in the second.
    """

    def __init__(self, function: Function, value: Any) -> None:
        self._function, self.value = function, value

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **keywords: Any) -> Any:
        """Compute NumPy's minimum or maximum."""
        operations = {np.minimum: self._minimum, np.maximum: self._maximum}
        if method != "__call__" or keywords or ufunc not in operations:
            return NotImplemented
        first, second = (self._coerce(number) for number in inputs)
        return operations[ufunc](first, second)

    def __add__(self, other: Any) -> Self:
        return self._add(self.value, self._coerce(other))

    def __radd__(self, other: Any) -> Self:
        return self._add(self._coerce(other), self.value)

    def __sub__(self, other: Any) -> Self:
        return self._subtract(self.value, self._coerce(other))

    def __rsub__(self, other: Any) -> Self:
        return self._subtract(self._coerce(other), self.value)

    def __mul__(self, other: Any) -> Self:
        return self._multiply(self.value, self._coerce(other))

    def __rmul__(self, other: Any) -> Self:
        return self._multiply(self._coerce(other), self.value)

    def __truediv__(self, other: Any) -> Self:
        return self._divide(self.value, self._coerce(other))

    def __neg__(self) -> Self:
        return self._wrap(self._function.builder.fneg(self.value))

    def compare(self, sign: str, other: Any) -> Any:
        """Return the LLVM value of ``self sign other``; it is false if either is NaN."""
        return self._function.builder.fcmp_ordered(sign, self.value, self._coerce(other))

    def maximum(self, other: Any) -> Self:
        """Return the elementwise maximum. A NaN in ``self`` is kept, one in ``other`` is not."""
        return self._maximum(self.value, self._coerce(other))

    def minimum(self, other: Any) -> Self:
        """Return the elementwise minimum. A NaN in ``self`` is kept, one in ``other`` is not."""
        return self._minimum(self.value, self._coerce(other))

    def where(self, condition: Any, other: Any) -> Self:
        """Return ``self`` where a condition is true, and ``other`` elsewhere."""
        return self._wrap(self._function.builder.select(condition, self.value, self._coerce(other)))

    def to(self, kind: ir.Type) -> Self:
        """Return the number converted to float32 or float64."""
        if self.value.type == (target := self._type_of(kind)):
            return self
        builder = self._function.builder
        return self._wrap((builder.fpext if kind == DOUBLE else builder.fptrunc)(self.value, target))

    def truncate(self) -> Any:
        """Return the LLVM value of 32-bit integers, rounded towards zero."""
        return self._function.builder.fptosi(self.value, self._type_of(INT))

    def floor(self) -> Any:
        """Return the LLVM value of 32-bit integers, rounded down.

        LLVM's floor instruction is not used, because it becomes a function call on some processors.
        """
        builder, truncated = self._function.builder, self.truncate()
        too_large = self.from_integers(truncated).compare(">", self)
        return builder.add(truncated, builder.sext(too_large, truncated.type))  # true is -1

    def from_integers(self, integers: Any) -> Self:
        """Return LLVM integers converted to the type of this number."""
        return self._wrap(self._function.builder.sitofp(integers, self.value.type))

    def max(self) -> Self:
        """Return the largest element of a vector."""
        return self._reduce(self._maximum)

    def sum(self) -> Self:
        """Return the sum of a vector's elements."""
        return self._reduce(self._add)

    def _reduce(self, operation: Callable[[Any, Any], Self]) -> Self:
        builder, value = self._function.builder, self.value
        for shift in (8, 4, 2, 1):
            rotation = ir.Constant(ir.VectorType(INT, LANES), [(lane + shift) % LANES for lane in range(LANES)])
            value = operation(value, builder.shuffle_vector(value, value, rotation)).value
        return self._wrap(builder.extract_element(value, INT(0)))

    def broadcast(self) -> Self:
        """Return a vector of copies of this number."""
        return self._wrap(broadcast(self._function.builder, self.value))

    def _add(self, left: Any, right: Any) -> Self:
        return self._wrap(self._function.builder.fadd(left, right, flags=self._function.flags))

    def _subtract(self, left: Any, right: Any) -> Self:
        return self._wrap(self._function.builder.fsub(left, right, flags=self._function.flags))

    def _multiply(self, left: Any, right: Any) -> Self:
        return self._wrap(self._function.builder.fmul(left, right, flags=self._function.flags))

    def _divide(self, left: Any, right: Any) -> Self:
        return self._wrap(self._function.builder.fdiv(left, right))

    def _minimum(self, left: Any, right: Any) -> Self:
        builder = self._function.builder
        return self._wrap(builder.select(builder.fcmp_ordered(">", left, right), right, left))

    def _maximum(self, left: Any, right: Any) -> Self:
        builder = self._function.builder
        return self._wrap(builder.select(builder.fcmp_ordered("<", left, right), right, left))

    def _coerce(self, other: Any) -> Any:
        if isinstance(other, Number):
            return other.value
        kind = self.value.type
        constant = float(other)
        return ir.Constant(kind, [constant] * kind.count if isinstance(kind, ir.VectorType) else constant)

    def _type_of(self, kind: ir.Type) -> ir.Type:
        """Return ``kind`` for a float, and a vector of ``kind`` for a vector."""
        current = self.value.type
        return ir.VectorType(kind, current.count) if isinstance(current, ir.VectorType) else kind

    def _wrap(self, value: Any) -> Self:
        return type(self)(self._function, value)


class Memory:
    """The elements of an array that start at an address. Offsets count elements."""

    def __init__(self, function: Function, pointer: Any, element: Element) -> None:
        self._function, self.pointer, self.element = function, pointer, element

    def at(self, offset: Any) -> "Memory":
        """Return the elements that start at an offset."""
        index = [self._function.index(offset).value]
        pointer = self._function.builder.gep(self.pointer, index, source_etype=self.element.type)
        return Memory(self._function, pointer, self.element)

    def load(self, kind: ir.Type | None = None) -> Any:
        """Return the LLVM value of the first element, or of another type at this address."""
        loaded = self._function.builder.load(self.pointer, typ=kind or self.element.type)
        loaded.align = 1 if kind else self.element.dtype.itemsize
        return loaded

    def index(self) -> Index:
        """Return the first element, a 64-bit integer."""
        return Index(self._function, self.load())

    def number(self) -> Number:
        """Return the first element, a float."""
        return Number(self._function, self.load())

    def vector(self) -> Number:
        """Return the first `LANES` elements, floats. bfloat16 is converted to float32."""
        bits = self.load(ir.VectorType(self.element.type, LANES))
        return Number(
            self._function, bfloat16_to_float32(self._function.builder, bits) if self.element is BF16 else bits
        )

    def store(self, value: Any) -> None:
        """Store an element, or any LLVM value, at this address."""
        value = value.value if isinstance(value, Number | Index) else value
        self._function.builder.store(value, self.pointer).align = 1

    def store_vector(self, numbers: Number) -> None:
        """Store `LANES` floats at this address. bfloat16 is rounded to nearest, ties to even."""
        value = numbers.value
        self.store(float32_to_bfloat16(self._function.builder, value) if self.element is BF16 else value)


class Variable:
    """A local variable."""

    def __init__(self, function: Function, initial: Any) -> None:
        self._function, self._kind = function, type(initial)
        with function._in_entry():
            self._pointer = function.builder.alloca(initial.value.type)
        self.set(initial)

    def get(self) -> Any:
        """Return the current value."""
        value = self._function.builder.load(self._pointer, typ=self._pointer.allocated_type)
        return self._kind(self._function, value)

    def set(self, value: Any) -> None:
        """Assign a value of the same type."""
        self._function.builder.store(value.value, self._pointer)


def broadcast(builder: ir.IRBuilder, value: Any, lanes: int = LANES) -> Any:
    """Return a vector of copies of a value."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, INT(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT, lanes), [0] * lanes))


def bfloat16_to_float32(builder: ir.IRBuilder, bits: Any) -> Any:
    """Return a vector of bfloat16, stored as 16-bit integers, converted to float32."""
    wide = ir.VectorType(INT, bits.type.count)
    shifted = builder.shl(builder.zext(bits, wide), ir.Constant(wide, [16] * wide.count))
    return builder.bitcast(shifted, ir.VectorType(FLOAT, wide.count))


def float32_to_bfloat16(builder: ir.IRBuilder, value: Any) -> Any:
    """Return float32 rounded to bfloat16, ties to even, stored as 16-bit integers. A default NaN stays NaN."""
    wide = ir.VectorType(INT, value.type.count)

    def constant(number: int) -> ir.Constant:
        return ir.Constant(wide, [number] * wide.count)

    bits = builder.bitcast(value, wide)
    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    rounded = builder.add(builder.add(bits, constant(0x7FFF)), odd)
    return builder.trunc(builder.lshr(rounded, constant(16)), ir.VectorType(SHORT, wide.count))


def exp(x: Number) -> Number:
    """Return the exponential of a vector of float64 numbers, each at most 0. Below -708 the result is 0.

    With n = round(x / ln 2) and r = x - n ln 2, the result is 2^n times the Taylor series of exp(r).
    """
    min_x = -708.0  # near the smallest x for which exp(x) is a normal number
    num_terms = 14  # further terms are below the resolution of float64
    log2_e, ln2_high, ln2_low = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10
    clipped = x.maximum(min_x)
    exponent = (clipped * log2_e - 0.5).truncate()  # round to nearest, because the argument is negative
    n = clipped.from_integers(exponent)
    r = clipped - n * ln2_high - n * ln2_low  # ln 2 in two parts, so that the difference is accurate
    factorials = np.cumprod([1.0, *range(1, num_terms)])
    series = r * (1 / factorials[-1]) + 1 / factorials[-2]
    for factorial in reversed(factorials[:-2].tolist()):
        series = series * r + 1 / factorial
    builder = x._function.builder
    long = clipped._type_of(LONG)
    bias, mantissa_bits = (ir.Constant(long, [value] * long.count) for value in (1023, 52))
    biased = builder.add(builder.sext(exponent, long), bias)
    power = clipped._wrap(builder.bitcast(builder.shl(biased, mantissa_bits), clipped.value.type))
    result: Number = (series * power).where(builder.not_(x.compare("<", min_x)), 0)
    return result
