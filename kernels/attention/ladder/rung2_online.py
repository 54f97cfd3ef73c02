"""Rung 2: one pass over the keys; the scores are never stored (Milakov and Gimelshein 2018, "Online normalizer
calculation for softmax").

Per query: m, the largest score so far, l = sum of exp(s - m), o = sum of exp(s - m) v. A key whose score is larger than
m makes all that was summed before smaller: l and o are multiplied by exp(m - s).

Memory is no longer the limit, and causal ends the loop early. But it is slower, because it is one number at a time,
where NumPy's product worked on vectors: the sum of a dot product is a chain of additions, 4 cycles each, and every key
costs a call of exp.

Reached: 3 % of the limit, causal 3 %.    Run: python -m bench ladder attention
"""

from __future__ import annotations

import math

import numpy as np

from ...numba_setup import njit, prange


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = False) -> np.ndarray:
    """q (B, H, T, D), k, v (B, H, S, D) -> out (B, H, T, D)"""
    out = np.empty_like(q)
    _attention(q, k, v, causal, np.float32(q.shape[-1] ** -0.5), out)
    return out


@njit(parallel=True, error_model="numpy")
def _attention(q, k, v, causal, scale, out):
    B, H, T, D = q.shape
    for head in prange(B * H):
        b, h = head // H, head % H
        for i in range(T):
            o = out[b, h, i]
            o[:] = 0
            m, l = -np.inf, 0.0
            for j in range(min(i + 1, k.shape[2]) if causal else k.shape[2]):
                s = np.float32(0)
                for d in range(D):
                    s += q[b, h, i, d] * k[b, h, j, d]
                s *= scale
                if s > m:
                    factor = math.exp(m - s)
                    m, l = s, l * factor
                    for d in range(D):
                        o[d] *= factor
                p = math.exp(s - m)
                l += p
                for d in range(D):
                    o[d] += p * v[b, h, j, d]
            for d in range(D):
                o[d] /= l
