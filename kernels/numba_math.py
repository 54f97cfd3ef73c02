"""exp for the loops of Numba kernels, in arithmetic alone: math.exp is a call that keeps a loop from being vectorised.

    x = n log(2) + r, with n an integer and |r| <= log(2) / 2          exp(x) = 2^n * exp(r)

exp(r) is its Taylor series to r^13, which is below 1e-17 of it; log(2) is split in two so that n log(2) loses nothing.
"""

from __future__ import annotations

import math

import numpy as np

from .numba_setup import njit

LOG2_E = 1 / math.log(2)
LOG_2_HIGH = 6.93147180369123816e-1  # 32 bits of log(2): times n it is exact
LOG_2_LOW = 1.90821492927058770e-10  # the rest
ROUND = 1.5 * 2.0**52  # adding it leaves no bits for a fraction: n stands in the last bits of the sum
C = tuple(1 / math.factorial(k) for k in range(14))


@njit(cache=True, forceinline=True, error_model="numpy", fastmath={"contract"})
def exp(x):
    """exp(x) in float64, within 1 ulp; 0 below -708 (there are no denormal results), inf above 709."""
    wide = np.float64(x)
    shifted = wide * LOG2_E + ROUND
    n = shifted - ROUND
    r = wide - n * LOG_2_HIGH - n * LOG_2_LOW
    p = C[13] * r + C[12]
    p = p * r + C[11]
    p = p * r + C[10]
    p = p * r + C[9]
    p = p * r + C[8]
    p = p * r + C[7]
    p = p * r + C[6]
    p = p * r + C[5]
    p = p * r + C[4]
    p = p * r + C[3]
    p = p * r + C[2]
    p = p * r + 1.0
    p = p * r + 1.0
    bits = np.int64(np.float64(shifted).view(np.int64) + 1023) << 52
    power = np.int64(bits).view(np.float64)  # 2^n
    value = p * power
    value = 0.0 if wide < -708.0 else value
    return np.inf if wide > 709.0 else value
