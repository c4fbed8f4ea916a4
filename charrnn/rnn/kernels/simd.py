"""The language in which the kernels are written: LLVM's numbers and vectors with Python's operators.

`Function` opens a function with named parameters; its methods write loops and conditions; `Index`, `Number` and
`Memory` write the instructions between them. What is written for numbers, such as ``rnn/cells.py`` or
``rnn/tanh_approx.py``, computes with a `Number` as it stands. Unless a function is ``fused``, every sum and product
is rounded as it is written, on every processor, as NumPy does; a processor with narrower vectors takes several
registers for one of ours.

Importing this module raises ImportError where llvmlite is missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from llvmlite import ir

LANES = 16  # numbers in a vector: float32 in the widest registers there are

FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
BYTE, SHORT, INT, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
POINTER = ir.PointerType()


@dataclass(frozen=True)
class Element:
    """What an array holds."""

    name: str
    type: ir.Type  # in memory
    dtype: np.dtype[Any]  # on NumPy's side, which has no bfloat16


F32 = Element("f32", FLOAT, np.dtype(np.float32))
F64 = Element("f64", DOUBLE, np.dtype(np.float64))
BF16 = Element("bf16", SHORT, np.dtype(np.uint16))  # the upper half of a float32
PAIR = Element("pair", INT, np.dtype(np.uint32))  # two bfloat16, the first in the lower half
I8, I16, I64 = (
    Element(f"i{8 * dtype.itemsize}", ir.IntType(8 * dtype.itemsize), dtype)
    for dtype in map(np.dtype, (np.int8, np.int16, np.int64))
)

Kind = Element | type[int] | type[float]  # an array of elements, or a number
Parameters = Mapping[str, Kind]


class Function:
    """A function under construction: ``void name(int64 *arguments)``.

    The arguments are handed over as one array of 64 bits each: integers, floats in float64, and the addresses of
    arrays, in the order of the parameters. ``jit.py`` packs them.

    Args:
        module: to add the function to.
        name: of the function.
        parameters: their kinds by name.
        fused: let sums of products be fused, which is faster and rounds once instead of twice.

    Attributes:
        builder: writes LLVM's instructions.
    """

    def __init__(self, module: ir.Module, name: str, parameters: Parameters, *, fused: bool = False) -> None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), name)
        self.flags = ("contract",) if fused else ()
        self._entry = function.append_basic_block("entry")
        self.builder = ir.IRBuilder(function.append_basic_block("body"))
        self._arguments: dict[str, Any] = {}
        for place, (parameter, kind) in enumerate(parameters.items()):
            slot = self.builder.gep(function.args[0], [LONG(place)], source_etype=LONG)
            loaded_type = POINTER if isinstance(kind, Element) else DOUBLE if kind is float else LONG
            value = self.builder.load(slot, typ=loaded_type)
            if isinstance(kind, Element):
                self._arguments[parameter] = Memory(self, value, kind)
            else:
                self._arguments[parameter] = Number(self, value) if kind is float else Index(self, value)

    def __getitem__(self, parameter: str) -> Any:
        """The `Memory`, `Index` or `Number` of a parameter."""
        return self._arguments[parameter]

    def index(self, value: Any) -> "Index":
        """Return an integer as an `Index`."""
        return value if isinstance(value, Index) else Index(self, LONG(value))

    def variable(self, initial: Any) -> "Variable":
        """Return something that can be assigned to, also within loops. LLVM keeps it in a register."""
        return Variable(self, initial)

    @contextmanager
    def range(self, start: Any, stop: Any = None, step: Any = 1) -> Iterator["Index"]:
        """Write a loop over integers, as Python's ``range`` does for positive steps."""
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
        """Write a loop that keeps LLVM values in registers, and return what becomes of them.

        Args:
            stop: end of the integers 0, ``step``, 2 ``step``, ...; the body is run at least once.
            step: from one integer to the next.
            initial: the values before the first run.
            body: gets an integer and the values, and returns their successors.
        """
        builder, before = self.builder, self.builder.block
        loop, after = builder.append_basic_block("fold"), builder.append_basic_block("folded")
        builder.branch(loop)
        builder.position_at_end(loop)
        number, values = builder.phi(LONG), [builder.phi(value.type) for value in initial]
        following = [builder.add(number, LONG(step)), *body(Index(self, number), list(values))]
        for phi, start, then in zip([number, *values], [LONG(0), *initial], following, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(then, builder.block)
        builder.cbranch(builder.icmp_signed("<", following[0], self.index(stop).value), loop, after)
        builder.position_at_end(after)
        return following[1:]

    @contextmanager
    def when(self, condition: Any) -> Iterator[None]:
        """Write what happens only where a condition is true."""
        with self.builder.if_then(condition):
            yield

    def finish(self) -> None:
        """Close the function."""
        self.builder.ret_void()
        body = self._entry.function.blocks[1]
        ir.IRBuilder(self._entry).branch(body)

    @contextmanager
    def _in_entry(self) -> Iterator[None]:
        """Write into the entry block, where LLVM expects the variables."""
        block = self.builder.block
        self.builder.position_at_end(self._entry)
        yield
        self.builder.position_at_end(block)


class Index:
    """An integer of 64 bits."""

    def __init__(self, function: Function, value: Any) -> None:
        self._function, self.value = function, value

    def __add__(self, other: Any) -> "Index":
        return self._made(self._function.builder.add(self.value, self._function.index(other).value))

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Index":
        return self._made(self._function.builder.sub(self.value, self._function.index(other).value))

    def __mul__(self, other: Any) -> "Index":
        return self._made(self._function.builder.mul(self.value, self._function.index(other).value))

    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> "Index":
        return self._made(self._function.builder.udiv(self.value, LONG(other)))

    def __mod__(self, other: int) -> "Index":
        return self._made(self._function.builder.urem(self.value, LONG(other)))

    def compare(self, sign: str, other: Any) -> Any:
        """Return whether ``self sign other``, with a sign such as "<" or "==", as LLVM has it."""
        return self._function.builder.icmp_signed(sign, self.value, self._function.index(other).value)

    def at_most(self, other: Any) -> "Index":
        """Return the smaller of two."""
        limit = self._function.index(other)
        return self._made(self._function.builder.select(self.compare("<", limit), self.value, limit.value))

    def _made(self, value: Any) -> "Index":
        return Index(self._function, value)


class Number:
    """A float, or a vector of floats, in float32 or float64.

    NumPy's ``minimum`` and ``maximum`` take it as their first argument. A NaN in it stays; one in the other is lost.
    """

    def __init__(self, function: Function, value: Any) -> None:
        self._function, self.value = function, value

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **keywords: Any) -> Any:
        """Compute NumPy's minimum or maximum."""
        operations = {np.minimum: self._minimum, np.maximum: self._maximum}
        if method != "__call__" or keywords or ufunc not in operations:
            return NotImplemented
        one, other = (self._coerced(number) for number in inputs)
        return operations[ufunc](one, other)

    def __add__(self, other: Any) -> Self:
        return self._add(self.value, self._coerced(other))

    def __radd__(self, other: Any) -> Self:
        return self._add(self._coerced(other), self.value)

    def __sub__(self, other: Any) -> Self:
        return self._subtract(self.value, self._coerced(other))

    def __rsub__(self, other: Any) -> Self:
        return self._subtract(self._coerced(other), self.value)

    def __mul__(self, other: Any) -> Self:
        return self._multiply(self.value, self._coerced(other))

    def __rmul__(self, other: Any) -> Self:
        return self._multiply(self._coerced(other), self.value)

    def __truediv__(self, other: Any) -> Self:
        return self._divide(self.value, self._coerced(other))

    def __neg__(self) -> Self:
        return self._made(self._function.builder.fneg(self.value))

    def compare(self, sign: str, other: Any) -> Any:
        """Return whether ``self sign other``, false where either is NaN, as LLVM has it."""
        return self._function.builder.fcmp_ordered(sign, self.value, self._coerced(other))

    def at_least(self, other: Any) -> Self:
        """Return the larger numbers of two; a NaN among these stays, one among the others is lost."""
        return self._maximum(self.value, self._coerced(other))

    def at_most(self, other: Any) -> Self:
        """Return the smaller numbers of two; a NaN among these stays, one among the others is lost."""
        return self._minimum(self.value, self._coerced(other))

    def where(self, condition: Any, other: Any) -> Self:
        """Return these numbers where a condition is true, and others where it is not."""
        return self._made(self._function.builder.select(condition, self.value, self._coerced(other)))

    def to(self, kind: ir.Type) -> Self:
        """Return the same in float32 or float64."""
        if self.value.type == (target := self._like(kind)):
            return self
        builder = self._function.builder
        return self._made((builder.fpext if kind == DOUBLE else builder.fptrunc)(self.value, target))

    def truncated(self) -> Any:
        """Return integers of 32 bits, rounded towards zero, as LLVM has them."""
        return self._function.builder.fptosi(self.value, self._like(INT))

    def floor(self) -> Any:
        """Return integers of 32 bits, rounded down. LLVM's own floor is a function call on some processors."""
        builder, whole = self._function.builder, self.truncated()
        beyond = self.made_from(whole).compare(">", self)
        return builder.add(whole, builder.sext(beyond, whole.type))  # true is -1

    def made_from(self, integers: Any) -> Self:
        """Return integers as floats of this type."""
        return self._made(self._function.builder.sitofp(integers, self.value.type))

    def largest(self) -> Self:
        """Return the largest number of a vector."""
        return self._reduced(self._maximum)

    def total(self) -> Self:
        """Return the sum of a vector's numbers."""
        return self._reduced(self._add)

    def _reduced(self, operation: Callable[[Any, Any], Self]) -> Self:
        builder, value = self._function.builder, self.value
        for apart in (8, 4, 2, 1):
            order = ir.Constant(ir.VectorType(INT, LANES), [(lane + apart) % LANES for lane in range(LANES)])
            value = operation(value, builder.shuffle_vector(value, value, order)).value
        return self._made(builder.extract_element(value, INT(0)))

    def spread(self) -> Self:
        """Return a vector of copies of this number."""
        return self._made(spread(self._function.builder, self.value))

    def _add(self, one: Any, other: Any) -> Self:
        return self._made(self._function.builder.fadd(one, other, flags=self._function.flags))

    def _subtract(self, one: Any, other: Any) -> Self:
        return self._made(self._function.builder.fsub(one, other, flags=self._function.flags))

    def _multiply(self, one: Any, other: Any) -> Self:
        return self._made(self._function.builder.fmul(one, other, flags=self._function.flags))

    def _divide(self, one: Any, other: Any) -> Self:
        return self._made(self._function.builder.fdiv(one, other))

    def _minimum(self, one: Any, other: Any) -> Self:
        builder = self._function.builder
        return self._made(builder.select(builder.fcmp_ordered(">", one, other), other, one))

    def _maximum(self, one: Any, other: Any) -> Self:
        builder = self._function.builder
        return self._made(builder.select(builder.fcmp_ordered("<", one, other), other, one))

    def _coerced(self, other: Any) -> Any:
        if isinstance(other, Number):
            return other.value
        kind = self.value.type
        constant = float(other)
        return ir.Constant(kind, [constant] * kind.count if isinstance(kind, ir.VectorType) else constant)

    def _like(self, kind: ir.Type) -> ir.Type:
        own = self.value.type
        return ir.VectorType(kind, own.count) if isinstance(own, ir.VectorType) else kind

    def _made(self, value: Any) -> Self:
        return type(self)(self._function, value)


class Memory:
    """An array's elements from some place on; offsets count elements."""

    def __init__(self, function: Function, pointer: Any, element: Element) -> None:
        self._function, self.pointer, self.element = function, pointer, element

    def at(self, offset: Any) -> "Memory":
        """Return the elements from an offset on."""
        index = [self._function.index(offset).value]
        place = self._function.builder.gep(self.pointer, index, source_etype=self.element.type)
        return Memory(self._function, place, self.element)

    def load(self, kind: ir.Type | None = None) -> Any:
        """Return the first element, or a value of another type at this place, as LLVM has it."""
        loaded = self._function.builder.load(self.pointer, typ=kind or self.element.type)
        loaded.align = 1 if kind else self.element.dtype.itemsize
        return loaded

    def index(self) -> Index:
        """Return the first element, an integer of 64 bits."""
        return Index(self._function, self.load())

    def number(self) -> Number:
        """Return the first element, a float."""
        return Number(self._function, self.load())

    def vector(self) -> Number:
        """Return `LANES` floats; bfloat16 as float32."""
        bits = self.load(ir.VectorType(self.element.type, LANES))
        return Number(self._function, widened(self._function.builder, bits) if self.element is BF16 else bits)

    def store(self, value: Any) -> None:
        """Write an element, or any value of LLVM's."""
        value = value.value if isinstance(value, Number | Index) else value
        self._function.builder.store(value, self.pointer).align = 1

    def store_vector(self, numbers: Number) -> None:
        """Write `LANES` floats; as bfloat16 the nearest ones, ties to even."""
        value = numbers.value
        self.store(narrowed(self._function.builder, value) if self.element is BF16 else value)


class Variable:
    """A value that may change."""

    def __init__(self, function: Function, initial: Any) -> None:
        self._function, self._kind = function, type(initial)
        with function._in_entry():
            self._place = function.builder.alloca(initial.value.type)
        self.set(initial)

    def get(self) -> Any:
        """Return what was set last."""
        return self._kind(self._function, self._function.builder.load(self._place, typ=self._place.allocated_type))

    def set(self, value: Any) -> None:
        """Assign a value of the same type."""
        self._function.builder.store(value.value, self._place)


def spread(builder: ir.IRBuilder, value: Any, lanes: int = LANES) -> Any:
    """Return a vector of copies of a value."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, INT(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT, lanes), [0] * lanes))


def widened(builder: ir.IRBuilder, bits: Any) -> Any:
    """Return a vector of bfloat16, given as integers of 16 bits, as float32."""
    wide = ir.VectorType(INT, bits.type.count)
    shifted = builder.shl(builder.zext(bits, wide), ir.Constant(wide, [16] * wide.count))
    return builder.bitcast(shifted, ir.VectorType(FLOAT, wide.count))


def narrowed(builder: ir.IRBuilder, value: Any) -> Any:
    """Return float32 as the nearest bfloat16, ties to even, in integers of 16 bits. A quiet NaN stays NaN."""
    wide = ir.VectorType(INT, value.type.count)

    def constant(number: int) -> ir.Constant:
        return ir.Constant(wide, [number] * wide.count)

    exact = builder.bitcast(value, wide)
    odd = builder.and_(builder.lshr(exact, constant(16)), constant(1))
    rounded = builder.add(builder.add(exact, constant(0x7FFF)), odd)
    return builder.trunc(builder.lshr(rounded, constant(16)), ir.VectorType(SHORT, wide.count))


def exp(x: Number) -> Number:
    """Return the exponential of float64 numbers up to 0, a power of two times a series. Below -708 it is 0."""
    lowest, terms = -708.0, 14  # float64 holds the exponential of the first; further terms are below its resolution
    log2_e, ln2, ln2_rest = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10
    near = x.at_least(lowest)
    twos = (near * log2_e - 0.5).truncated()  # towards zero, that is, to the nearest of near * log2_e
    number = near.made_from(twos)
    rest = near - number * ln2 - number * ln2_rest
    factorials = np.cumprod([1.0, *range(1, terms)])
    series = rest * (1 / factorials[-1]) + 1 / factorials[-2]
    for factorial in reversed(factorials[:-2].tolist()):
        series = series * rest + 1 / factorial
    builder = x._function.builder
    long = near._like(LONG)
    ones = [1023] * long.count, [52] * long.count
    exponent = builder.add(builder.sext(twos, long), ir.Constant(long, ones[0]))
    power = near._made(builder.bitcast(builder.shl(exponent, ir.Constant(long, ones[1])), near.value.type))
    result: Number = (series * power).where(builder.not_(x.compare("<", lowest)), 0)
    return result
