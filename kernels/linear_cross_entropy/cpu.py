"""Linear layer and cross-entropy in Numba: chunks of tokens, whose logits stay in the cache. Formulas in reference.py.

A chunk: logits = x weight^T; then row by row the loss, and du in place of the logits; then dx = du weight, and
du^T x is added to dweight. Ignored tokens are left out before: they cost nothing, whatever x holds there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import simd
from ..checks import contiguous
from ..matmul import matmul
from ..numba_setup import njit, prange
from ..rows import exp_sum, largest, load_up_to, scale_and_shift, store_exp, store_up_to, weighted_distance

CHUNK_BYTES, LEAST = 1 << 24, 256  # logits of a chunk, which the last cache holds; but tokens enough for the products
ALONE = 1 << 14  # logits that one thread is done with before two have started


def linear_cross_entropy(
    x: Any,
    weight: Any,
    targets: Any,
    factor: Any,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
    z_loss: float,
    needs_grad: bool,
    dweight: Any | None,
) -> tuple[Any, Any, Any]:
    kept = targets != ignore_index
    if not kept.all():
        loss, dx = np.zeros(x.shape[0], x.dtype), np.zeros(x.shape, x.dtype) if needs_grad else None
        factor = factor[kept] if np.ndim(factor) else factor
        settings = label_smoothing, softcap, z_loss, needs_grad, dweight
        loss[kept], dx_kept, dweight = _all_tokens(x[kept], weight, targets[kept], factor, *settings)
        if dx is not None:
            dx[kept] = dx_kept
        return loss, dx, dweight
    return _all_tokens(x, weight, targets, factor, label_smoothing, softcap, z_loss, needs_grad, dweight)


def _all_tokens(
    x: Any,
    weight: Any,
    targets: Any,
    factor: Any,
    smoothing: float,
    softcap: float,
    z_loss: float,
    needs_grad: bool,
    dweight: Any | None,
) -> tuple[Any, Any, Any]:
    N, V = x.shape[0], weight.shape[0]
    loss, factors, targets = np.empty(N, x.dtype), np.empty(N), contiguous(targets)
    factors[:] = factor
    dx = np.empty(x.shape, x.dtype) if needs_grad else None
    if needs_grad and dweight is None:
        dweight = np.zeros(weight.shape, x.dtype)
    chunk = chunk_tokens(N, V, x.itemsize)
    logits = np.empty((chunk, V), x.dtype)
    run = _rows if chunk * V <= ALONE else _rows_in_parallel
    for first in range(0, N, chunk):
        tokens = slice(first, min(first + chunk, N))
        u = matmul(x[tokens], weight.T, out=logits[: tokens.stop - first])  # (C, V)
        run(u, targets[tokens], factors[tokens], smoothing, softcap, z_loss, needs_grad, loss[tokens])
        if dx is not None:
            matmul(u, weight, out=dx[tokens])
            matmul(u.T, x[tokens], out=dweight, accumulate=True)
    return loss, dx, dweight if needs_grad else None


def chunk_tokens(N: int, V: int, itemsize: int) -> int:
    """Tokens of a chunk, all of one size but the last: every chunk reads all of weight and dweight."""
    most = max(LEAST, CHUNK_BYTES // (V * itemsize))
    chunks = max(1, -(-N // most))
    return max(1, -(-N // chunks))


@njit(error_model="numpy")
def _rows(u, targets, factor, smoothing, softcap, z_loss, needs_grad, loss):
    for i in range(u.shape[0]):
        _row(u, targets, factor, smoothing, softcap, z_loss, needs_grad, loss, i)


@njit(parallel=True, error_model="numpy")
def _rows_in_parallel(u, targets, factor, smoothing, softcap, z_loss, needs_grad, loss):
    for i in prange(u.shape[0]):
        _row(u, targets, factor, smoothing, softcap, z_loss, needs_grad, loss, i)


@njit(forceinline=True, error_model="numpy")
def _row(u, targets, factor, smoothing, softcap, z_loss, needs_grad, loss, i):
    """The loss of a token; u becomes du, if that is needed."""
    V, y = u.shape[1], targets[i]
    z = simd.pointer(u) + i * V  # (V,)
    if softcap > 0.0:
        _cap(z, V, softcap)
    top, z_y = largest(z, V), np.float64(u[i, y])
    spread = weighted_distance(z, z, False, V, top) if smoothing > 0.0 else 0.0
    in_place = needs_grad and softcap == 0.0
    total = store_exp(z, z, V, top) if in_place else exp_sum(z, V, top)
    log_total = math.log(total)
    lse = top + log_total
    value = (1.0 - smoothing) * (lse - z_y) + z_loss * lse * lse
    if smoothing > 0.0:
        value += smoothing * (log_total + spread / V)
    loss[i] = value
    if needs_grad:
        share, even = factor[i] * (1.0 + 2.0 * z_loss * lse) / total, factor[i] * smoothing / V
        at_target = share * math.exp(z_y - top) - even - factor[i] * (1.0 - smoothing)
        if in_place:
            scale_and_shift(z, V, share, -even)
        else:
            at_target *= 1.0 - (z_y / softcap) ** 2
            _capped_gradient(z, V, top, share, even, 1.0 / softcap)
        u[i, y] = at_target


@njit(forceinline=True, error_model="numpy")
def _cap(z, V, softcap):
    """z = softcap * tanh(z / softcap)"""
    cap, inverse = simd.splat(softcap, z), simd.splat(1.0 / softcap, z)
    for c in range(0, V, simd.lanes(z)):
        store_up_to(z, c, cap * simd.tanh(load_up_to(z, c, V - c) * inverse), V - c)


@njit(forceinline=True, error_model="numpy")
def _capped_gradient(z, V, top, share, even, inverse):
    """z becomes (share * exp(z - top) - even) * (1 - (z / softcap)^2)"""
    share, even, inverse = simd.splat(share, z), simd.splat(even, z), simd.splat(inverse, z)
    for c in range(0, V, simd.lanes(z)):
        v = load_up_to(z, c, V - c)
        t = v * inverse
        dz = share * simd.exp(v - top) - even
        store_up_to(z, c, dz * simd.fma(-t, t, simd.splat(1.0, z)), V - c)
