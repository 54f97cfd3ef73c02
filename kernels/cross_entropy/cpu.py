"""Softmax cross-entropy in Numba: one row after another, rows in parallel. Formulas in reference.py.

The softmax is never stored: the gradient's passes write exp(z - top) where dlogits goes, then turn it into the gradient
in place, while the row is in the cache. `cross_entropy_with_grad` does so right after the forward pass of a row, which
has those exponentials already; the logits themselves may be the place.

Whatever a row has one of is float64. An empty `weight` stands for ones.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import simd
from ..checks import contiguous
from ..numba_setup import njit, prange
from ..rows import exp_sum, largest, load_up_to, scale_and_shift, store_exp, store_up_to, weighted_distance

FORWARD, BACKWARD, BOTH = range(3)
ALONE = 1 << 14  # logits that one thread is done with before two have started


def cross_entropy_forward(
    logits: Any, targets: Any, ignore_index: int, label_smoothing: float, weight: Any | None
) -> tuple[Any, Any]:
    N = logits.shape[0]
    z, loss, lse = contiguous(logits), np.empty(N, logits.dtype), np.empty(N, logits.dtype)
    _run(FORWARD, z, targets, None, ignore_index, label_smoothing, weight, loss, lse, z)
    return loss, lse


def cross_entropy_backward(
    dloss: Any, logits: Any, targets: Any, lse: Any, ignore_index: int, label_smoothing: float, weight: Any | None
) -> Any:
    lse, dlogits = contiguous(lse), np.empty(logits.shape, logits.dtype)
    _run(BACKWARD, contiguous(logits), targets, dloss, ignore_index, label_smoothing, weight, lse, lse, dlogits)
    return dlogits


def cross_entropy_with_grad(
    logits: Any,
    targets: Any,
    factor: Any,
    ignore_index: int,
    label_smoothing: float,
    weight: Any | None,
    out: Any | None,
) -> tuple[Any, Any, Any]:
    N = logits.shape[0]
    z, loss, lse = contiguous(logits), np.empty(N, logits.dtype), np.empty(N, logits.dtype)
    if out is None:
        out = np.empty(logits.shape, logits.dtype)
    elif out is not logits and np.may_share_memory(out, z):
        z = z.copy()
    dlogits = contiguous(out)
    _run(BOTH, z, targets, factor, ignore_index, label_smoothing, weight, loss, lse, dlogits)
    if dlogits is not out:
        out[...] = dlogits
    return loss, lse, out


def _run(
    what: int,
    z: Any,
    targets: Any,
    factor: Any,
    ignore_index: int,
    smoothing: float,
    weight: Any | None,
    loss: Any,
    lse: Any,
    dlogits: Any,
) -> None:
    N, V = z.shape
    factors = np.empty(N)
    if factor is not None:
        factors[:] = factor
    if weight is None:
        weights, weight_sum = np.empty(0, z.dtype), float(V)
    else:
        weights, weight_sum = contiguous(weight), float(weight.sum(dtype=np.float64))
    settings = factors, ignore_index, float(smoothing), weights, weight_sum
    (_rows if N * V <= ALONE else _rows_in_parallel)(what, z, contiguous(targets), *settings, loss, lse, dlogits)


@njit(error_model="numpy")
def _rows(what, z, targets, factor, ignore_index, smoothing, weight, weight_sum, loss, lse, dz):
    for i in range(z.shape[0]):
        _row(what, z, targets, factor, ignore_index, smoothing, weight, weight_sum, loss, lse, dz, i)


@njit(parallel=True, error_model="numpy")
def _rows_in_parallel(what, z, targets, factor, ignore_index, smoothing, weight, weight_sum, loss, lse, dz):
    for i in prange(z.shape[0]):
        _row(what, z, targets, factor, ignore_index, smoothing, weight, weight_sum, loss, lse, dz, i)


@njit(forceinline=True, error_model="numpy")
def _row(what, logits, targets, factor, ignore_index, smoothing, weight, weight_sum, loss, lse, dlogits, i):
    y, V = targets[i], logits.shape[1]
    if y == ignore_index:
        if what != BACKWARD:
            loss[i], lse[i] = 0.0, 0.0
        if what != FORWARD:
            dlogits[i, :] = 0.0
        return
    z, dz, w = simd.pointer(logits) + i * V, simd.pointer(dlogits) + i * V, simd.pointer(weight)  # (V,) each
    w_y = np.float64(weight[y]) if weight.size else 1.0
    total = 1.0
    if what == BACKWARD:
        total = store_exp(z, dz, V, lse[i])  # 1 up to the rounding of lse
    else:
        top = largest(z, V)
        direct = np.float64(top) - logits[i, y]
        spread = weighted_distance(z, w, weight.size > 0, V, top) if smoothing > 0.0 else 0.0
        total = store_exp(z, dz, V, top) if what == BOTH else exp_sum(z, V, top)  # dz may be z: last use of z
        log_total = math.log(total)
        value = (1.0 - smoothing) * w_y * (log_total + direct)
        if smoothing > 0.0:
            value += smoothing / V * (weight_sum * log_total + spread)
        loss[i], lse[i] = value, top + log_total
    if what != FORWARD:
        direct, spread = (1.0 - smoothing) * w_y * factor[i], smoothing / V * factor[i]
        share = (direct + spread * weight_sum) / total
        at_target = share * dlogits[i, y] - (spread * w_y + direct)
        if spread != 0.0 and weight.size:
            _weighted_gradient(dz, w, V, share, spread)
        else:
            scale_and_shift(dz, V, share, -spread)
        dlogits[i, y] = at_target


@njit(forceinline=True, error_model="numpy")
def _weighted_gradient(dz, w, V, share, spread):
    """dz_c = share * dz_c - spread * w_c"""
    share, spread = simd.splat(share, dz), simd.splat(spread, dz)
    for c in range(0, V, simd.lanes(dz)):
        value = share * load_up_to(dz, c, V - c) - spread * load_up_to(w, c, V - c)
        store_up_to(dz, c, value, V - c)
