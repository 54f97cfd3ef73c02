"""The peak of this machine's float32 arithmetic, measured: what every share of a peak is a share of.

Fused multiply-adds, x = 0.5 x + 0.5, counted as two FLOPs each; twelve independent sums keep both units of a core busy.
Best of several repeats: a limit is what the machine can do, and everything that disturbs makes it look lower.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
import numpy as np

from . import simd
from .numba_setup import njit, prange


@njit
def fmas(n, start):
    """12 sums, n rounds of x = 0.5 x + 0.5. Starts come from memory and differ: equal sums would be computed once."""
    v = simd.lanes(start)
    half = simd.splat(0.5, start)
    a, b, c = simd.load(start, 0), simd.load(start, v), simd.load(start, 2 * v)
    d, e, f = simd.load(start, 3 * v), simd.load(start, 4 * v), simd.load(start, 5 * v)
    g, h, i = simd.load(start, 6 * v), simd.load(start, 7 * v), simd.load(start, 8 * v)
    j, k, m = simd.load(start, 9 * v), simd.load(start, 10 * v), simd.load(start, 11 * v)
    for _ in range(n):
        a, b, c = simd.fma(a, half, half), simd.fma(b, half, half), simd.fma(c, half, half)
        d, e, f = simd.fma(d, half, half), simd.fma(e, half, half), simd.fma(f, half, half)
        g, h, i = simd.fma(g, half, half), simd.fma(h, half, half), simd.fma(i, half, half)
        j, k, m = simd.fma(j, half, half), simd.fma(k, half, half), simd.fma(m, half, half)
    return simd.hsum(a + b + c + d + e + f + g + h + i + j + k + m)


@njit(parallel=True)
def fmas_in_parallel(n, start, sums):
    for t in prange(sums.size):
        sums[t] = fmas(n, start)


def best_of(run: Callable[[], object], repeats: int, seconds: float = 0.03) -> float:
    """The shortest of at least `repeats` calls, and of as many as take so long: others' load comes in bursts."""
    run()
    best, end = np.inf, time.perf_counter() + seconds
    while repeats > 0 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        repeats -= 1
    return best


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """A block on so many of Numba's threads: with one, nothing waits for a second."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def peak(threads: int, repeats: int = 5, seconds: float = 0.2) -> float:
    """FLOP/s of `threads` of Numba's threads together, in about `seconds`. ValueError for more threads than there are.

    The first call compiles the loop, which is kept on disk as all kernels are.
    """
    n, sums = 200_000, np.zeros(threads, np.float32)
    start = np.arange(12 * simd.LANES32, dtype=np.float32)
    with on_threads(threads):
        took = best_of(lambda: fmas_in_parallel(n, start, sums), repeats, seconds)
    return threads * n * 12 * simd.LANES32 * 2 / took
