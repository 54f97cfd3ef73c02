"""Rung 4: queries in blocks too, and the products from register tiles (see vector/tile.py).

A tile computes 8 queries x 16 keys with all its sums in registers: each number that is loaded is used for 8 queries or
for 16 keys, so that the loads no longer count. It wants the keys turned, (D, keys): 64 keys are turned once and read by
64 queries. This is FlashAttention (Dao et al. 2022) on a CPU: blocks of Q, K, V in the caches, nothing of size T x S.

With causal all blocks are computed, and what is hidden is overwritten.

Reached: 60 % of the limit, causal 29 %.    Run: python -m bench ladder attention
"""

from __future__ import annotations

import numpy as np

from ... import simd
from ...numba_setup import njit, prange
from .padding import padded

BLOCK = 64  # queries, and keys
ROWS = simd.TILE_ROWS
_tile = simd.make_tile(ROWS, 1)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = False) -> np.ndarray:
    """q (B, H, T, D), k, v (B, H, S, D) -> out (B, H, T, D)"""
    x, y, z = (padded(a, BLOCK) for a in (q, k, v))
    out = np.zeros_like(x)
    _attention(x, y, z, k.shape[2], causal, np.float32(q.shape[-1] ** -0.5), out)
    return np.ascontiguousarray(out[:, :, : q.shape[2], : q.shape[3]])


@njit(parallel=True, error_model="numpy")
def _attention(q, k, v, S, causal, scale, out):
    B, H, T, _ = q.shape
    for task in prange(B * H * (T // BLOCK)):
        head, first = task // (T // BLOCK), task % (T // BLOCK) * BLOCK
        b, h = head // H, head % H
        _block(q[b, h], k[b, h], v[b, h], first, S, causal, scale, out[b, h])


@njit(error_model="numpy")
def _block(q, k, v, first, S, causal, scale, out):
    """Queries first .. first + BLOCK - 1."""
    D = q.shape[1]
    lanes = simd.lanes(q)
    keys, s = np.empty((D, BLOCK), np.float32), np.empty((BLOCK, BLOCK), np.float32)
    m, l, zeros = np.full(BLOCK, -np.inf, np.float32), np.zeros(BLOCK, np.float32), np.zeros(lanes, np.float32)
    q_, k_, s_, v_, o_ = (simd.pointer(q[first]), simd.pointer(keys), simd.pointer(s), simd.pointer(v),
                          simd.pointer(out[first]))  # fmt: skip
    for j in range(0, S, BLOCK):
        for c in range(BLOCK):
            for d in range(D):
                keys[d, c] = k[j + c, d]
        for r in range(0, BLOCK, ROWS):
            for c in range(0, BLOCK, lanes):
                _tile(q_ + r * D, D, 1, k_ + c, BLOCK, s_ + (r * BLOCK + c), BLOCK, simd.pointer(zeros), 0, D)
        for i in range(BLOCK):
            stop = min(S, first + i + 1) if causal else S
            softmax_row(s[i], stop - j, scale, m, l, i, out[first + i])
        for r in range(0, BLOCK, ROWS):
            for d in range(0, D, lanes):
                o = o_ + (r * D + d)
                _tile(s_ + r * BLOCK, BLOCK, 1, v_ + (j * D + d), D, o, D, o, D, BLOCK)
    for i in range(BLOCK):
        out[first + i] /= l[i]
    simd.keep_alive(keys)
    simd.keep_alive(zeros)


@njit(error_model="numpy")
def softmax_row(s, seen, scale, m, l, i, o):
    """Online softmax as in rung 3, of query i: s (BLOCK,) becomes p, 0 from key `seen` on; o is rescaled."""
    lanes = simd.lanes(s)
    top = simd.splat(m[i], s)
    for c in range(0, s.size, lanes):
        x = simd.load(s, c) * scale
        x = simd.select(simd.iota(s) + c < seen, x, -np.inf)
        simd.store(s, c, x)
        top = simd.maximum(top, x)
    old, new = m[i], simd.hmax(top)
    total = simd.zeros(s)
    for c in range(0, s.size, lanes):
        p = simd.exp(simd.load(s, c) - new)
        simd.store(s, c, p)
        total = total + p
    factor = np.exp(old - new)
    m[i], l[i] = new, l[i] * factor + simd.hsum(total)
    for d in range(0, o.size, lanes):
        simd.store(o, d, simd.load(o, d) * factor)
