"""RMSNorm in Numba: rows in parallel, as in layernorm/cpu.py and cpu_backward.py, with one number less to a row.

Formulas in reference.py. A row whose squares float32 cannot hold is done in float64, number by number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import simd
from ..checks import contiguous
from ..numba_setup import njit, prange
from ..rows import (
    BLOCK,
    add_blocks,
    add_into,
    add_rows,
    dot_rows,
    large_group,
    load_up_to,
    row_blocks,
    set_number,
    small_group,
    store_up_to,
)

ALONE = 1 << 14  # numbers that one thread is done with before two have started


def rmsnorm_forward(x: Any, weight: Any | None, eps: float, residual: Any | None) -> tuple[Any, ...]:
    out, rstd = np.empty(x.shape, x.dtype), np.empty(x.shape[:-1], x.dtype)
    weight = np.ones(x.shape[-1], x.dtype) if weight is None else contiguous(weight)
    x = contiguous(x)
    total, other = (x, x) if residual is None else (np.empty(x.shape, x.dtype), contiguous(residual))
    arrays = x.reshape(-1), other.reshape(-1), total.reshape(-1), out.reshape(-1), rstd.reshape(-1)
    (_rows if x.size <= ALONE else _rows_in_parallel)(*arrays, weight, float(eps), residual is not None)
    return (out, rstd) if residual is None else (out, rstd, total)


@njit(error_model="numpy")
def _rows(x, residual, total, out, rstd, weight, eps, fused):
    group = small_group(weight.size, x.size)
    for first in range(0, rstd.size, group):
        _group(x, residual, total, out, rstd, weight, eps, fused, first, group)


@njit(parallel=True, error_model="numpy")
def _rows_in_parallel(x, residual, total, out, rstd, weight, eps, fused):
    group = small_group(weight.size, x.size)
    for g in prange((rstd.size + group - 1) // group):
        _group(x, residual, total, out, rstd, weight, eps, fused, g * group, group)


@njit(forceinline=True, error_model="numpy")
def _group(x, residual, total, out, rstd, weight, eps, fused, first, group):
    n, stop, w = weight.size, min(first + group, rstd.size), simd.pointer(weight)
    for i in range(first, stop):
        p = simd.pointer(total) + i * n
        if fused:
            add_rows(simd.pointer(x) + i * n, simd.pointer(residual) + i * n, p, n)
        square = dot_rows(p, p, n) / n
        fine = square < 1e30 and square + eps > 1e-28
        rstd[i] = 1.0 / math.sqrt(square + eps) if fine else np.nan
    for i in range(first, stop):
        p, o = simd.pointer(total) + i * n, simd.pointer(out) + i * n
        if rstd[i] >= 0.0:
            _normalise(p, w, n, rstd[i], o)
        else:
            rstd[i] = _slowly(p, w, n, eps, o)


@njit(forceinline=True, error_model="numpy")
def _normalise(p, w, n, rstd, out):
    """out = p * rstd * w"""
    L, r = simd.lanes(p), simd.splat(rstd, p)
    whole = n - n % (2 * L)
    for j in range(0, whole, 2 * L):
        simd.store(out, j, simd.load(p, j) * r * simd.load(w, j))
        simd.store(out, j + L, simd.load(p, j + L) * r * simd.load(w, j + L))
    for j in range(whole, n, L):
        store_up_to(out, j, load_up_to(p, j, n - j) * r * load_up_to(w, j, n - j), n - j)


@njit(error_model="numpy")
def _slowly(p, w, n, eps, out):
    """One row in float64, number by number; returns rstd."""
    square = 0.0
    for j in range(n):
        square += np.float64(simd.number(p, j)) ** 2
    rstd = 1.0 / math.sqrt(square / n + eps)
    for j in range(n):
        set_number(out, j, simd.number(p, j) * rstd * simd.number(w, j))
    return rstd


# ----------------------------------------------------------------------------------------------- backward


def rmsnorm_backward(
    dout: Any, x: Any, weight: Any | None, rstd: Any, dresidual: Any | None, dweight: Any | None
) -> tuple[Any, Any]:
    N, dx = x.shape[-1], np.empty(x.shape, x.dtype)
    weight = np.ones(N, x.dtype) if weight is None else contiguous(weight)
    dweight = np.zeros(N, x.dtype) if dweight is None else dweight
    dout, into, fused = contiguous(dout), contiguous(dweight), dresidual is not None
    dresidual = dout if dresidual is None else contiguous(dresidual)
    rows = dout.reshape(-1), contiguous(x).reshape(-1), dresidual.reshape(-1), dx.reshape(-1)
    block, blocks = row_blocks(rstd.size, N)
    run = _blocks if x.size <= ALONE else _blocks_in_parallel
    run(*rows, fused, weight, contiguous(rstd).reshape(-1), block, np.empty((blocks, N)), into)
    if into is not dweight:
        dweight[...] = into
    return dx, dweight


@njit(error_model="numpy")
def _blocks(dout, x, dresidual, dx, fused, weight, rstd, block, sums, dweight):
    for b in range(sums.shape[0]):
        _block(dout, x, dresidual, dx, fused, weight, rstd, block, sums, b)
    add_blocks(sums, dweight)


@njit(parallel=True, error_model="numpy")
def _blocks_in_parallel(dout, x, dresidual, dx, fused, weight, rstd, block, sums, dweight):
    for b in prange(sums.shape[0]):
        _block(dout, x, dresidual, dx, fused, weight, rstd, block, sums, b)
    add_blocks(sums, dweight)


@njit(error_model="numpy")
def _block(dout, x, dresidual, dx, fused, weight, rstd, block, sums, b):
    n, w, stop = weight.size, simd.pointer(weight), min((b + 1) * block, rstd.size)
    group, part = large_group(n), np.zeros(n, x.dtype)
    numbers = np.empty((group, 2), x.dtype)  # of each row: rstd, and rstd * the mean of g * xhat
    sums[b] = 0.0
    for first in range(b * block, stop, group):
        rows, at = min(group, stop - first), first * n
        d, p, q = simd.pointer(dout) + at, simd.pointer(x) + at, simd.pointer(dx) + at
        for r in range(rows):
            numbers[r, 0] = rstd[first + r]
            numbers[r, 1] = _mean(d + r * n, p + r * n, w, n, numbers[r, 0], q + r * n) * numbers[r, 0]
        _columns(d, p, w, simd.pointer(dresidual) + at, fused, q, n, rows, numbers, part)
        if (first // group) % 4 == 3 or first + rows == stop:
            add_into(sums[b], part)


@njit(forceinline=True, error_model="numpy")
def _mean(dout, x, weight, n, rstd, dx):
    """The mean of g * xhat over a row, float64. dx, which is written next, is asked for."""
    L, r, total = simd.lanes(x), simd.splat(rstd, x), 0.0
    for start in range(0, n, BLOCK * L):
        stop = min(start + BLOCK * L, n)
        whole = stop - (stop - start) % (2 * L)
        t0, t1 = simd.zeros(x), simd.zeros(x)
        for j in range(start, whole, 2 * L):
            simd.prefetch_write(dx, j)
            simd.prefetch_write(dx, j + L)
            t0 = simd.fma(simd.load(dout, j) * simd.load(weight, j), simd.load(x, j) * r, t0)
            t1 = simd.fma(simd.load(dout, j + L) * simd.load(weight, j + L), simd.load(x, j + L) * r, t1)
        for j in range(whole, stop, L):
            k = stop - j
            t0 = simd.fma(load_up_to(dout, j, k) * load_up_to(weight, j, k), load_up_to(x, j, k) * r, t0)
        total += simd.hsum_wide(t0 + t1)
    return total / n


@njit(forceinline=True, error_model="numpy")
def _columns(dout, x, weight, dresidual, fused, dx, n, rows, numbers, part):
    """dx of a group of rows; part gets its share of dweight added."""
    L = simd.lanes(x)
    whole = n - n % (2 * L)
    for j in range(0, whole, 2 * L):
        w0, w1, dw0, dw1 = simd.load(weight, j), simd.load(weight, j + L), simd.load(part, j), simd.load(part, j + L)
        for r in range(rows):
            at, s, c = r * n + j, numbers[r, 0], numbers[r, 1]
            d0, xhat0 = simd.load(dout, at), simd.load(x, at) * s
            d1, xhat1 = simd.load(dout, at + L), simd.load(x, at + L) * s
            v0, v1 = d0 * w0 * s - xhat0 * c, d1 * w1 * s - xhat1 * c
            if fused:
                v0 += simd.load(dresidual, at)
                v1 += simd.load(dresidual, at + L)
            simd.store(dx, at, v0)
            simd.store(dx, at + L, v1)
            dw0, dw1 = simd.fma(d0, xhat0, dw0), simd.fma(d1, xhat1, dw1)
        simd.store(part, j, dw0)
        simd.store(part, j + L, dw1)
    for j in range(whole, n, L):
        k = n - j
        w0, dw0 = load_up_to(weight, j, k), load_up_to(part, j, k)
        for r in range(rows):
            at, s, c = r * n + j, numbers[r, 0], numbers[r, 1]
            d0, xhat0 = load_up_to(dout, at, k), load_up_to(x, at, k) * s
            v0 = d0 * w0 * s - xhat0 * c
            if fused:
                v0 += load_up_to(dresidual, at, k)
            store_up_to(dx, at, v0, k)
            dw0 = simd.fma(d0, xhat0, dw0)
        store_up_to(part, j, dw0, k)
