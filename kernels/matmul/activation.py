"""Activations on vectors, and their derivatives: what `linear` applies to a tile while it is in L1.

    relu(x) = max(x, 0)         relu2(x) = relu(x)^2
    gelu(x) = x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2        silu(x) = x sigmoid(x)
    gelu_tanh(x) = x (1 + tanh u) / 2,  u = sqrt(2 / pi) (x + 0.044715 x^3)
"""

from __future__ import annotations

import math

from .. import simd
from ..numba_setup import njit

NONE, RELU, GELU, GELU_TANH, SILU, RELU2 = range(6)
CODES = {None: NONE, "relu": RELU, "gelu": GELU, "gelu_tanh": GELU_TANH, "silu": SILU, "relu2": RELU2}

SQRT_HALF, INV_SQRT_2PI = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)
TANH_SCALE, TANH_CUBE = math.sqrt(2 / math.pi), 0.044715
FAR, SILU_FAR = 40.0, 750.0  # beyond them the activations are 0 and x: no power overflows, and no -inf meets a 0


@njit
def relu(x):
    return simd.select(x <= 0.0, 0.0, x)  # NaN stays NaN


@njit
def gelu(x):
    x = simd.select(x < -FAR, -FAR, x)
    half = x * 0.5
    return simd.fma(half, simd.erf(x * SQRT_HALF), half)


@njit
def gelu_tanh(x):
    near = _near(x)
    half = simd.select(x < -FAR, -FAR, x) * 0.5
    return simd.fma(half, simd.tanh(_u(near)), half)


@njit
def silu(x):
    x = simd.select(x < -SILU_FAR, -SILU_FAR, x)
    return x * simd.sigmoid(x)


@njit
def _near(x):
    return simd.select(x < -FAR, -FAR, simd.select(x > FAR, FAR, x))


@njit
def _u(x):
    return x * simd.fma(x * x, TANH_SCALE * TANH_CUBE, TANH_SCALE)


# ------------------------------------------------------------------------------------- derivatives


@njit
def gelu_slope(x):
    """Phi(x) + x Phi'(x)"""
    x = _near(x)
    phi = simd.fma(simd.erf(x * SQRT_HALF), 0.5, 0.5)
    return simd.fma(x * INV_SQRT_2PI, simd.exp(x * x * -0.5), phi)


@njit
def gelu_tanh_slope(x):
    """(1 + t) / 2 + x (1 - t^2) / 2 u',  t = tanh u"""
    x = _near(x)
    t = simd.tanh(_u(x))
    du = simd.fma(x * x, 3 * TANH_SCALE * TANH_CUBE, TANH_SCALE)
    return simd.fma(x * 0.5 * du, 1.0 - t * t, simd.fma(t, 0.5, 0.5))


@njit
def silu_slope(x):
    """s + x s (1 - s),  s = sigmoid(x)"""
    x = simd.select(x < -SILU_FAR, -SILU_FAR, simd.select(x > SILU_FAR, SILU_FAR, x))
    s = simd.sigmoid(x)
    return simd.fma(x * s, 1.0 - s, s)


# ------------------------------------------------------------------------------------------ a tile


@njit
def activate(code, z, z_row, out, out_row, m, n):
    """out[r, j] = activation(z[r, j]) for m rows of n numbers."""
    lanes = simd.lanes(z)
    for r in range(m):
        for j in range(0, n, lanes):
            x = simd.load_tail(z, r * z_row + j, n - j)
            if code == RELU:
                y = relu(x)
            elif code == RELU2:
                y = relu(x) * relu(x)
            elif code == GELU:
                y = gelu(x)
            elif code == GELU_TANH:
                y = gelu_tanh(x)
            else:
                y = silu(x)
            simd.store_tail(out, r * out_row + j, y, n - j)
