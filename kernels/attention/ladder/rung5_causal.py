"""Rung 5: no work for what causal hides.

Blocks of keys after the last query are not visited, and in the block on the diagonal each 8 queries are computed only
as far as the last of them sees keys: a tile is 16 keys wide, so that 8 queries waste some 12 keys instead of half a
block. For that, softmax and second product follow at once for each 8 queries, whose scores stay in L1. And o is
rescaled only where a larger score came, which gets rare after the first blocks.

Reached: 60 % of the limit, causal 57 %.    Run: python -m bench ladder attention
"""

from __future__ import annotations

import numpy as np

from ... import simd
from ...numba_setup import njit, prange
from .padding import padded
from .rung4_tiles import BLOCK, ROWS, _tile


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
    keys, s = np.empty((D, BLOCK), np.float32), np.empty((ROWS, BLOCK), np.float32)
    m, l, zeros = np.full(BLOCK, -np.inf, np.float32), np.zeros(BLOCK, np.float32), np.zeros(lanes, np.float32)
    q_, k_, s_, v_, o_ = (simd.pointer(q[first]), simd.pointer(keys), simd.pointer(s), simd.pointer(v),
                          simd.pointer(out[first]))  # fmt: skip
    for j in range(0, min(S, first + BLOCK) if causal else S, BLOCK):
        for c in range(BLOCK):
            for d in range(D):
                keys[d, c] = k[j + c, d]
        for r in range(0, BLOCK, ROWS):
            seen = min(BLOCK, (min(S, first + r + ROWS) if causal else S) - j)
            for c in range(0, seen, lanes):
                _tile(q_ + r * D, D, 1, k_ + c, BLOCK, s_ + c, BLOCK, simd.pointer(zeros), 0, D)
            for i in range(ROWS):
                stop = min(S, first + r + i + 1) if causal else S
                _softmax_row(s[i], seen, stop - j, scale, m, l, r + i, out[first + r + i])
            for d in range(0, D, lanes):
                o = o_ + (r * D + d)
                _tile(s_, BLOCK, 1, v_ + (j * D + d), D, o, D, o, D, seen)
    for i in range(BLOCK):
        out[first + i] /= l[i]
    simd.keep_alive(keys)
    simd.keep_alive(zeros)


@njit(error_model="numpy")
def _softmax_row(s, width, seen, scale, m, l, i, o):
    """As in rung 4, of the first `width` keys; o is left alone if the maximum did not grow."""
    lanes = simd.lanes(s)
    top = simd.splat(m[i], s)
    for c in range(0, width, lanes):
        x = simd.load(s, c) * scale
        if c + lanes > seen:
            x = simd.select(simd.iota(s) + c < seen, x, -np.inf)
        simd.store(s, c, x)
        top = simd.maximum(top, x)
    old, new = m[i], simd.hmax(top)
    total = simd.zeros(s)
    for c in range(0, width, lanes):
        p = simd.exp(simd.load(s, c) - new)
        simd.store(s, c, p)
        total = total + p
    if new > old:
        factor = np.exp(old - new)
        m[i], l[i] = new, l[i] * factor
        for d in range(0, o.size, lanes):
            simd.store(o, d, simd.load(o, d) * factor)
    l[i] += simd.hsum(total)
