"""Rung 6: all cores.

Changed: the rows are cut into as many parts as there are threads; each packs B for itself, into its own L2.
Why that is faster: two cores multiply twice as much. Each number of C is summed by one thread, in the same order as
before: the result has the same bits for any number of threads.
What is left: rows and columns at the edges, which go through narrow tiles and rung 2's loop; and other strides.

Reached: 90 % of two cores' limit.    Run: python -m bench ladder matmul
"""

from __future__ import annotations

import numba
import numpy as np

from ...numba_setup import njit, prange
from ..sizes import aligned
from .rung3_registers import COLUMNS, ROWS
from .rung4_blocks import BLOCK
from .rung5_packing import add_product_packed


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (M, K) @ b (K, N) -> (M, N), float32."""
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    threads = numba.get_num_threads()
    _matmul(a, b, out, aligned(threads * BLOCK * BLOCK, a.dtype).reshape(threads, -1, BLOCK, COLUMNS))
    return out


@njit(parallel=True)
def _matmul(a, b, out, packed):
    threads = packed.shape[0]
    part = ((a.shape[0] + ROWS - 1) // ROWS + threads - 1) // threads * ROWS
    for t in prange(threads):
        rows = slice(t * part, (t + 1) * part)
        add_product_packed(a[rows], b, out[rows], packed[t])
