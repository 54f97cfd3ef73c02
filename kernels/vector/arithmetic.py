"""Operators on vectors, comparisons to masks, choices, sums over lanes."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

from . import emit
from .types import Mask, Vector, dtype_like, lanes_of

# ------------------------------------------------------------------------------------------ operators
# vector op vector, vector op number, number op vector: a number is cast to the lanes' dtype and put into every lane.

_ARITHMETIC = {  # operator: (floating, integer) instruction
    operator.add: ("fadd", "add"), operator.sub: ("fsub", "sub"), operator.mul: ("fmul", "mul"),
    operator.truediv: ("fdiv", None),
    operator.and_: (None, "and_"), operator.or_: (None, "or_"), operator.xor: (None, "xor"),
    operator.lshift: (None, "shl"), operator.rshift: (None, "ashr"),
}  # fmt: skip
_IN_PLACE = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
             operator.itruediv: operator.truediv}  # fmt: skip
_COMPARISONS = {operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==",
                operator.ne: "!="}  # fmt: skip
_MASKS = {operator.and_: "and_", operator.or_: "or_", operator.xor: "xor"}


def _operands(args: Any) -> Vector | None:
    """The vector type of a binary operation, or None where this is not one."""
    vectors = [a for a in args if isinstance(a, Vector)]
    if len(args) != 2 or not vectors or not all(a == vectors[0] or isinstance(a, types.Number) for a in args):
        return None
    return vectors[0]


def as_vector(context: Any, b: Any, value: Any, t: Any, vector: Vector) -> Any:
    """The value itself, or a number in every lane."""
    if t == vector:
        return value
    return emit.splat(b, context.cast(b, value, t, vector.dtype), vector.ir)


def _define(function: Any, comparison: bool) -> None:
    instructions = _ARITHMETIC.get(_IN_PLACE.get(function, function))
    symbol = _COMPARISONS.get(function)

    @infer_global(function)
    class _Rule(AbstractTemplate):
        def generic(self, args, kws):
            vector = _operands(args)
            if vector is not None and (comparison or instructions[not vector.floating]):
                result = Mask(vector.lanes) if comparison else vector
                return signature(result, *[a if a == vector else types.unliteral(a) for a in args])
            if function in _MASKS and len(args) == 2 and isinstance(args[0], Mask) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    def lower(context, b, sig, args):
        vector = _operands(sig.args)
        x, y = (as_vector(context, b, a, t, vector) for a, t in zip(args, sig.args))
        if not comparison:
            return getattr(b, instructions[not vector.floating])(x, y)
        if not vector.floating:
            return b.icmp_signed(symbol, x, y)
        return b.fcmp_unordered("!=", x, y) if symbol == "!=" else b.fcmp_ordered(symbol, x, y)

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(function, *pair)(lower)


for _function in (*_ARITHMETIC, *_IN_PLACE):
    _define(_function, comparison=False)
for _function in _COMPARISONS:
    _define(_function, comparison=True)
for _function, _name in _MASKS.items():
    lower_builtin(_function, Mask, Mask)(lambda context, b, sig, args, name=_name: getattr(b, name)(*args))


@infer_global(operator.neg)
class _Negative(AbstractTemplate):
    def generic(self, args, kws):
        return signature(args[0], args[0]) if isinstance(args[0], Vector) and args[0].floating else None


@lower_builtin(operator.neg, Vector)
def _(context, b, sig, args):
    return b.fneg(args[0])


@infer_global(operator.invert)
class _Not(AbstractTemplate):
    def generic(self, args, kws):
        return signature(args[0], args[0]) if isinstance(args[0], Mask) else None


@lower_builtin(operator.invert, Mask)
def _(context, b, sig, args):
    return b.not_(args[0])


# --------------------------------------------------------------------------------------- making vectors


@intrinsic
def splat(typingctx, s, like):
    """The number s in every lane of a vector like `like` (an array, a pointer, a vector or a number)."""
    result = Vector(dtype_like(like))

    def generate(context, b, sig, args):
        return as_vector(context, b, args[0], sig.args[0], result)

    return result(s, like), generate


@intrinsic
def zeros(typingctx, like):
    """A vector of zeros."""
    result = Vector(dtype_like(like))
    zero = emit.constant(result.ir, 0.0 if result.floating else 0)
    return result(like), lambda context, b, sig, args: zero


@intrinsic
def iota(typingctx, like):
    """0, 1, 2, ... lanes - 1"""
    result = Vector(dtype_like(like))
    numbers = emit.constant(result.ir, [float(i) if result.floating else i for i in range(result.lanes)])
    return result(like), lambda context, b, sig, args: numbers


@intrinsic
def lanes(typingctx, like):
    """How many lanes vectors like `like` have: a constant where it is compiled."""
    count = lanes_of(dtype_like(like))
    return types.intp(like), lambda context, b, sig, args: context.get_constant(types.intp, count)


# ------------------------------------------------------------------------------------------ functions


def _same(function: str, *vectors: Any) -> Vector:
    if not isinstance(vectors[0], Vector) or any(v != vectors[0] for v in vectors):
        raise TypingError(f"simd.{function} takes vectors of one type, got {', '.join(map(str, vectors))}")
    return vectors[0]


@intrinsic
def fma(typingctx, x, y, z):
    """x * y + z, rounded once. Any but not all of them may be numbers."""
    vector = next((a for a in (x, y, z) if isinstance(a, Vector)), None)
    if vector is None or any(a != vector and not isinstance(a, types.Number) for a in (x, y, z)):
        raise TypingError(f"simd.fma takes vectors of one type and numbers, got {x}, {y}, {z}")

    def generate(context, b, sig, args):
        return emit.fma(b, *[as_vector(context, b, a, t, vector) for a, t in zip(args, sig.args)])

    return vector(x, y, z), generate


def _choose(symbol: str, doc: str) -> Any:
    @intrinsic
    def choose(typingctx, x, y):
        vector = _operands((x, y))
        if vector is None:
            raise TypingError(f"simd.minimum and maximum take vectors of one type and numbers, got {x}, {y}")

        def generate(context, b, sig, args):
            x, y = (as_vector(context, b, a, t, vector) for a, t in zip(args, sig.args))
            compare = b.fcmp_ordered if vector.floating else b.icmp_signed
            return b.select(compare(symbol, x, y), x, y)

        return vector(x, y), generate

    choose.__doc__ = doc
    return choose


minimum = _choose("<", "x where x < y, else y (so NaN in either gives y).")
maximum = _choose(">", "x where x > y, else y (so NaN in either gives y).")


@intrinsic
def select(typingctx, mask, x, y):
    """x in the lanes where the mask is true, y in the others."""
    vector = _operands((x, y))
    if vector is None or mask != Mask(vector.lanes):
        raise TypingError(f"simd.select takes a mask and two vectors (or a number) of its lanes, got {mask}, {x}, {y}")

    def generate(context, b, sig, args):
        x, y = (as_vector(context, b, a, t, vector) for a, t in zip(args[1:], sig.args[1:]))
        return b.select(args[0], x, y)

    return vector(mask, x, y), generate


def _unary(name: str, llvm_name: str, doc: str) -> Any:
    @intrinsic
    def function(typingctx, x):
        _same(name, x)
        return x(x), lambda context, b, sig, args: emit.call(b, f"llvm.{llvm_name}.{emit.suffix(x.ir)}", x.ir, args[0])

    function.__doc__ = doc
    return function


absolute = _unary("absolute", "fabs", "|x|")
sqrt = _unary("sqrt", "sqrt", "Square root, correctly rounded.")
floor = _unary("floor", "floor", "The largest integer <= x.")
round_even = _unary("round_even", "roundeven", "The nearest integer, ties to the even one.")


@intrinsic
def copysign(typingctx, x, y):
    """|x| with the sign of y."""
    vector = _same("copysign", x, y)
    name = f"llvm.copysign.{emit.suffix(vector.ir)}"
    return vector(x, y), lambda context, b, sig, args: emit.call(b, name, vector.ir, *args)


# ------------------------------------------------------------------------------------------ over lanes


@intrinsic
def hsum(typingctx, v):
    """The sum of the lanes, pairwise."""
    _same("hsum", v)

    def generate(context, b, sig, args):
        name = f"llvm.vector.reduce.fadd.{emit.suffix(v.ir)}"
        minus_zero = ir.Constant(v.ir.element, -0.0)
        return emit.call(b, name, v.ir.element, minus_zero, args[0], fastmath=("reassoc",))

    return v.dtype(v), generate


def _extreme(symbol: str, doc: str) -> Any:
    @intrinsic
    def extreme(typingctx, v):
        _same("hmax, hmin", v)

        def generate(context, b, sig, args):
            value, half = args[0], v.lanes // 2
            while half:  # the upper half against the lower one; LLVM's own reduction spends more on NaN
                order = emit.constant(ir.VectorType(ir.IntType(32), v.lanes), [i % half + half for i in range(v.lanes)])
                other = b.shuffle_vector(value, value, order)
                value, half = b.select(b.fcmp_ordered(symbol, value, other), value, other), half // 2
            return b.extract_element(value, ir.Constant(ir.IntType(32), 0))

        return v.dtype(v), generate

    extreme.__doc__ = doc
    return extreme


hmax = _extreme(">", "The largest lane; anything, if one is NaN.")
hmin = _extreme("<", "The smallest lane; anything, if one is NaN.")


@intrinsic
def hsum_wide(typingctx, v):
    """The sum of the lanes, added in float64."""
    _same("hsum_wide", v)

    def generate(context, b, sig, args):
        t = ir.VectorType(ir.DoubleType(), v.lanes)
        wide = args[0] if v.dtype == types.float64 else b.fpext(args[0], t)
        minus_zero = ir.Constant(ir.DoubleType(), -0.0)
        name = f"llvm.vector.reduce.fadd.{emit.suffix(t)}"
        return emit.call(b, name, ir.DoubleType(), minus_zero, wide, fastmath=("reassoc",))

    return types.float64(v), generate


def _over_mask(every: bool, doc: str) -> Any:
    @intrinsic
    def over(typingctx, mask):
        if not isinstance(mask, Mask):
            raise TypingError(f"simd.any_lane and all_lanes take a mask, got {mask}")

        def generate(context, b, sig, args):
            bits = b.bitcast(args[0], ir.IntType(mask.lanes))
            if every:
                return b.icmp_signed("==", bits, ir.Constant(bits.type, -1))
            return b.icmp_signed("!=", bits, ir.Constant(bits.type, 0))

        return types.boolean(mask), generate

    over.__doc__ = doc
    return over


any_lane = _over_mask(False, "True where the mask is true in any lane.")
all_lanes = _over_mask(True, "True where the mask is true in every lane.")


# ---------------------------------------------------------------------------------- numbers and their bits


@intrinsic
def bits(typingctx, v):
    """A vector of floats as the integers that its bits spell."""
    integer = Vector(types.int32 if _same("bits", v).dtype == types.float32 else types.int64)
    return integer(v), lambda context, b, sig, args: b.bitcast(args[0], integer.ir)


@intrinsic
def from_bits(typingctx, v):
    """The floats whose bits these integers are."""
    floating = Vector(types.float32 if _same("from_bits", v).dtype in (types.int32, types.uint32) else types.float64)
    return floating(v), lambda context, b, sig, args: b.bitcast(args[0], floating.ir)


@intrinsic
def to_float(typingctx, v):
    """Integers as floats of the same size."""
    floating = Vector(types.float32 if _same("to_float", v).dtype == types.int32 else types.float64)
    return floating(v), lambda context, b, sig, args: b.sitofp(args[0], floating.ir)
