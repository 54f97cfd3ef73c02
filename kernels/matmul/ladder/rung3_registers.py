"""Rung 3: a block of C, 8 rows x 48 columns, stays in registers while k runs.

Changed: the inner loops are the register tile of ../../vector/tile.py.
Why that is faster: the 24 vectors of the block of C are neither loaded nor stored while k runs. Each step loads 3
vectors of B and 8 numbers of A and makes 24 vector multiplications of them: 2 for each load, where rung 2 had one for
two loads and a store. 24 sums that do not wait for each other keep both multipliers busy.
What is left: the rows of a 48 wide strip of B lie far apart, one cache line here, one there; and all of B is read again
for every 8 rows of A, from wherever it is.

Reached: 70 to 89 % of one core's limit, by what the neighbours of a shared machine leave of the L3 cache.
Run: python -m bench ladder matmul
"""

from __future__ import annotations

import numpy as np

from ... import simd
from ...numba_setup import njit
from .rung2_order import add_product

ROWS, COLUMNS = simd.TILE_ROWS, simd.TILE_VECTORS * simd.LANES32
tile, strip = simd.make_tile(ROWS, simd.TILE_VECTORS), simd.make_tile(ROWS, 1)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (M, K) @ b (K, N) -> (M, N), float32."""
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    _matmul(a, b, out)
    return out


@njit
def _matmul(a, b, out):
    (M, K), N = a.shape, b.shape[1]
    whole_rows, whole_columns = M // ROWS * ROWS, N // COLUMNS * COLUMNS
    for i in range(0, whole_rows, ROWS):
        for j in range(0, whole_columns, COLUMNS):
            c = simd.pointer(out) + (i * N + j)
            tile(simd.pointer(a) + i * K, K, 1, simd.pointer(b) + j, N, c, N, c, N, K)
    edges(a, b, out, whole_rows, whole_columns)


@njit
def edges(a, b, out, rows, columns):
    """What the tiles, `rows` x `columns` numbers, leave: strips one vector wide, then rung 2's loop."""
    K, N = b.shape
    vectors = N // simd.LANES32 * simd.LANES32
    for j in range(columns, vectors, simd.LANES32):
        for i in range(0, rows, ROWS):
            c = simd.pointer(out) + (i * N + j)
            strip(simd.pointer(a) + i * K, K, 1, simd.pointer(b) + j, N, c, N, c, N, K)
    add_product(a[:rows], b[:, vectors:], out[:rows, vectors:])
    add_product(a[rows:], b, out[rows:])
