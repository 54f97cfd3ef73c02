"""What kernels do with a row of n numbers at pointer p (an array will do): sums, its largest number, exponentials.

For one thread; float32 and float64. Sums run in several vectors at once, because an addition takes three or four cycles
and one or two can start in each. Every BLOCK vectors the lanes are added up in float64: the sum of a long row is as
accurate as that of a short one.

All are inlined where they are called: in a row of 64 numbers a call costs as much as the work, and a call that hands
arrays on costs 100 ns, because Numba counts the references to each.
"""

from __future__ import annotations

import numpy as np

from . import simd
from .numba_setup import njit

BLOCK = 256  # vectors


@njit(forceinline=True)
def load_up_to(p, i, n):
    """The vector p[i : i + lanes]; where fewer than n = lanes numbers are left, zeros in the other lanes."""
    return simd.load(p, i) if n >= simd.lanes(p) else simd.load_tail(p, i, n)


@njit(forceinline=True)
def store_up_to(p, i, v, n):
    if n >= simd.lanes(p):
        simd.store(p, i, v)
    else:
        simd.store_tail(p, i, v, n)


@njit(forceinline=True)
def set_number(p, i, value):
    """p[i] = value, through a pointer."""
    simd.store_tail(p, i, simd.splat(value, p), 1)


@njit(forceinline=True, error_model="numpy")
def sum_row(p, n):
    """sum p_i, float64."""
    L, total = simd.lanes(p), 0.0
    for start in range(0, n, BLOCK * L):
        stop = min(start + BLOCK * L, n)
        whole = stop - (stop - start) % (4 * L)
        s0, s1, s2, s3 = simd.zeros(p), simd.zeros(p), simd.zeros(p), simd.zeros(p)
        for i in range(start, whole, 4 * L):
            s0 += simd.load(p, i)
            s1 += simd.load(p, i + L)
            s2 += simd.load(p, i + 2 * L)
            s3 += simd.load(p, i + 3 * L)
        for i in range(whole, stop, L):
            s0 += load_up_to(p, i, stop - i)
        total += simd.hsum_wide((s0 + s1) + (s2 + s3))
    return total


@njit(forceinline=True, error_model="numpy")
def add_rows(p, q, out, n):
    """out_i = p_i + q_i, and the sum of them, float64."""
    L, total = simd.lanes(p), 0.0
    for start in range(0, n, BLOCK * L):
        stop = min(start + BLOCK * L, n)
        whole = stop - (stop - start) % (2 * L)
        s0, s1 = simd.zeros(p), simd.zeros(p)
        for i in range(start, whole, 2 * L):
            v0, v1 = simd.load(p, i) + simd.load(q, i), simd.load(p, i + L) + simd.load(q, i + L)
            simd.store(out, i, v0)
            simd.store(out, i + L, v1)
            s0 += v0
            s1 += v1
        for i in range(whole, stop, L):
            v = load_up_to(p, i, stop - i) + load_up_to(q, i, stop - i)
            store_up_to(out, i, v, stop - i)
            s0 += v
        total += simd.hsum_wide(s0 + s1)
    return total


@njit(forceinline=True, error_model="numpy")
def dot_rows(p, q, n):
    """sum p_i q_i, float64."""
    L, total = simd.lanes(p), 0.0
    for start in range(0, n, BLOCK * L):
        stop = min(start + BLOCK * L, n)
        whole = stop - (stop - start) % (4 * L)
        s0, s1, s2, s3 = simd.zeros(p), simd.zeros(p), simd.zeros(p), simd.zeros(p)
        for i in range(start, whole, 4 * L):
            s0 = simd.fma(simd.load(p, i), simd.load(q, i), s0)
            s1 = simd.fma(simd.load(p, i + L), simd.load(q, i + L), s1)
            s2 = simd.fma(simd.load(p, i + 2 * L), simd.load(q, i + 2 * L), s2)
            s3 = simd.fma(simd.load(p, i + 3 * L), simd.load(q, i + 3 * L), s3)
        for i in range(whole, stop, L):
            s0 = simd.fma(load_up_to(p, i, stop - i), load_up_to(q, i, stop - i), s0)
        total += simd.hsum_wide((s0 + s1) + (s2 + s3))
    return total


@njit(forceinline=True, error_model="numpy")
def largest(p, n):
    """max p_i, NaN passed over; -inf for n = 0."""
    L = simd.lanes(p)
    low = simd.splat(-np.inf, p)
    m0, m1, m2, m3 = low, low, low, low
    whole = n - n % (4 * L)
    for i in range(0, whole, 4 * L):
        m0 = simd.maximum(simd.load(p, i), m0)
        m1 = simd.maximum(simd.load(p, i + L), m1)
        m2 = simd.maximum(simd.load(p, i + 2 * L), m2)
        m3 = simd.maximum(simd.load(p, i + 3 * L), m3)
    for i in range(whole, n, L):
        m0 = simd.maximum(simd.select(simd.first(n - i, p), load_up_to(p, i, n - i), low), m0)
    return simd.hmax(simd.maximum(simd.maximum(m0, m1), simd.maximum(m2, m3)))


@njit(forceinline=True, error_model="numpy")
def exp_sum(p, n, shift):
    """sum exp(p_i - shift), float64."""
    L, total = simd.lanes(p), 0.0
    for start in range(0, n, BLOCK * L):
        stop = min(start + BLOCK * L, n)
        whole = stop - (stop - start) % (2 * L)
        s0, s1 = simd.zeros(p), simd.zeros(p)
        for i in range(start, whole, 2 * L):
            s0 += simd.exp(simd.load(p, i) - shift)
            s1 += simd.exp(simd.load(p, i + L) - shift)
        for i in range(whole, stop, L):
            e = simd.exp(load_up_to(p, i, stop - i) - shift)
            s0 += simd.select(simd.first(stop - i, p), e, 0.0)
        total += simd.hsum_wide(s0 + s1)
    return total


@njit(forceinline=True, error_model="numpy")
def store_exp(p, q, n, shift):
    """q_i = exp(p_i - shift), and the sum of them, float64. q may be p."""
    L, total = simd.lanes(p), 0.0
    for start in range(0, n, BLOCK * L):
        stop = min(start + BLOCK * L, n)
        whole = stop - (stop - start) % (2 * L)
        s0, s1 = simd.zeros(p), simd.zeros(p)
        for i in range(start, whole, 2 * L):
            e0, e1 = simd.exp(simd.load(p, i) - shift), simd.exp(simd.load(p, i + L) - shift)
            simd.store(q, i, e0)
            simd.store(q, i + L, e1)
            s0 += e0
            s1 += e1
        for i in range(whole, stop, L):
            e = simd.exp(load_up_to(p, i, stop - i) - shift)
            store_up_to(q, i, e, stop - i)
            s0 += simd.select(simd.first(stop - i, p), e, 0.0)
        total += simd.hsum_wide(s0 + s1)
    return total


@njit(forceinline=True, error_model="numpy")
def scale_and_shift(p, n, factor, shift):
    """p_i = factor * p_i + shift"""
    L, f, s = simd.lanes(p), simd.splat(factor, p), simd.splat(shift, p)
    whole = n - n % (4 * L)
    for i in range(0, whole, 4 * L):
        simd.store(p, i, simd.fma(f, simd.load(p, i), s))
        simd.store(p, i + L, simd.fma(f, simd.load(p, i + L), s))
        simd.store(p, i + 2 * L, simd.fma(f, simd.load(p, i + 2 * L), s))
        simd.store(p, i + 3 * L, simd.fma(f, simd.load(p, i + 3 * L), s))
    for i in range(whole, n, L):
        store_up_to(p, i, simd.fma(f, load_up_to(p, i, n - i), s), n - i)


@njit(forceinline=True, error_model="numpy")
def weighted_distance(p, w, weighted, n, top):
    """sum w_i * (top - p_i), float64; unless `weighted`, the w are ones and not read."""
    L, total, one = simd.lanes(p), 0.0, simd.splat(1.0, p)
    for start in range(0, n, BLOCK * L):
        stop, s = min(start + BLOCK * L, n), simd.zeros(p)
        for i in range(start, stop, L):
            term = (load_up_to(w, i, stop - i) if weighted else one) * (top - load_up_to(p, i, stop - i))
            s += simd.select(simd.first(stop - i, p), term, 0.0)
        total += simd.hsum_wide(s)
    return total


# ------------------------------------------------------------------------------------------ groups of rows
# A few rows are taken through the steps together. While one waits for the sum of its lanes, the next is being added up;
# and sums over rows, column by column, stay in registers.

ROWS = 8


@njit(forceinline=True)
def small_group(n, size):
    """Rows of n numbers for a group, in an array of `size` numbers: what the L1 cache holds of an array that the L2
    cache holds, else some 1000 numbers. With more, traffic with memory comes in bursts (-30 %)."""
    return max(1, min(ROWS, (4096 if size <= 1 << 18 else 1000) // n))


@njit(forceinline=True)
def large_group(n):
    """Rows for a group that shares the work of sums over rows: some 2000 numbers of each array."""
    return max(1, min(ROWS, 2048 // n))


def row_blocks(rows: int, n: int) -> tuple[int, int]:
    """(rows of a block, number of blocks), for threads to share: at most 64 blocks, of 2^15 numbers at least."""
    block = max(-(-rows // 64), -(-(1 << 15) // n))
    block = -(-block // ROWS) * ROWS
    return block, -(-rows // block)


@njit
def add_blocks(sums, out):
    """out_j += sums[0, j] + sums[1, j] + ..., added in this order and rounded once."""
    total = np.zeros(out.size)
    for b in range(sums.shape[0]):
        total += sums[b]
    for j in range(out.size):
        out[j] += total[j]


@njit
def add_into(total, part):
    """total += part, total float64; part = 0. Both of one shape."""
    t, p = total.reshape(-1), part.reshape(-1)
    for j in range(t.size):
        t[j] += p[j]
        p[j] = 0.0
