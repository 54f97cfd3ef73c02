"""LayerNorm in Numba, backward. Formulas in reference.py.

A group of rows that the cache holds is done at a time: first each row's two means, then the group's columns from left
to right, so that the group's shares of dweight and dbias add up in registers. From group to group they add up in
float64. The rows are cut into blocks that depend on the shape alone, for threads to share, and the blocks' sums are
added in order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import simd
from ..checks import contiguous
from ..numba_setup import njit, prange
from ..rows import BLOCK, add_blocks, add_into, large_group, load_up_to, row_blocks, store_up_to

ALONE = 1 << 14  # numbers that one thread is done with before two have started


def layernorm_backward(
    dout: Any,
    x: Any,
    weight: Any | None,
    mean: Any,
    rstd: Any,
    dresidual: Any | None,
    dweight: Any | None,
    dbias: Any | None,
) -> tuple[Any, Any, Any]:
    N, dx = x.shape[-1], np.empty(x.shape, x.dtype)
    weight = np.ones(N, x.dtype) if weight is None else contiguous(weight)
    dweight = np.zeros(N, x.dtype) if dweight is None else dweight
    dbias = np.zeros(N, x.dtype) if dbias is None else dbias
    dout, fused = contiguous(dout), dresidual is not None
    dresidual = dout if dresidual is None else contiguous(dresidual)
    rows = dout.reshape(-1), contiguous(x).reshape(-1), dresidual.reshape(-1), dx.reshape(-1)
    block, blocks = row_blocks(mean.size, N)
    sums = np.empty((blocks, 2, N))  # dweight and dbias of each block
    into = contiguous(dweight), contiguous(dbias)
    run = _blocks if x.size <= ALONE else _blocks_in_parallel
    run(*rows, fused, weight, contiguous(mean).reshape(-1), contiguous(rstd).reshape(-1), block, sums, *into)
    if into[0] is not dweight:
        dweight[...] = into[0]
    if into[1] is not dbias:
        dbias[...] = into[1]
    return dx, dweight, dbias


@njit(error_model="numpy")
def _blocks(dout, x, dresidual, dx, fused, weight, mean, rstd, block, sums, dweight, dbias):
    for b in range(sums.shape[0]):
        _block(dout, x, dresidual, dx, fused, weight, mean, rstd, block, sums, b)
    add_blocks(sums[:, 0], dweight)
    add_blocks(sums[:, 1], dbias)


@njit(parallel=True, error_model="numpy")
def _blocks_in_parallel(dout, x, dresidual, dx, fused, weight, mean, rstd, block, sums, dweight, dbias):
    for b in prange(sums.shape[0]):
        _block(dout, x, dresidual, dx, fused, weight, mean, rstd, block, sums, b)
    add_blocks(sums[:, 0], dweight)
    add_blocks(sums[:, 1], dbias)


@njit(error_model="numpy")
def _block(dout, x, dresidual, dx, fused, weight, mean, rstd, block, sums, b):
    n, w, stop = weight.size, simd.pointer(weight), min((b + 1) * block, mean.size)
    group, part = large_group(n), np.zeros((2, n), x.dtype)
    numbers = np.empty((group, 4), x.dtype)  # mean, rstd, rstd * mean_g, rstd * mean_gx of each row
    sums[b] = 0.0
    for first in range(b * block, stop, group):
        rows, at = min(group, stop - first), first * n
        d, p, q = simd.pointer(dout) + at, simd.pointer(x) + at, simd.pointer(dx) + at
        for r in range(rows):
            m, s = numbers[r, 0], numbers[r, 1] = mean[first + r], rstd[first + r]
            mean_g, mean_gx = _means(d + r * n, p + r * n, w, n, m, s, q + r * n)
            numbers[r, 2], numbers[r, 3] = s * mean_g, s * mean_gx
        _columns(d, p, w, simd.pointer(dresidual) + at, fused, q, n, rows, numbers, part)
        if (first // group) % 4 == 3 or first + rows == stop:
            add_into(sums[b], part)


@njit(forceinline=True, error_model="numpy")
def _means(dout, x, weight, n, mean, rstd, dx):
    """The means of g = dout * weight and of g * xhat over a row, float64.

    dx is written next, in another order: its lines are asked for here (10 % of the time out of cache).
    """
    L, m, r = simd.lanes(x), simd.splat(mean, x), simd.splat(rstd, x)
    sum_g, sum_gx = 0.0, 0.0
    for start in range(0, n, BLOCK * L):
        stop = min(start + BLOCK * L, n)
        whole = stop - (stop - start) % (2 * L)
        s0, s1, t0, t1 = simd.zeros(x), simd.zeros(x), simd.zeros(x), simd.zeros(x)
        for j in range(start, whole, 2 * L):
            g0, g1 = simd.load(dout, j) * simd.load(weight, j), simd.load(dout, j + L) * simd.load(weight, j + L)
            simd.prefetch_write(dx, j)
            simd.prefetch_write(dx, j + L)
            s0 += g0
            s1 += g1
            t0 = simd.fma(g0, (simd.load(x, j) - m) * r, t0)
            t1 = simd.fma(g1, (simd.load(x, j + L) - m) * r, t1)
        for j in range(whole, stop, L):
            g0 = load_up_to(dout, j, stop - j) * load_up_to(weight, j, stop - j)
            s0 += g0
            t0 = simd.fma(g0, (load_up_to(x, j, stop - j) - m) * r, t0)
        sum_g += simd.hsum_wide(s0 + s1)
        sum_gx += simd.hsum_wide(t0 + t1)
    return sum_g / n, sum_gx / n


@njit(forceinline=True, error_model="numpy")
def _columns(dout, x, weight, dresidual, fused, dx, n, rows, numbers, part):
    """dx of a group of rows; part[0] and part[1] get its share of dweight and dbias added."""
    L = simd.lanes(x)
    whole = n - n % (2 * L)
    for j in range(0, whole, 2 * L):
        w0, w1 = simd.load(weight, j), simd.load(weight, j + L)
        dw0, dw1 = simd.load(part, j), simd.load(part, j + L)
        db0, db1 = simd.load(part, n + j), simd.load(part, n + j + L)
        for r in range(rows):
            at = r * n + j
            m, s, a, c = numbers[r, 0], numbers[r, 1], numbers[r, 2], numbers[r, 3]
            d0, xhat0 = simd.load(dout, at), (simd.load(x, at) - m) * s
            d1, xhat1 = simd.load(dout, at + L), (simd.load(x, at + L) - m) * s
            v0, v1 = _gradient(d0, w0, xhat0, s, a, c), _gradient(d1, w1, xhat1, s, a, c)
            if fused:
                v0 += simd.load(dresidual, at)
                v1 += simd.load(dresidual, at + L)
            simd.store(dx, at, v0)
            simd.store(dx, at + L, v1)
            dw0, dw1 = simd.fma(d0, xhat0, dw0), simd.fma(d1, xhat1, dw1)
            db0 += d0
            db1 += d1
        simd.store(part, j, dw0)
        simd.store(part, j + L, dw1)
        simd.store(part, n + j, db0)
        simd.store(part, n + j + L, db1)
    for j in range(whole, n, L):
        k = n - j
        w0, dw0, db0 = load_up_to(weight, j, k), load_up_to(part, j, k), load_up_to(part, n + j, k)
        for r in range(rows):
            at = r * n + j
            m, s, a, c = numbers[r, 0], numbers[r, 1], numbers[r, 2], numbers[r, 3]
            d0, xhat0 = load_up_to(dout, at, k), (load_up_to(x, at, k) - m) * s
            v0 = _gradient(d0, w0, xhat0, s, a, c)
            if fused:
                v0 += load_up_to(dresidual, at, k)
            store_up_to(dx, at, v0, k)
            dw0 = simd.fma(d0, xhat0, dw0)
            db0 += d0
        store_up_to(part, j, dw0, k)
        store_up_to(part, n + j, db0, k)


@njit(forceinline=True, error_model="numpy")
def _gradient(dout, weight, xhat, rstd, a, c):
    """rstd * (dout * weight - mean_g - xhat * mean_gx), with a = rstd * mean_g and c = rstd * mean_gx"""
    return simd.fma(dout * weight, rstd, simd.splat(-a, dout)) - xhat * c
