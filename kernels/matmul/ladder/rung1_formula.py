"""Rung 1: the formula, compiled.

    out[i, j] = sum over k of a[i, k] * b[k, j]

Why it is slow: b[k, j] walks down a column. Each step is another cache line, of which one number in 16 is used; and the
sum is one chain of additions, each of which waits 4 cycles for the one before it. The compiler may not change the order
of a sum of floats, so it uses no vectors either.

Reached: 0.5 % of one core's limit.    Run: python -m bench ladder matmul
"""

from __future__ import annotations

import numpy as np

from ...numba_setup import njit


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (M, K) @ b (K, N) -> (M, N), float32."""
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    _matmul(a, b, out)
    return out


@njit
def _matmul(a, b, out):
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = out.dtype.type(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            out[i, j] = total
