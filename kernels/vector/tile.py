"""The register tile: the small product that all large ones are made of.

    C[rows, vectors * lanes] = D + A[rows, K] @ B[K, vectors * lanes]

C's block stays in rows * vectors registers while k runs. Each step loads one row of B (`vectors` loads), and for each
row of A one number, spread over all lanes:

                       b0      b1      b2            B's row k: vectors
            a[0,k]   c[0,0]  c[0,1]  c[0,2]
            a[1,k]   c[1,0]  c[1,1]  c[1,2]          c[r,v] += a[r,k] * b[v], one fma each
             ...

8 x 3 makes 24 fmas out of 11 loads, and 24 independent sums hide that a sum waits 4 cycles for itself: the CPU's two
fma units never wait. Fewer sums would wait, more do not fit into 32 registers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from . import emit
from .types import Pointer, Vector, element


@cache
def make_tile(rows: int, vectors: int) -> Any:
    """tile(a, a_row, a_step, b, b_row, c, c_row, d, d_row, k), usable in @njit functions:

        for r in range(rows):
            c[r * c_row :][: vectors * lanes] = d[r * d_row :][...]
                                                + sum of a[r * a_row + i * a_step] * b[i * b_row :][...], i = 0 .. k - 1

    a, b, c, d pointers of one floating dtype; steps in elements. What d is makes the difference:

        a row of zeros, d_row 0    the plain product          a bias, d_row 0      product + bias
        another matrix             product + residual         c itself, c_row      c += product

    The sum over k is made in order, then d is added.
    """
    return _make(rows, vectors, _Floats)


class _Floats:
    """float32 and float64: a number of A in every lane, times a vector of B."""

    @staticmethod
    def check(a: Any, b: Any, c: Any, d: Any) -> None:
        if not isinstance(a, Pointer) or not isinstance(a.dtype, types.Float) or not a == b == c == d:
            raise TypingError(f"a tile takes four pointers of one floating dtype, got {a}, {b}, {c}, {d}")

    @staticmethod
    def operand(c: Vector) -> ir.VectorType:
        return c.ir

    @staticmethod
    def multiply_add(b: Any, x: Any, y: Any, total: Any) -> Any:
        return emit.fma(b, x, y, total)


def _make(rows: int, vectors: int, kind: Any) -> Any:
    @intrinsic
    def tile(typingctx, a, a_row, a_step, b, b_row, c, c_row, d, d_row, k):
        kind.check(a, b, c, d)
        t = Vector(c.dtype)
        operand = kind.operand(t)
        size, align = t.lanes, c.dtype.bitwidth // 8

        def generate(context, builder, sig, args):
            args = [
                v if isinstance(s, Pointer) else context.cast(builder, v, s, types.intp) for v, s in zip(args, sig.args)
            ]
            a_, a_row, a_step, b_, b_row, c_, c_row, d_, d_row, k_ = args

            def at(p: Any, *offsets: Any) -> Any:
                for offset in offsets:
                    p = builder.gep(p, [offset])
                return p

            def times(step: Any, n: int) -> Any:
                return builder.mul(step, ir.Constant(step.type, n))

            blocks = [(r, v) for r in range(rows) for v in range(vectors)]
            columns = [ir.Constant(k_.type, v * size) for v in range(vectors)]
            out = {(r, v): at(c_, times(c_row, r), columns[v]) for r, v in blocks}
            start = {(r, v): at(d_, times(d_row, r), columns[v]) for r, v in blocks}
            sums = {rv: cgutils.alloca_once(builder, t.ir) for rv in blocks}
            for rv in blocks:
                builder.store(emit.constant(t.ir, 0.0), sums[rv])
                emit.prefetch(builder, out[rv], write=True)
            a_rows = [at(a_, times(a_row, r)) for r in range(rows)]
            with cgutils.for_range(builder, k_) as loop:
                b_k = at(b_, builder.mul(loop.index, b_row))
                row = [emit.load(builder, at(b_k, columns[v]), operand, align) for v in range(vectors)]
                a_k = builder.mul(loop.index, a_step)
                for r in range(rows):
                    number = emit.load(builder, at(a_rows[r], a_k), element(a.dtype), align)
                    spread = emit.splat(builder, number, operand)
                    for v in range(vectors):
                        total = builder.load(sums[r, v])
                        builder.store(kind.multiply_add(builder, spread, row[v], total), sums[r, v])
            for rv in blocks:
                value = builder.fadd(builder.load(sums[rv]), emit.load(builder, start[rv], t.ir, align))
                emit.store(builder, value, out[rv], align)
            return context.get_dummy_value()

        return types.void(a, a_row, a_step, b, b_row, c, c_row, d, d_row, k), generate

    return tile
