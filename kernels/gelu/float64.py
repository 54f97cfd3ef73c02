"""GELU of float64 arrays in Numba: the formulas of reference.py, with erfc from erf.py, an element at a time.

All three ranges of erfc are computed and one is chosen: with no branch in it the loop is vectorised, and is then faster
than a call of math.erfc for each element.
"""

from __future__ import annotations

import math

import numpy as np

from ..blocks import BLOCK, count
from ..numba_math import exp
from ..numba_setup import njit, prange
from .erf import R_1, R_2, R_3

SQRT_HALF = math.sqrt(1 / 2)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)
ONE_OVER_SQRT_PI = 1 / math.sqrt(math.pi)


@njit(parallel=True, error_model="numpy", fastmath={"contract"})
def forward(x, tanh, out):
    for b in prange(count(x.size)):
        xb, ob = x[b * BLOCK : (b + 1) * BLOCK], out[b * BLOCK : (b + 1) * BLOCK]
        if tanh:
            for i in range(xb.size):
                ob[i] = (-40.0 if xb[i] < -40.0 else xb[i]) * _phi_tanh(_clip(xb[i]))
        else:
            for i in range(xb.size):
                c = _clip(xb[i])
                ob[i] = (-40.0 if xb[i] < -40.0 else xb[i]) * _phi(c, exp(-0.5 * c * c))


@njit(parallel=True, error_model="numpy", fastmath={"contract"})
def backward(dout, x, tanh, dx):
    for b in prange(count(x.size)):
        block = slice(b * BLOCK, (b + 1) * BLOCK)
        db, xb, dxb = dout[block], x[block], dx[block]
        if tanh:
            for i in range(xb.size):
                c = _clip(xb[i])
                phi = _phi_tanh(c)  # (1 + t) / 2, so that (1 - t^2) / 2 is 2 phi (1 - phi)
                slope = 2.0 * phi * (1.0 - phi) * SQRT_2_OVER_PI * (1.0 + 3 * 0.044715 * c * c)
                dxb[i] = db[i] * (phi + c * slope)
        else:
            for i in range(xb.size):
                c = _clip(xb[i])
                bell = exp(-0.5 * c * c)
                dxb[i] = db[i] * (_phi(c, bell) + c * DENSITY_AT_0 * bell)


@njit(forceinline=True, error_model="numpy")
def _clip(x):
    """x within +-40, float64; NaN stays NaN."""
    wide = np.float64(x)
    wide = -40.0 if wide < -40.0 else wide
    return 40.0 if wide > 40.0 else wide


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def _phi_tanh(c):
    """(1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))"""
    return 1.0 / (1.0 + exp(-2.0 * SQRT_2_OVER_PI * (c + 0.044715 * c * c * c)))


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def _phi(c, bell):
    """erfc(-c / sqrt(2)) / 2, given bell = exp(-c^2 / 2): erf.py for one number."""
    y = SQRT_HALF * abs(c)
    small = 0.46875 if y > 0.46875 else y
    near = 0.5 * small * _five(small * small, R_1[0]) / _five(small * small, R_1[1])  # erf(y) / 2
    middle = 4.0 if y > 4.0 else y
    middle = _nine(middle, R_2[0]) / _nine(middle, R_2[1])
    large = 4.0 if y < 4.0 else y
    t = 1.0 / (large * large)
    ratio = (_five(t, R_3[0]) * t + R_3[0][5]) / (_five(t, R_3[1]) * t + R_3[1][5])
    large = (ONE_OVER_SQRT_PI - t * ratio) / large
    far = 0.5 * bell * (large if y > 4.0 else middle)  # erfc(y) / 2
    lower = 0.5 - near if y <= 0.46875 else far  # Phi(-|c|)
    return lower if c < 0.0 else 1.0 - lower


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def _five(t, c):  # written out: a loop over a tuple is not vectorised
    return (((c[0] * t + c[1]) * t + c[2]) * t + c[3]) * t + c[4]


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def _nine(t, c):
    return (((_five(t, c[:5]) * t + c[5]) * t + c[6]) * t + c[7]) * t + c[8]
