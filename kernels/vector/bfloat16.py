"""Products of bfloat16 numbers with float32 sums, where the CPU multiplies them (AVX512_BF16).

bfloat16 is the upper half of a float32: 8 bits of exponent, 8 of precision. The instruction `vdpbf16ps` takes a *pair*
of them for each lane, two neighbours along k, and adds both products to a float32 sum: twice the multiplications a
cycle.

    sum[j] += a[2k] * b[2k, j] + a[2k + 1] * b[2k + 1, j]

So matrices are packed in pairs: a 32-bit word holds (x[2k], x[2k + 1]), the first in its lower half.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from . import emit
from .cpu import HAS_BF16
from .tile import _make
from .types import I32, Pointer, Vector


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no class for."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_PAIRS = ir.VectorType(_BFloat(), 32)


def _need_bf16() -> None:
    if not HAS_BF16:
        raise TypingError("this CPU has no AVX512_BF16 instructions: ask simd.HAS_BF16 first")


def to_bf16(b: Any, low: Any, high: Any) -> Any:
    """32 numbers, the lanes of low and then of high, rounded to nearest even: a vector of 16 words."""
    both = emit.call(b, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", _PAIRS, high, low)
    return b.bitcast(both, ir.VectorType(I32, 16))


def _float32(*vectors: Any) -> None:
    _need_bf16()
    if any(v != Vector(types.float32) for v in vectors):
        raise TypingError(f"expected vectors of float32, got {', '.join(map(str, vectors))}")


@intrinsic
def pack_pairs(typingctx, u, v):
    """Words (bf16(u[j]), bf16(v[j])), a Vector of int32: rows 2k and 2k + 1 of a matrix become one row of pairs."""
    _float32(u, v)

    def generate(context, b, sig, args):
        halves = b.bitcast(to_bf16(b, *args), ir.VectorType(ir.IntType(16), 32))
        order = [i // 2 + 16 * (i % 2) for i in range(32)]
        mixed = b.shuffle_vector(halves, halves, emit.constant(ir.VectorType(I32, 32), order))
        return b.bitcast(mixed, ir.VectorType(I32, 16))

    return Vector(types.int32)(u, v), generate


@intrinsic
def pack_row(typingctx, low, high):
    """32 neighbours of a row, in order, as 16 words: the lanes of low, then those of high."""
    _float32(low, high)
    return Vector(types.int32)(low, high), lambda context, b, sig, args: to_bf16(b, *args)


class _BFloats:
    """float32 sums of products of pairs; a and b point to words."""

    @staticmethod
    def check(a: Any, b: Any, c: Any, d: Any) -> None:
        _need_bf16()
        if a != Pointer(types.int32) or b != a or c != Pointer(types.float32) or d != c:
            raise TypingError(f"a bf16 tile takes pointers to int32 (a, b) and float32 (c, d), got {a}, {b}, {c}, {d}")

    @staticmethod
    def operand(c: Vector) -> ir.VectorType:
        return ir.VectorType(I32, c.lanes)

    @staticmethod
    def multiply_add(b: Any, x: Any, y: Any, total: Any) -> Any:
        pairs = b.bitcast(x, _PAIRS), b.bitcast(y, _PAIRS)
        return emit.call(b, "llvm.x86.avx512bf16.dpbf16ps.512", total.type, total, *pairs)


@cache
def make_tile_bf16(rows: int, vectors: int) -> Any:
    """As `make_tile`, with a and b pointers to words of two bfloat16 (int32): k counts pairs; c, d are float32."""
    return _make(rows, vectors, _BFloats)
