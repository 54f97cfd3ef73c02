"""Box and Muller's normal numbers in arithmetic alone, so that LLVM turns the loop into vectors of float64.

    log x     = e log 2 + 2 atanh(s)      x = 2^e m,  sqrt(1/2) <= m < sqrt(2),  s = (m - 1) / (m + 1)
    cos, sin  of the angle less the nearest quarter turn, at most pi / 4, then exchanged and negated by the quarter

The series end where the next term is below 1e-16 of the sum. A turn is 2^32 steps, so quarters are exact.
"""

from __future__ import annotations

import math

import numpy as np

from ..numba_setup import njit

LN_2 = math.log(2)
STEP = 2 * math.pi * 2.0**-32
SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
ATANH = tuple(2.0 / (2 * k + 1) for k in range(11))
SIN = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(9))
COS = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))


@njit(error_model="numpy", fastmath={"contract"})
def box_muller(words, others, first, second, mean, std):
    """first, second = mean + std * sqrt(-2 log u1) * (cos, sin)(2 pi u2); u1 from words (n,) uint32, u2 from others."""
    for i in range(words.size):
        radius = math.sqrt(-2.0 * _log_of_unit(words[i]))
        turn = np.int64(others[i])
        quarter = (turn + (1 << 29)) >> 30  # 0 .. 4
        t = np.int32(turn - (quarter << 30)) * STEP
        cos, sin = _polynomial(t * t, COS), t * _polynomial(t * t, SIN)
        odd, negative = quarter & 1, quarter & 2
        x, y = (sin, cos) if odd else (cos, sin)
        x = -x if (quarter + 1) & 2 else x
        y = -y if negative else y
        first[i] = mean + std * (radius * x)
        second[i] = mean + std * (radius * y)


@njit(error_model="numpy", forceinline=True, fastmath={"contract"})
def _log_of_unit(word):
    """log((word + 1/2) / 2^32)"""
    bits = np.float64(word + 0.5).view(np.int64)
    e = (bits - SQRT_HALF_BITS) >> 52
    m = np.int64(bits - (e << 52)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    return np.int32(e - 32) * LN_2 + s * _polynomial(s * s, ATANH)


@njit(error_model="numpy", forceinline=True, fastmath={"contract"})
def _polynomial(t, c):
    """c[0] + c[1] t + ... + c[8] t^8 (+ c[9] t^9 + c[10] t^10)"""
    p = ((c[8] * t + c[7]) * t + c[6]) * t + c[5]
    if len(c) > 9:
        p = p + ((c[10] * t + c[9]) * (t * t)) * (t * t)
    return ((((p * t + c[4]) * t + c[3]) * t + c[2]) * t + c[1]) * t + c[0]
