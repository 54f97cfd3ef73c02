"""Softmax and log-softmax in Numba: one row after another, rows in parallel. Formulas in reference.py.

A row is read from memory once and stays in the cache for the passes that follow: maximum, exponentials and their sum,
division. Few numbers are done by the calling thread alone: waking the others takes 2 us.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import simd
from ..checks import contiguous
from ..numba_setup import njit, prange
from ..rows import dot_rows, exp_sum, largest, load_up_to, scale_and_shift, store_exp, store_up_to, sum_row

SOFTMAX, SOFTMAX_BACKWARD, LOG_SOFTMAX, LOG_SOFTMAX_BACKWARD = range(4)
ALONE = 1 << 14  # numbers that one thread is done with before two have started


def softmax_forward(x: Any) -> Any:
    return _run(SOFTMAX, x, x)


def softmax_backward(dout: Any, out: Any) -> Any:
    return _run(SOFTMAX_BACKWARD, out, dout)


def log_softmax_forward(x: Any) -> Any:
    return _run(LOG_SOFTMAX, x, x)


def log_softmax_backward(dout: Any, out: Any) -> Any:
    return _run(LOG_SOFTMAX_BACKWARD, out, dout)


def _run(what: int, x: Any, dout: Any) -> Any:
    result = np.empty(x.shape, x.dtype)
    if x.size:
        x, dout = contiguous(x), contiguous(dout)
        n = x.shape[-1] if x.ndim else 1
        (_rows if x.size <= ALONE else _rows_in_parallel)(what, x.reshape(-1), dout.reshape(-1), n, result.reshape(-1))
    return result


@njit(error_model="numpy")
def _rows(what, x, dout, n, result):
    for i in range(x.size // n):
        _row(what, x, dout, n, result, i)


@njit(parallel=True)
def _rows_in_parallel(what, x, dout, n, result):
    for i in prange(x.size // n):
        _row(what, x, dout, n, result, i)


@njit(forceinline=True, error_model="numpy")
def _row(what, x, dout, n, result, i):
    p, d, q = simd.pointer(x) + i * n, simd.pointer(dout) + i * n, simd.pointer(result) + i * n
    if what == SOFTMAX:
        _softmax(p, n, q)
    elif what == SOFTMAX_BACKWARD:
        _softmax_gradient(d, p, n, q)
    elif what == LOG_SOFTMAX:
        _log_softmax(p, n, q)
    else:
        _log_softmax_gradient(d, p, n, q)


@njit(forceinline=True, error_model="numpy")
def _softmax(p, n, out):
    total = store_exp(p, out, n, largest(p, n))
    scale_and_shift(out, n, 1.0 / total, 0.0)


@njit(forceinline=True, error_model="numpy")
def _softmax_gradient(dout, out, n, dx):
    L, mean = simd.lanes(out), simd.splat(dot_rows(dout, out, n), out)
    whole = n - n % (2 * L)
    for j in range(0, whole, 2 * L):
        simd.store(dx, j, simd.load(out, j) * (simd.load(dout, j) - mean))
        simd.store(dx, j + L, simd.load(out, j + L) * (simd.load(dout, j + L) - mean))
    for j in range(whole, n, L):
        store_up_to(dx, j, load_up_to(out, j, n - j) * (load_up_to(dout, j, n - j) - mean), n - j)


@njit(forceinline=True, error_model="numpy")
def _log_softmax(p, n, out):
    top = largest(p, n)
    log_total = simd.splat(math.log(exp_sum(p, n, top)), p)
    for j in range(0, n, simd.lanes(p)):
        store_up_to(out, j, load_up_to(p, j, n - j) - top - log_total, n - j)


@njit(forceinline=True, error_model="numpy")
def _log_softmax_gradient(dout, out, n, dx):
    total = simd.splat(sum_row(dout, n), out)
    for j in range(0, n, simd.lanes(out)):
        value = load_up_to(dout, j, n - j) - simd.exp(load_up_to(out, j, n - j)) * total
        store_up_to(dx, j, value, n - j)
