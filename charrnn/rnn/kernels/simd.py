"""Vectors of numbers in LLVM's own language, for which Numba has no name, with the signs of arithmetic.

What is written for numbers, such as `charrnn.rnn.tanh_approx`, computes with them as it stands. Every sum and product
is rounded as it is written, on every processor: one with narrower vectors takes several for one of ours.

Importing this module raises ImportError where Numba is missing.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

from llvmlite import ir
from numba import types
from numba.core import cgutils

from charrnn.rnn.kernels.packing import LANES

FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
BYTE, SHORT, INTEGER, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))


class Lanes:
    """LANES floating-point numbers.

    Args:
        builder: writes the instructions.
        value: the vector in LLVM's language.
    """

    def __init__(self, builder: ir.IRBuilder, value: Any) -> None:
        self._builder, self.value = builder, value

    def __add__(self, other: Any) -> Self:
        return self._like(self._builder.fadd(self.value, self._value(other)))

    def __sub__(self, other: Any) -> Self:
        return self._like(self._builder.fsub(self.value, self._value(other)))

    def __mul__(self, other: Any) -> Self:
        return self._like(self._builder.fmul(self.value, self._value(other)))

    def __truediv__(self, other: Any) -> Self:
        return self._like(self._builder.fdiv(self.value, self._value(other)))

    def at_least(self, other: Any) -> Self:
        """The larger numbers of the two."""
        return self._chosen("<", other)

    def at_most(self, other: Any) -> Self:
        """The smaller numbers of the two."""
        return self._chosen(">", other)

    def zero_below(self, least: float, of: Self) -> Self:
        """These numbers, but 0 where those of another vector are below the least."""
        below = self._builder.fcmp_ordered("<", of.value, of._value(least))
        return self._like(self._builder.select(below, self._value(0), self.value))

    def turned(self, by: int) -> Self:
        """The numbers so many lanes further on, those at the end followed by the first."""
        lanes = ir.Constant(vector(INTEGER), [(lane + by) % LANES for lane in range(LANES)])
        return self._like(self._builder.shuffle_vector(self.value, self.value, lanes))

    def widened(self) -> Self:
        """The same in float64."""
        return self._like(self._builder.fpext(self.value, vector(DOUBLE)))

    def whole(self) -> Any:
        """Whole numbers of 32 bits, rounded towards zero."""
        return self._builder.fptosi(self.value, vector(INTEGER))

    def floor(self) -> Any:
        """Whole numbers of 32 bits, rounded down; for LLVM's own floor some processors would call a function."""
        whole = self.whole()
        beyond = self._builder.fcmp_ordered(">", self._builder.sitofp(whole, self.value.type), self.value)
        return self._builder.add(whole, self._builder.sext(beyond, whole.type))  # what is true is -1

    def _chosen(self, than: str, other: Any) -> Self:
        """The other numbers where these are less, or more, than they."""
        value = self._value(other)
        return self._like(
            self._builder.select(self._builder.fcmp_ordered(than, self.value, value), value, self.value)
        )

    def _like(self, value: Any) -> Self:
        return type(self)(self._builder, value)

    def _value(self, other: Any) -> Any:
        return other.value if isinstance(other, Lanes) else spread(self.value.type, float(other))


class Arguments:
    """What an intrinsic is called with: arrays, of which it gets the places, and numbers."""

    def __init__(self, context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> None:
        self.builder, self._values = builder, arguments
        self._arrays = {
            n: context.make_array(kind)(context, builder, arguments[n])
            for n, kind in enumerate(signature.args)
            if isinstance(kind, types.Array)
        }

    def __getitem__(self, n: int) -> Any:
        return self._values[n]

    def width(self, n: int) -> Any:
        """The last length of the n-th one, an array."""
        return cgutils.unpack_tuple(self.builder, self._arrays[n].shape)[-1]

    def place(self, n: int, *offsets: Any) -> Any:
        """The place that lies so many numbers, added, behind the beginning of the n-th one."""
        place = self._arrays[n].data
        for offset in offsets:
            place = self.builder.gep(place, [offset])
        return place

    def lanes(self, n: int, *offsets: Any) -> Lanes:
        """The float32 that lie there."""
        return Lanes(self.builder, load(self.builder, self.place(n, *offsets), vector(FLOAT)))


def vector(kind: ir.Type, size: int = LANES) -> ir.VectorType:
    """The type of numbers side by side."""
    return ir.VectorType(kind, size)


def spread(kind: ir.VectorType, number: float) -> ir.Constant:
    """The same number in all lanes."""
    return ir.Constant(kind, [number] * kind.count)


def everywhere(builder: ir.IRBuilder, number: Any) -> Any:
    """The same with a number that isn't known yet."""
    nothing = ir.Constant(vector(number.type), ir.Undefined)
    first = builder.insert_element(nothing, number, INTEGER(0))
    return builder.shuffle_vector(first, nothing, spread(vector(INTEGER), 0))


def load(builder: ir.IRBuilder, place: Any, kind: ir.Type) -> Any:
    """What lies at a place, aligned or not."""
    loaded = builder.load(builder.bitcast(place, kind.as_pointer()))
    loaded.align = 1
    return loaded


def store(builder: ir.IRBuilder, value: Any, place: Any) -> None:
    """Writes to a place, aligned or not."""
    builder.store(value, builder.bitcast(place, value.type.as_pointer())).align = 1


def loop(
    builder: ir.IRBuilder, end: Any, step: int, starts: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """What becomes of some values when a body takes n = 0, step, ... below the end and them, and gives the next ones.

    It is taken once at least.
    """
    before, inside, after = builder.block, builder.append_basic_block("inside"), builder.append_basic_block("after")
    builder.branch(inside)
    builder.position_at_end(inside)
    n, *values = variables = [builder.phi(start.type) for start in (LONG(0), *starts)]
    following = [builder.add(n, LONG(step)), *body(n, values)]
    for variable, start, value in zip(variables, (LONG(0), *starts), following, strict=True):
        variable.add_incoming(start, before)
        variable.add_incoming(value, inside)
    builder.cbranch(builder.icmp_unsigned("<", following[0], end), inside, after)
    builder.position_at_end(after)
    return following[1:]
