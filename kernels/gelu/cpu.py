"""GELU in Numba on vectors of float32; float64 is in float64.py. Formulas in reference.py.

With y = |x|, both signs of x come out of the lower tail of the normal distribution, and neither loses digits:

    x Phi(x) = max(x, 0) - y Phi(-y)

    d/dx     = d where x < 0, else 1 - d        d = Phi(-y) - y Phi'(y)

Phi(-y) = 2^Q(y): the logarithm of the tail is nearly a parabola, so one polynomial serves all y, and there is no
division. Q was fitted to log2 Phi(-y) on 0 .. 15 by weighted least squares, the weights moved until the largest error
was smallest, with Q(0) = -1 held exactly. Errors of Q: 3e-7 (1 + |Q| / 2) for y < 5, 1e-5 at 6, 2e-3 at 9; so gelu(-6)
still has five correct digits, where (1 + erf) / 2 in float32 has none. Beyond 15 everything is 0 in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import simd
from ..blocks import BLOCK, SMALL, count, end
from ..checks import contiguous
from ..numba_setup import njit, prange
from ..vector.functions import scale
from . import float64

Q = (-1.0, -1.1511164903640747, -0.45911547541618347, -0.05274175480008125, 0.007353805936872959,
     -0.0003026833292096853, -0.0001474290038459003, 4.189413084532134e-05, -5.729282747779507e-06,
     4.529973125499964e-07, -1.967167939653791e-08, 3.6232714051287473e-10)  # fmt: skip
E = (1.0, 0.6931469670643562, 0.24022119723882768, 0.055507132741602426, 0.009675541332735047,
     0.0013276471778502115)  # 2^f for |f| <= 1/2, minimax  # fmt: skip
DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)
HALF_LOG2_E = 0.5 / math.log(2)
SLOPE = 2 * math.sqrt(2 / math.pi)  # of u, where tanh's Phi is sigmoid(u)
CUBIC = 0.044715


def gelu_forward(x: Any, approximate: str) -> Any:
    out = np.empty(x.shape, x.dtype)
    forward = _forward if x.dtype == np.float32 else float64.forward
    forward(contiguous(x).reshape(-1), approximate == "tanh", out.reshape(-1))
    return out


@njit(parallel=True)
def _forward(x, tanh, out):
    if x.size <= SMALL:
        _forward_range(x, tanh, out, 0, x.size)
    else:
        for b in prange(count(x.size)):
            _forward_range(x, tanh, out, b * BLOCK, end(b, x.size))


@njit
def _forward_range(x, tanh, out, start, stop):
    n = simd.lanes(x)
    rest = (stop - start) % n
    for i in range(start, stop - rest, n):
        simd.store(out, i, gelu(simd.load(x, i), tanh))
    if rest:
        i = stop - rest
        simd.store_tail(out, i, gelu(simd.load_tail(x, i, rest), tanh), rest)


@njit(error_model="numpy", forceinline=True)
def gelu(x, tanh):
    """x Phi(x) of a vector of float32, Phi exact or by tanh."""
    if tanh:
        c = simd.maximum(-20.0, x)  # NaN stays; 0 further down, and no -inf / inf
        return c / (simd.exp(-c * simd.fma(c * c, SLOPE * CUBIC, SLOPE)) + 1.0)
    y = simd.minimum(15.0, simd.absolute(x))  # NaN stays
    return simd.fma(-y, _tail(y), simd.maximum(0.0, x))


def gelu_backward(dout: Any, x: Any, approximate: str) -> Any:
    dx = np.empty(x.shape, x.dtype)
    backward = _backward if x.dtype == np.float32 else float64.backward
    backward(contiguous(dout).reshape(-1), contiguous(x).reshape(-1), approximate == "tanh", dx.reshape(-1))
    return dx


@njit(parallel=True)
def _backward(dout, x, tanh, dx):
    if x.size <= SMALL:
        _backward_range(dout, x, tanh, dx, 0, x.size)
    else:
        for b in prange(count(x.size)):
            _backward_range(dout, x, tanh, dx, b * BLOCK, end(b, x.size))


@njit
def _backward_range(dout, x, tanh, dx, start, stop):
    n = simd.lanes(x)
    rest = (stop - start) % n
    for i in range(start, stop - rest, n):
        simd.store(dx, i, simd.load(dout, i) * gelu_slope(simd.load(x, i), tanh))
    if rest:
        i = stop - rest
        d = simd.load_tail(dout, i, rest) * gelu_slope(simd.load_tail(x, i, rest), tanh)
        simd.store_tail(dx, i, d, rest)


@njit(error_model="numpy", forceinline=True)
def gelu_slope(x, tanh):
    """d(x Phi(x)) / dx of a vector of float32."""
    if tanh:  # Phi = sigmoid(u), so Phi' = Phi (1 - Phi) u'
        c = simd.maximum(-20.0, simd.minimum(20.0, x))
        square = c * c
        phi = 1.0 / (simd.exp(-c * simd.fma(square, SLOPE * CUBIC, SLOPE)) + 1.0)
        slope = phi * (1.0 - phi) * simd.fma(square, 3 * SLOPE * CUBIC, SLOPE)
        return simd.fma(c, slope, phi)
    y = simd.minimum(15.0, simd.absolute(x))  # NaN stays
    bell = _exp2(y * y * -HALF_LOG2_E)
    d = simd.fma(y * -DENSITY_AT_0, bell, _tail(y))
    return simd.select(x < 0.0, d, 1.0 - d)


@njit(error_model="numpy", forceinline=True)
def _tail(y):
    """Phi(-y) for 0 <= y <= 15."""
    q = simd.fma(simd.fma(simd.fma(simd.fma(y, Q[11], Q[10]), y, Q[9]), y, Q[8]), y, Q[7])
    q = simd.fma(simd.fma(simd.fma(simd.fma(q, y, Q[6]), y, Q[5]), y, Q[4]), y, Q[3])
    return _exp2(simd.fma(simd.fma(simd.fma(q, y, Q[2]), y, Q[1]), y, Q[0]))


@njit(error_model="numpy", forceinline=True)
def _exp2(q):
    """2^q for -252 < q < 252."""
    n = simd.round_even(q)
    f = q - n
    p = simd.fma(simd.fma(simd.fma(simd.fma(f, E[5], E[4]), f, E[3]), f, E[2]), f, E[1])
    return scale(simd.fma(p, f, E[0]), n)
