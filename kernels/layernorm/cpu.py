"""LayerNorm in Numba: one row after another, rows in parallel. Formulas in reference.py.

Sums are float64 and `reassoc` lets them be vectorised; each row fits the cache, so reading it three times costs one
trip to memory. dweight and dbias add up over rows: the rows are cut into blocks that depend on their number alone, and
the blocks' sums are added in order, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import contiguous
from ..numba_setup import njit, prange


def layernorm_forward(x: Any, weight: Any | None, bias: Any | None, eps: float) -> tuple[Any, Any, Any]:
    N = x.shape[-1]
    out, mean, rstd = np.empty(x.shape, x.dtype), np.empty(x.shape[:-1], x.dtype), np.empty(x.shape[:-1], x.dtype)
    weight = np.ones(N, x.dtype) if weight is None else contiguous(weight)
    bias = np.zeros(N, x.dtype) if bias is None else contiguous(bias)
    rows = contiguous(x).reshape(-1, N)
    _forward(rows, weight, bias, float(eps), out.reshape(-1, N), mean.reshape(-1), rstd.reshape(-1))
    return out, mean, rstd


@njit(parallel=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _forward(x, weight, bias, eps, out, mean, rstd):
    for i in prange(x.shape[0]):
        xi, oi = x[i], out[i]  # (N,)
        total = 0.0
        for j in range(xi.size):
            total += xi[j]
        mu = total / xi.size
        total = 0.0
        for j in range(xi.size):
            total += (xi[j] - mu) * (xi[j] - mu)
        r = 1.0 / math.sqrt(total / xi.size + eps)
        for j in range(xi.size):
            oi[j] = (xi[j] - mu) * r * weight[j] + bias[j]
        mean[i], rstd[i] = mu, r


def layernorm_backward(dout: Any, x: Any, weight: Any | None, mean: Any, rstd: Any) -> tuple[Any, Any, Any]:
    N = x.shape[-1]
    dx = np.empty(x.shape, x.dtype)
    weight = np.ones(N, x.dtype) if weight is None else contiguous(weight)
    block = max(16, -(-mean.size // 64))  # rows a block; at most 64 blocks
    sums = np.zeros((-(-mean.size // block), 2, N))  # dweight and dbias of each block, float64
    rows, drows = contiguous(x).reshape(-1, N), contiguous(dout).reshape(-1, N)
    statistics = contiguous(mean).reshape(-1), contiguous(rstd).reshape(-1)
    _backward(drows, rows, weight, *statistics, block, dx.reshape(-1, N), sums)
    dweight, dbias = sums.sum(axis=0).astype(x.dtype)  # (N,), (N,)
    return dx, dweight, dbias


@njit(parallel=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _backward(dout, x, weight, mean, rstd, block, dx, sums):
    for b in prange(sums.shape[0]):
        dweight, dbias = sums[b, 0], sums[b, 1]  # (N,)
        for i in range(b * block, min((b + 1) * block, x.shape[0])):
            di, xi, dxi = dout[i], x[i], dx[i]  # (N,)
            mu, r = np.float64(mean[i]), np.float64(rstd[i])
            sum_g, sum_gx = 0.0, 0.0
            for j in range(xi.size):
                g = np.float64(di[j]) * weight[j]
                sum_g += g
                sum_gx += g * ((xi[j] - mu) * r)
            mean_g, mean_gx = sum_g / xi.size, sum_gx / xi.size
            for j in range(xi.size):
                dxi[j] = r * (np.float64(di[j]) * weight[j] - mean_g - (xi[j] - mu) * r * mean_gx)
            for j in range(xi.size):  # faster apart: each array written must be checked for overlap
                dweight[j] += di[j] * ((xi[j] - mu) * r)
                dbias[j] += di[j]
