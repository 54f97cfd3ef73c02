"""LayerNorm in Numba, forward: rows in parallel. Formulas in reference.py; the backward pass is in cpu_backward.py.

The sum of a row gives a first centre, which float32 does not hold exactly. The sums of d = x - centre and of d^2 give
what the centre lacks of the mean, and the variance: so vectors of float32 do, and nothing cancels. Where that is not
good enough (squares out of range, a sum that lost all its digits), the row is done in float64, number by number.

A row is read from memory once and stays in the cache for the passes that follow.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import simd
from ..checks import contiguous
from ..numba_setup import njit, prange
from ..rows import BLOCK, add_rows, load_up_to, set_number, small_group, store_up_to, sum_row
from .cpu_backward import layernorm_backward

__all__ = ["layernorm_backward", "layernorm_forward"]

ALONE = 1 << 14  # numbers that one thread is done with before two have started


def layernorm_forward(
    x: Any, weight: Any | None, bias: Any | None, eps: float, residual: Any | None
) -> tuple[Any, ...]:
    N, rows = x.shape[-1], x.shape[:-1]
    out, mean, rstd = np.empty(x.shape, x.dtype), np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    weight = np.ones(N, x.dtype) if weight is None else contiguous(weight)
    bias = np.zeros(N, x.dtype) if bias is None else contiguous(bias)
    x = contiguous(x)
    total, other = (x, x) if residual is None else (np.empty(x.shape, x.dtype), contiguous(residual))
    arrays = x.reshape(-1), other.reshape(-1), total.reshape(-1), out.reshape(-1), mean.reshape(-1), rstd.reshape(-1)
    run = _rows if x.size <= ALONE else _rows_in_parallel
    run(*arrays, weight, bias, float(eps), residual is not None)
    return (out, mean, rstd) if residual is None else (out, mean, rstd, total)


@njit(error_model="numpy")
def _rows(x, residual, total, out, mean, rstd, weight, bias, eps, fused):
    group = small_group(weight.size, x.size)
    for first in range(0, mean.size, group):
        _group(x, residual, total, out, mean, rstd, weight, bias, eps, fused, first, group)


@njit(parallel=True, error_model="numpy")
def _rows_in_parallel(x, residual, total, out, mean, rstd, weight, bias, eps, fused):
    group = small_group(weight.size, x.size)
    for g in prange((mean.size + group - 1) // group):
        _group(x, residual, total, out, mean, rstd, weight, bias, eps, fused, g * group, group)


@njit(forceinline=True, error_model="numpy")
def _group(x, residual, total, out, mean, rstd, weight, bias, eps, fused, first, group):
    """A few rows, step by step together: while one waits for its sum, the next is being added up."""
    n, stop = weight.size, min(first + group, mean.size)
    centre, rest = np.empty(group, x.dtype), np.empty(group, x.dtype)
    w, b = simd.pointer(weight), simd.pointer(bias)
    for i in range(first, stop):
        p = simd.pointer(total) + i * n
        if fused:
            centre[i - first] = add_rows(simd.pointer(x) + i * n, simd.pointer(residual) + i * n, p, n) / n
        else:
            centre[i - first] = sum_row(p, n) / n
    for i in range(first, stop):
        more, square = _moments(simd.pointer(total) + i * n, n, centre[i - first])
        fine = square < 1e30 and square + eps > 1e-28 and more * more <= square / 4
        mean[i], rest[i - first] = centre[i - first] + more, more
        rstd[i] = 1.0 / math.sqrt(square - more * more + eps) if fine else np.nan
    for i in range(first, stop):
        p, o = simd.pointer(total) + i * n, simd.pointer(out) + i * n
        if rstd[i] >= 0.0:
            _normalise(p, w, b, n, centre[i - first], rest[i - first], rstd[i], o)
        else:
            mean[i], rstd[i] = _slowly(p, w, b, n, eps, o)


@njit(forceinline=True, error_model="numpy")
def _moments(p, n, centre):
    """The means of d = p - centre and of d^2, float64."""
    L, c, sum_d, sum_dd = simd.lanes(p), simd.splat(centre, p), 0.0, 0.0
    for start in range(0, n, BLOCK * L):
        stop = min(start + BLOCK * L, n)
        whole = stop - (stop - start) % (2 * L)
        s0, s1, t0, t1 = simd.zeros(p), simd.zeros(p), simd.zeros(p), simd.zeros(p)
        for i in range(start, whole, 2 * L):
            d0, d1 = simd.load(p, i) - c, simd.load(p, i + L) - c
            s0 += d0
            s1 += d1
            t0, t1 = simd.fma(d0, d0, t0), simd.fma(d1, d1, t1)
        for i in range(whole, stop, L):
            d0 = simd.select(simd.first(stop - i, p), load_up_to(p, i, stop - i) - c, 0.0)
            s0 += d0
            t0 = simd.fma(d0, d0, t0)
        sum_d += simd.hsum_wide(s0 + s1)
        sum_dd += simd.hsum_wide(t0 + t1)
    return sum_d / n, sum_dd / n


@njit(forceinline=True, error_model="numpy")
def _normalise(p, w, b, n, centre, rest, rstd, out):
    """out = (p - centre - rest) * rstd * w + b"""
    L, c, r, m = simd.lanes(p), simd.splat(centre, p), simd.splat(rstd, p), simd.splat(-rest * rstd, p)
    whole = n - n % (2 * L)
    for j in range(0, whole, 2 * L):
        xhat0, xhat1 = simd.fma(simd.load(p, j) - c, r, m), simd.fma(simd.load(p, j + L) - c, r, m)
        simd.store(out, j, simd.fma(xhat0, simd.load(w, j), simd.load(b, j)))
        simd.store(out, j + L, simd.fma(xhat1, simd.load(w, j + L), simd.load(b, j + L)))
    for j in range(whole, n, L):
        xhat0 = simd.fma(load_up_to(p, j, n - j) - c, r, m)
        store_up_to(out, j, simd.fma(xhat0, load_up_to(w, j, n - j), load_up_to(b, j, n - j)), n - j)


@njit(error_model="numpy")
def _slowly(p, w, b, n, eps, out):
    """One row in float64, number by number; returns mean and rstd."""
    total, square = 0.0, 0.0
    for j in range(n):
        total += simd.number(p, j)
    mean = total / n
    for j in range(n):
        d = simd.number(p, j) - mean
        square += d * d
    rstd = 1.0 / math.sqrt(square / n + eps)
    for j in range(n):
        set_number(out, j, (simd.number(p, j) - mean) * rstd * simd.number(w, j) + simd.number(b, j))
    return mean, rstd
