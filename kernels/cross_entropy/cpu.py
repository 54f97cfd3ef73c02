"""Softmax cross-entropy in Numba: one row after another, rows in parallel. Formulas in reference.py.

Sums are float64. The softmax is never stored: backward writes exp(z - lse) where dlogits goes, then turns it into the
gradient in place, while the row is in the cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import contiguous
from ..numba_math import exp
from ..numba_setup import njit, prange


def cross_entropy_forward(
    logits: Any, targets: Any, ignore_index: int, label_smoothing: float, weight: Any | None
) -> tuple[Any, Any]:
    N, V = logits.shape
    loss, lse = np.zeros(N, logits.dtype), np.zeros(N, logits.dtype)
    weight = np.ones(V, logits.dtype) if weight is None else contiguous(weight)
    _forward(contiguous(logits), contiguous(targets), ignore_index, float(label_smoothing), weight, loss, lse)
    return loss, lse


@njit(parallel=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _forward(logits, targets, ignore_index, smoothing, weight, loss, lse):
    for i in prange(logits.shape[0]):
        y, z = targets[i], logits[i]  # (V,)
        if y != ignore_index:
            top = z[0]
            for c in range(z.size):
                top = max(top, z[c])
            total = 0.0
            for c in range(z.size):
                total += exp(np.float64(z[c]) - top)
            log_total = math.log(total)
            value = (1.0 - smoothing) * weight[y] * (log_total + (np.float64(top) - z[y]))
            if smoothing > 0.0:
                rest = 0.0
                for c in range(z.size):
                    rest += weight[c] * (log_total + (np.float64(top) - z[c]))
                value += smoothing / z.size * rest
            loss[i], lse[i] = value, top + log_total


def cross_entropy_backward(
    dloss: Any, logits: Any, targets: Any, lse: Any, ignore_index: int, label_smoothing: float, weight: Any | None
) -> Any:
    dlogits = np.zeros(logits.shape, logits.dtype)
    weight = np.ones(logits.shape[1], logits.dtype) if weight is None else contiguous(weight)
    arrays = contiguous(dloss), contiguous(logits), contiguous(targets), contiguous(lse), weight
    _backward(*arrays, float(weight.sum(dtype=np.float64)), ignore_index, float(label_smoothing), dlogits)
    return dlogits


@njit(parallel=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _backward(dloss, logits, targets, lse, weight, weight_sum, ignore_index, smoothing, dlogits):
    for i in prange(logits.shape[0]):
        y, z, dz = targets[i], logits[i], dlogits[i]  # (V,)
        if y != ignore_index:
            total, shift = 0.0, np.float64(lse[i])
            for c in range(z.size):
                e = exp(np.float64(z[c]) - shift)
                dz[c] = e
                total += e
            spread = smoothing / z.size * dloss[i]
            direct = (1.0 - smoothing) * weight[y] * dloss[i]
            share = (direct + spread * weight_sum) / total  # total is 1 up to the rounding of lse
            e = dz[y]
            for c in range(z.size):
                dz[c] = share * dz[c] - spread * weight[c]
            dz[y] = share * e - (spread * weight[y] + direct)
