"""exp, log, tanh, erf and their relatives on vectors: float32 in arithmetic on all lanes at once.

Largest errors over the whole range, in units in the last place (measured in tests/kernels/test_simd.py):

    exp 1.3     log 1.0     tanh 1.5     erf 1.3     sigmoid 2.5     expm1 1.7     log1p 1.5

A vector of float64, which serves checks, goes through the C library number by number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from . import emit
from .arithmetic import (
    absolute,
    bits,
    copysign,
    fma,
    from_bits,
    maximum,
    round_even,
    select,
    splat,
    to_float,
)  # fmt: skip
from .cpu import HAS_AVX512
from .types import I32, Vector, element

LOG2_E = math.log2(math.e)
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is ln 2; n * LN2_HIGH is exact for |n| < 2^15


def _float32_or_libm(function: Callable, name: str) -> Callable:
    """Decorator: `function` is the float32 version's body; float64 calls `name` of the C library for each lane."""

    def choose(body: Callable) -> Callable:
        @overload(function, jit_options={"forceinline": True, "error_model": "numpy"})
        def _(x):
            if not isinstance(x, Vector) or not x.floating:
                raise TypingError(f"simd.{function.__name__} takes a vector of floats, got {x}")
            if x.dtype == types.float32:
                return body
            each = _libm(name)
            return lambda x: each(x)

        return body

    return choose


def _libm(name: str) -> Any:
    @intrinsic
    def each(typingctx, x):
        def generate(context, b, sig, args):
            result, double = args[0], element(x.dtype)
            for lane in range(x.lanes):
                value = emit.call(b, name, double, b.extract_element(args[0], I32(lane)))
                result = b.insert_element(result, value, I32(lane))
            return result

        return x(x), generate

    return each


# ------------------------------------------------------------------------------------------------ exp


@intrinsic
def scale(typingctx, y, n):
    """y * 2^n for a vector n of integers as floats, |n| <= 252; denormal results are rounded once."""

    def generate(context, b, sig, args):
        y_, n_ = args
        if HAS_AVX512:  # one instruction
            mask, nearest = ir.Constant(ir.IntType(16), -1), I32(4)
            return emit.call(b, "llvm.x86.avx512.mask.scalef.ps.512", y.ir, y_, n_, y_, mask, nearest)
        t = ir.VectorType(I32, y.lanes)
        whole = b.fptosi(n_, t)
        half = b.ashr(whole, emit.constant(t, 1))  # 2^n itself may be out of range: two factors are not
        for part in (half, b.sub(whole, half)):
            power = b.shl(b.add(part, emit.constant(t, 127)), emit.constant(t, 23))
            y_ = b.fmul(y_, b.bitcast(power, y.ir))
        return y_

    return y(y, n), generate


def exp(x):
    """e^x. 0 below -103.98, inf above 88.73; denormal results are there; NaN stays NaN.

    x = n ln 2 + r, |r| <= ln 2 / 2:    e^x = 2^n e^r,    e^r = 1 + r + r^2 P(r), P minimax of degree 4
    """


@_float32_or_libm(exp, "exp")
def _exp(x):
    x = select(x > 89.0, 89.0, select(x < -104.0, -104.0, x))
    n = round_even(x * LOG2_E)
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    p = fma(fma(fma(fma(r, 0.0013926927, 0.008363774), r, 0.04166655), r, 0.16666573), r, 0.5)
    return scale(fma(p, r * r, r + 1.0), n)


def expm1(x):
    """e^x - 1, accurate where x is small: 2^n (e^r - 1) + (2^n - 1) with n and r as in exp."""


@_float32_or_libm(expm1, "expm1")
def _expm1(x):
    inside = select(x > 88.0, 88.0, select(x < -20.0, -20.0, x))
    n = round_even(inside * LOG2_E)
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, inside))
    p = fma(fma(fma(fma(r, 0.0013926927, 0.008363774), r, 0.04166655), r, 0.16666573), r, 0.5)
    power = scale(splat(1.0, x), n)
    value = fma(power, fma(p, r * r, r), power - 1.0)
    value = select(x > 88.0, exp(x), value)  # -1 does not count there
    return select(absolute(x) < 1e-30, x, value)  # keeps -0, and denormals


def sigmoid(x):
    """1 / (1 + e^-x), from e^-|x|, which cannot overflow."""


def _sigmoid(x):
    e = exp(-absolute(x))
    return select(x < 0.0, e, 1.0) / (e + 1.0)


@overload(sigmoid, jit_options={"forceinline": True, "error_model": "numpy"})
def _(x):
    return _sigmoid


# ------------------------------------------------------------------------------------------------ log


def log(x):
    """The natural logarithm. -inf at 0, NaN below, inf at inf.

    x = 2^e m, sqrt(1/2) <= m < sqrt(2), f = m - 1:    log x = e ln 2 + f - f^2 / 2 + f^3 P(f), P minimax of degree 7
    """


@_float32_or_libm(log, "log")
def _log(x):
    tiny = x < 1.1754944e-38
    i = bits(select(tiny, x * 8388608.0, x))  # 2^23: a denormal has no exponent of its own
    e = (i - 0x3F3504F3) >> 23  # the bits of sqrt(1/2)
    f = from_bits(i - (e << 23)) - 1.0
    n = to_float(e) - select(tiny, splat(23.0, x), 0.0)
    p = fma(fma(fma(f, -0.079027437, 0.12622319), f, -0.12998183), f, 0.14214496)
    p = fma(fma(fma(fma(p, f, -0.16641282), f, 0.20001045), f, -0.25000307), f, 0.33333331)
    square = f * f
    tail = fma(square * f, p, fma(n, LN2_LOW, square * -0.5))
    value = fma(n, LN2_HIGH, f + tail)
    value = select(x > 3.4028235e38, x, value)  # inf
    return select(x > 0.0, value, select(x == 0.0, splat(-math.inf, x), math.nan))


def log1p(x):
    """log(1 + x), accurate where x is small: log u + (x - (u - 1)) / u with u = 1 + x rounded."""


@_float32_or_libm(log1p, "log1p")
def _log1p(x):
    u = x + 1.0
    lost = (x - (u - 1.0)) / u
    ordinary = (u > 0.0) & (u < 1e30)
    value = log(u) + select(ordinary, lost, 0.0)
    return select(absolute(x) < 1e-30, x, value)


# --------------------------------------------------------------------------------------- tanh and erf
# Odd functions that reach 1: a polynomial of degree 5 for each of at most 32 segments of |x|, four to an octave from
# 1/8 on, so that two bits of the mantissa and the exponent make the number of the segment. Each lane looks up its own
# coefficients; AVX-512 does that in registers.

_FIRST = 495  # the bits of 1/8, shifted right by 21, less one: segment 0 is 0 .. 1/8
SEGMENTS = 32


def _fit(function: Callable[[float], float], end: float, slope: float) -> np.ndarray:
    """(32, 7): of each segment the centre c and the coefficients of f(c + t) in powers of t, lowest first.

    Segment 0 has c = 0 and no constant term, so that f(x) / x is accurate down to 0; `slope` of its linear term is left
    to the caller (2 / sqrt(pi) rounds badly). From `end` on the function is 1.
    """
    table = np.zeros((SEGMENTS, 7), np.float32)
    edges = (np.arange(SEGMENTS + 1, dtype=np.int32) + _FIRST << 21).view(np.float32).astype(float)
    edges[0] = 0.0
    for row, a, b in zip(table, edges, edges[1:]):
        c, h = (a + b) / 2 if a else 0.0, (b - a) / 2 if a else b
        if a >= end:
            row[:2] = a, 1.0
            continue

        def f(s: np.ndarray, c: float = c, h: float = h, first: bool = a == 0) -> np.ndarray:
            t = h * (s + 1) / 2 if first else h * s
            return np.array([function(v) / v - slope if first else function(c + v) for v in t])

        fitted = np.polynomial.Chebyshev.interpolate(f, 4 if a == 0 else 5)
        if a == 0:
            row[2:] = np.polynomial.Chebyshev(fitted.coef, [0, h]).convert(kind=np.polynomial.Polynomial).coef
        else:
            row[0] = c
            row[1:] = np.polynomial.Chebyshev(fitted.coef, [-h, h]).convert(kind=np.polynomial.Polynomial).coef
    return table


def _lookup(values: np.ndarray) -> Any:
    """An intrinsic: values[index] for a vector of indices 0 .. 31."""
    floats = [float(v) for v in values]

    @intrinsic
    def lookup(typingctx, index):
        result = Vector(types.float32)

        def generate(context, b, sig, args):
            if HAS_AVX512:
                low, high = emit.constant(result.ir, floats[:16]), emit.constant(result.ir, floats[16:])
                return emit.call(b, "llvm.x86.avx512.vpermi2var.ps.512", result.ir, low, args[0], high)
            t = ir.ArrayType(ir.FloatType(), SEGMENTS)
            table = ir.GlobalVariable(b.module, t, b.module.get_unique_name("simd.table"))
            table.initializer, table.global_constant, table.linkage = ir.Constant(t, floats), True, "internal"
            value = ir.Constant(result.ir, ir.Undefined)
            for lane in range(result.lanes):
                at = b.gep(table, [I32(0), b.extract_element(args[0], I32(lane))])
                value = b.insert_element(value, b.load(at), I32(lane))
            return value

        return result(index), generate

    return lookup


def _segmented(table: np.ndarray, end: float, slope: float) -> Callable:
    c, c0, c1, c2, c3, c4, c5 = (_lookup(column) for column in table.T)

    def function(x):
        a = select(absolute(x) > end, end, absolute(x))  # NaN stays
        i = maximum((bits(a) >> 21) - _FIRST, 0) & 31  # a NaN's bits are beyond the table
        t = a - c(i)
        p = fma(fma(fma(fma(fma(c5(i), t, c4(i)), t, c3(i)), t, c2(i)), t, c1(i)), t, c0(i))
        if slope != 0.0:
            p = fma(select(a < 0.125, splat(slope, x), 0.0), t, p)
        return copysign(p, x)

    return function


def tanh(x):
    """The hyperbolic tangent: a polynomial for each segment of |x|."""


def erf(x):
    """The error function 2 / sqrt(pi) * integral of e^(-t^2) from 0 to x: a polynomial for each segment of |x|."""


_float32_or_libm(tanh, "tanh")(_segmented(_fit(math.tanh, 10.0, 0.0), 10.0, 0.0))
_float32_or_libm(erf, "erf")(_segmented(_fit(math.erf, 4.0, 1.125), 4.0, 1.125))

__all__ = ["erf", "exp", "expm1", "log", "log1p", "sigmoid", "tanh"]
