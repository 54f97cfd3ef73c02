"""Rung 2: the same sums in another order: k outside of j.

Changed: for each k, a whole row of b times one number is added to a row of out.
Why that is faster: rows are read as they lie in memory, every number of a cache line is used; and the inner loop is
over numbers that have nothing to do with each other, so the compiler makes vectors of them.
What is left: each multiplication loads a number of b and one of out and stores one. The multipliers wait for memory.

Reached: 30 % of one core's limit.    Run: python -m bench ladder matmul
"""

from __future__ import annotations

import numpy as np

from ...numba_setup import njit


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (M, K) @ b (K, N) -> (M, N), float32."""
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    add_product(a, b, out)
    return out


@njit
def add_product(a, b, out):
    """out += a @ b; the next rungs use it for what is left at the edges."""
    for i in range(a.shape[0]):
        row = out[i]
        for k in range(a.shape[1]):
            factor, b_row = a[i, k], b[k]
            for j in range(row.size):
                row[j] += factor * b_row[j]
