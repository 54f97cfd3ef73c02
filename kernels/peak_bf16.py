"""The peak of bfloat16 products, for CPUs that have them: the register tile itself on operands that stay in L1."""

from __future__ import annotations

import numpy as np

from . import simd
from .numba_setup import njit, prange
from .peak import best_of, on_threads

_tile = simd.make_tile_bf16(8, 3)
_K = 128  # pairs: B's block is 128 x 48 words, 24 KB


@njit
def _tiles(n):
    a, b = np.zeros(8 * _K, np.int32), np.zeros(48 * _K, np.int32)
    c, d = np.zeros(8 * 48, np.float32), np.zeros(48, np.float32)
    pa, pb, pc, pd = simd.pointer(a), simd.pointer(b), simd.pointer(c), simd.pointer(d)
    for _ in range(n):
        _tile(pa, _K, 1, pb, 48, pc, 48, pd, 0, _K)
    for array in (a, b):
        simd.keep_alive(array)
    simd.keep_alive(c)
    simd.keep_alive(d)
    return c[0]


@njit(parallel=True)
def _tiles_in_parallel(n, sums):
    for t in prange(sums.size):
        sums[t] = _tiles(n)


def peak_bf16(threads: int, repeats: int = 5, seconds: float = 0.2) -> float:
    """FLOP/s of `threads` of Numba's threads together, in about `seconds`; see `peak.peak`."""
    n, sums = 4000, np.zeros(threads, np.float32)
    with on_threads(threads):
        took = best_of(lambda: _tiles_in_parallel(n, sums), repeats, seconds)
    return threads * n * 8 * 48 * 2 * _K * 2 / took
