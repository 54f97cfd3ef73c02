"""Rung 4: blocks of B that fit into the L2 cache.

Changed: two loops around rung 3's: k and the columns in blocks of 384.
Why that is faster: a block of B, 384 x 384 numbers, 590 KB, is read from memory once, and then from L2 (1 MB) by all
rows of A. C is now loaded and stored once for each block of k: 384 steps pay for it.
What is left: in L2 the block's rows lie as far apart as in B. With rows of 4096 bytes they all fall into the same few
sets of the caches and push each other out, and each is on a page of its own.

Reached: 78 to 90 % of one core's limit.    Run: python -m bench ladder matmul
"""

from __future__ import annotations

import numpy as np

from ... import simd
from ...numba_setup import njit
from .rung3_registers import COLUMNS, ROWS, edges, tile

BLOCK = 384


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (M, K) @ b (K, N) -> (M, N), float32."""
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    _matmul(a, b, out)
    return out


@njit
def _matmul(a, b, out):
    (M, K), N = a.shape, b.shape[1]
    whole_rows, whole_columns = M // ROWS * ROWS, N // COLUMNS * COLUMNS
    for k in range(0, K, BLOCK):
        for j0 in range(0, whole_columns, BLOCK):
            for i in range(0, whole_rows, ROWS):
                for j in range(j0, min(j0 + BLOCK, whole_columns), COLUMNS):
                    c = simd.pointer(out) + (i * N + j)
                    b_at = simd.pointer(b) + (k * N + j)
                    tile(simd.pointer(a) + (i * K + k), K, 1, b_at, N, c, N, c, N, min(BLOCK, K - k))
    edges(a, b, out, whole_rows, whole_columns)
