"""Binary cross-entropy in Numba on vectors. Formulas in reference.py.

With e = exp(-|x|) and s = e / (2 + e), at most 1/3, log(1 + e) = 2 atanh(s): a short series in s^2 that keeps the
digits of small e. Sums over a row run in float32 for 16 vectors at a time, and in float64 from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import simd
from ..blocks import BLOCK, SMALL, count, end
from ..checks import contiguous
from ..numba_setup import njit, prange

ATANH = (1.0, 0.33333339653435157, 0.19999345471773408, 0.14310360545127335, 0.10696630534815163,
         0.12206515356170436)  # atanh(s) / s in s^2, minimax on 0 .. 1/9, error 1e-10  # fmt: skip
TOGETHER = 16  # vectors


def bce_forward(logits: Any, targets: Any, rows: bool) -> Any:
    x, y = contiguous(logits), contiguous(targets)
    out = np.empty(x.shape[:-1] if rows else x.shape, x.dtype)
    if rows:
        shape = (out.size, x.shape[-1])
        _rows(x.reshape(shape), y.reshape(shape), out.reshape(-1))
    else:
        _elements(x.reshape(-1), y.reshape(-1), out.reshape(-1))
    return out


@njit(parallel=True)
def _elements(x, y, out):
    if x.size <= SMALL:
        _elements_range(x, y, out, 0, x.size)
    else:
        for b in prange(count(x.size)):
            _elements_range(x, y, out, b * BLOCK, end(b, x.size))


@njit
def _elements_range(x, y, out, start, stop):
    n = simd.lanes(x)
    rest = (stop - start) % n
    for i in range(start, stop - rest, n):
        simd.store(out, i, _loss(simd.load(x, i), simd.load(y, i)))
    if rest:
        i = stop - rest
        simd.store_tail(out, i, _loss(simd.load_tail(x, i, rest), simd.load_tail(y, i, rest)), rest)


@njit(parallel=True)
def _rows(x, y, out):
    if x.size <= SMALL:
        for i in range(out.size):
            out[i] = _row_sum(x[i], y[i])
    else:
        for i in prange(out.size):
            out[i] = _row_sum(x[i], y[i])


@njit
def _row_sum(x, y):
    n = simd.lanes(x)
    whole = x.size - x.size % n
    total = 0.0
    for start in range(0, whole, TOGETHER * n):
        part = simd.zeros(x)
        for i in range(start, min(start + TOGETHER * n, whole), n):
            part = part + _loss(simd.load(x, i), simd.load(y, i))
        total += simd.hsum_wide(part)
    if whole < x.size:
        left = x.size - whole
        last = _loss(simd.load_tail(x, whole, left), simd.load_tail(y, whole, left))
        total += simd.hsum_wide(simd.select(simd.first(left, x), last, 0.0))
    return total


@njit(error_model="numpy", forceinline=True)
def _loss(x, y):
    e = simd.exp(-simd.absolute(x))
    return simd.fma(-x, y, simd.maximum(0.0, x)) + _log1p(e)  # NaN stays


@njit(error_model="numpy", forceinline=True)
def _log1p(e):
    """log(1 + e) for 0 <= e <= 1."""
    if simd.lanes(e) == simd.LANES64:  # decided when compiled
        return simd.log1p(e)
    s = e / (e + 2.0)
    t = s * s
    p = simd.fma(simd.fma(simd.fma(t, ATANH[5], ATANH[4]), t, ATANH[3]), t, ATANH[2])
    return s * 2.0 * simd.fma(simd.fma(p, t, ATANH[1]), t, ATANH[0])


def bce_backward(dloss: Any, logits: Any, targets: Any) -> Any:
    x, y, d = contiguous(logits), contiguous(targets), contiguous(dloss)
    dx = np.empty(x.shape, x.dtype)
    if d.ndim == x.ndim:
        _elements_backward(d.reshape(-1), x.reshape(-1), y.reshape(-1), dx.reshape(-1))
    else:
        shape = (d.size, x.shape[-1])
        _rows_backward(d.reshape(-1), x.reshape(shape), y.reshape(shape), dx.reshape(shape))
    return dx


@njit(parallel=True)
def _elements_backward(d, x, y, dx):
    if x.size <= SMALL:
        _elements_backward_range(d, x, y, dx, 0, x.size)
    else:
        for b in prange(count(x.size)):
            _elements_backward_range(d, x, y, dx, b * BLOCK, end(b, x.size))


@njit
def _elements_backward_range(d, x, y, dx, start, stop):
    n = simd.lanes(x)
    rest = (stop - start) % n
    for i in range(start, stop - rest, n):
        simd.store(dx, i, simd.load(d, i) * (simd.sigmoid(simd.load(x, i)) - simd.load(y, i)))
    if rest:
        i = stop - rest
        slope = simd.sigmoid(simd.load_tail(x, i, rest)) - simd.load_tail(y, i, rest)
        simd.store_tail(dx, i, simd.load_tail(d, i, rest) * slope, rest)


@njit(parallel=True)
def _rows_backward(d, x, y, dx):
    if x.size <= SMALL:
        for i in range(d.size):
            _row_backward(d[i], x[i], y[i], dx[i])
    else:
        for i in prange(d.size):
            _row_backward(d[i], x[i], y[i], dx[i])


@njit
def _row_backward(d, x, y, dx):
    n = simd.lanes(x)
    rest = x.size % n
    for i in range(0, x.size - rest, n):
        simd.store(dx, i, d * (simd.sigmoid(simd.load(x, i)) - simd.load(y, i)))
    if rest:
        i = x.size - rest
        slope = simd.sigmoid(simd.load_tail(x, i, rest)) - simd.load_tail(y, i, rest)
        simd.store_tail(dx, i, d * slope, rest)
