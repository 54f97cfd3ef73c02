"""Rung 3: a block of keys at a time, in vectors.

The scores of one query and 64 keys fit into L1 many times over. So the work falls apart into loops that all run on
whole vectors: the dot products, the maximum, exp of 16 numbers at once, the sum, and o rescaled once for a block and
not for each key.

But each key and value is loaded again for every query: one load for each multiply-add, and a core that could do one of
both in a cycle does well only if nothing else is to be loaded. And each dot product ends with a sum over lanes.

Reached: 29 % of the limit, causal 27 %.    Run: python -m bench ladder attention
"""

from __future__ import annotations

import numpy as np

from ... import simd
from ...numba_setup import njit, prange
from .padding import padded

BLOCK = 64  # keys


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = False) -> np.ndarray:
    """q (B, H, T, D), k, v (B, H, S, D) -> out (B, H, T, D)"""
    x, y, z = padded(q, 1), padded(k, BLOCK), padded(v, BLOCK)
    out = np.empty_like(x)
    _attention(x, y, z, k.shape[2], causal, np.float32(q.shape[-1] ** -0.5), out)
    return np.ascontiguousarray(out[:, :, :, : q.shape[-1]])


@njit(parallel=True, error_model="numpy")
def _attention(q, k, v, S, causal, scale, out):
    B, H, T, _ = q.shape
    for head in prange(B * H):
        b, h = head // H, head % H
        s = np.empty(BLOCK, np.float32)
        for i in range(T):
            _row(q[b, h, i], k[b, h], v[b, h], min(i + 1, S) if causal else S, scale, s, out[b, h, i])


@njit(error_model="numpy")
def _row(q, k, v, stop, scale, s, o):
    """One query, which sees the keys before `stop`."""
    D = q.size
    lanes = simd.lanes(q)
    for d in range(0, D, lanes):
        simd.store(o, d, simd.zeros(o))
    m, l = np.float32(-np.inf), np.float32(0)
    for j in range(0, stop, BLOCK):
        for c in range(BLOCK):
            total = simd.zeros(q)
            for d in range(0, D, lanes):
                total = simd.fma(simd.load(q, d), simd.load(k, (j + c) * D + d), total)
            s[c] = simd.hsum(total) * scale if j + c < stop else -np.inf
        top = simd.load(s, 0)
        for c in range(lanes, BLOCK, lanes):
            top = simd.maximum(top, simd.load(s, c))
        old, m = m, max(m, simd.hmax(top))
        total = simd.zeros(q)
        for c in range(0, BLOCK, lanes):
            p = simd.exp(simd.load(s, c) - m)
            simd.store(s, c, p)
            total = total + p
        factor = np.exp(old - m)
        l = l * factor + simd.hsum(total)
        for d in range(0, D, lanes):
            x = simd.load(o, d) * factor
            for c in range(BLOCK):
                x = simd.fma(simd.load(v, (j + c) * D + d), s[c], x)
            simd.store(o, d, x)
    for d in range(0, D, lanes):
        simd.store(o, d, simd.load(o, d) / l)
