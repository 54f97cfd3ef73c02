"""Between arrays and vectors: pointers, load, store, tails, prefetch, transpose.

`p` is an array in C order (of any ndim: `i` counts its elements as they lie in memory) or a pointer. No bounds are
checked: a kernel is the place where that was thought about.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

from . import emit
from .types import I32, Mask, Pointer, Vector, dtype_like, element, lanes_of


@intrinsic
def pointer(typingctx, x):
    """The address of x's first element, for an array of any strides: pointer(x) + n is n elements further.

    The array must outlive the pointer. Numba frees an array that the function itself made after its last use, and a
    use of the pointer does not count: end with `keep_alive(x)`.
    """
    if not isinstance(x, types.Array):
        raise TypingError(f"simd.pointer takes an array, got {x}")

    def generate(context, b, sig, args):
        data = context.make_array(sig.args[0])(context, b, args[0]).data
        return b.bitcast(data, element(sig.args[0].dtype).as_pointer())

    return Pointer(x.dtype)(x), generate


@intrinsic
def keep_alive(typingctx, x):
    """Nothing but a use of x, after the last use of a pointer into it."""
    return types.void(x), lambda context, b, sig, args: context.get_dummy_value()


@infer_global(operator.add)
class _Forward(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 2 and isinstance(args[0], Pointer) and isinstance(args[1], types.Integer):
            return signature(args[0], args[0], types.intp)
        return None


@lower_builtin(operator.add, Pointer, types.Integer)
def _(context, b, sig, args):
    return b.gep(args[0], [args[1]])


def _where(context: Any, b: Any, types_: Any, p: Any, i: Any) -> Any:
    """The address of element i of an array or behind a pointer."""
    i = context.cast(b, i, types_[1], types.intp)
    if isinstance(types_[0], types.Array):
        p = context.make_array(types_[0])(context, b, p).data
        p = b.bitcast(p, element(types_[0].dtype).as_pointer())
    return b.gep(p, [i])


def _check(function: str, p: Any, i: Any) -> types.Type:
    ordered = isinstance(p, Pointer) or (isinstance(p, types.Array) and p.layout == "C")
    if not ordered or not isinstance(i, types.Integer):
        raise TypingError(f"simd.{function} takes an array in C order or a pointer, then an index; got {p}, {i}")
    return p.dtype


def _align(dtype: Any) -> int:
    return dtype.bitwidth // 8


@intrinsic
def load(typingctx, p, i):
    """The vector p[i : i + lanes]."""
    result = Vector(_check("load", p, i))

    def generate(context, b, sig, args):
        return emit.load(b, _where(context, b, sig.args, *args), result.ir, _align(result.dtype))

    return result(p, i), generate


@intrinsic
def number(typingctx, p, i):
    """The number p[i]."""
    dtype = _check("number", p, i)

    def generate(context, b, sig, args):
        value = b.load(_where(context, b, sig.args, *args))
        value.align = _align(dtype)
        return value

    return dtype(p, i), generate


@intrinsic
def store(typingctx, p, i, v):
    """p[i : i + lanes] = v"""
    dtype = _check("store", p, i)
    if not isinstance(v, Vector) or v.dtype != dtype:
        raise TypingError(f"simd.store: a {v} does not go into {p}")

    def generate(context, b, sig, args):
        emit.store(b, args[2], _where(context, b, sig.args[:2], *args[:2]), _align(dtype))
        return context.get_dummy_value()

    return types.void(p, i, v), generate


def lanes_below(context: Any, b: Any, n: Any, n_type: Any, lanes: int) -> Any:
    """The mask of lanes 0 .. n - 1; none for n <= 0, all for n >= lanes."""
    n = context.cast(b, n, n_type, types.intp)
    zero, most = ir.Constant(n.type, 0), ir.Constant(n.type, lanes)
    n = b.select(b.icmp_signed("<", n, zero), zero, b.select(b.icmp_signed(">", n, most), most, n))
    t = ir.VectorType(I32, lanes)
    return b.icmp_signed("<", emit.constant(t, list(range(lanes))), emit.splat(b, b.trunc(n, I32), t))


@intrinsic
def load_tail(typingctx, p, i, n):
    """The first n numbers of p[i : i + lanes], zeros in the other lanes. Memory beyond them is not touched."""
    result = Vector(_check("load_tail", p, i))

    def generate(context, b, sig, args):
        address = b.bitcast(_where(context, b, sig.args[:2], *args[:2]), result.ir.as_pointer())
        mask = lanes_below(context, b, args[2], sig.args[2], result.lanes)
        name = f"llvm.masked.load.{emit.suffix(result.ir)}.p0"
        zero = emit.constant(result.ir, 0.0 if result.floating else 0)
        return emit.call(b, name, result.ir, address, I32(_align(result.dtype)), mask, zero)

    return result(p, i, n), generate


@intrinsic
def store_tail(typingctx, p, i, v, n):
    """The first n lanes of v to p[i : i + n]. Memory beyond them is not touched."""
    dtype = _check("store_tail", p, i)
    if not isinstance(v, Vector) or v.dtype != dtype:
        raise TypingError(f"simd.store_tail: a {v} does not go into {p}")

    def generate(context, b, sig, args):
        address = b.bitcast(_where(context, b, sig.args[:2], *args[:2]), v.ir.as_pointer())
        mask = lanes_below(context, b, args[3], sig.args[3], v.lanes)
        name = f"llvm.masked.store.{emit.suffix(v.ir)}.p0"
        emit.call(b, name, ir.VoidType(), args[2], address, I32(_align(dtype)), mask)
        return context.get_dummy_value()

    return types.void(p, i, v, n), generate


@intrinsic
def first(typingctx, n, like):
    """The mask of lanes 0 .. n - 1 of vectors like `like`."""
    lanes = lanes_of(dtype_like(like))

    def generate(context, b, sig, args):
        return lanes_below(context, b, args[0], sig.args[0], lanes)

    return Mask(lanes)(n, like), generate


def _prefetch(write: bool) -> Any:
    @intrinsic
    def prefetch(typingctx, p, i):
        """Ask for the cache line of p[i], to read or to write; any address will do, none faults."""
        _check("prefetch", p, i)

        def generate(context, b, sig, args):
            emit.prefetch(b, _where(context, b, sig.args, *args), write)
            return context.get_dummy_value()

        return types.void(p, i), generate

    return prefetch


prefetch, prefetch_write = _prefetch(False), _prefetch(True)


def butterfly(b: Any, rows: list) -> list:
    """The transpose of n vectors of n lanes: log2(n) rounds, each swaps blocks of s lanes between rows i and i + s."""
    n, rows = len(rows), list(rows)
    index = ir.VectorType(I32, n)
    s = n // 2
    while s:
        low = emit.constant(index, [q if not q & s else n + (q - s) for q in range(n)])
        high = emit.constant(index, [q + s if not q & s else n + q for q in range(n)])
        for i in range(n):
            if not i & s:
                x, y = rows[i], rows[i + s]
                rows[i], rows[i + s] = b.shuffle_vector(x, y, low), b.shuffle_vector(x, y, high)
        s //= 2
    return rows


@intrinsic
def transpose(typingctx, src, src_step, dst, dst_step):
    """dst[j * dst_step + i] = src[i * src_step + j] for i, j < lanes: a square block, turned in registers."""
    if not isinstance(src, Pointer) or src != dst:
        raise TypingError(f"simd.transpose takes two pointers of one dtype, got {src} and {dst}")
    t = Vector(src.dtype)

    def generate(context, b, sig, args):
        def at(p: int, row: int) -> Any:
            step = context.cast(b, args[p + 1], sig.args[p + 1], types.intp)
            return b.gep(args[p], [b.mul(step, ir.Constant(step.type, row))])

        rows = butterfly(b, [emit.load(b, at(0, i), t.ir, _align(t.dtype)) for i in range(t.lanes)])
        for j, row in enumerate(rows):
            emit.store(b, row, at(2, j), _align(t.dtype))
        return context.get_dummy_value()

    return types.void(src, src_step, dst, dst_step), generate
