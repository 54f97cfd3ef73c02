"""Attention backward: P again from the scores and lse, then four more products. Formulas: reference.py.

One task for some blocks of keys of a kv head, which owns their dK and dV:

    for each block of keys:
        turn keys and values, copy the keys                read by all the queries
        for each block of queries that see them:
            for ROWS queries at a time:
                S = Q K^T,  dP = dOut V^T
                P = 2^(S - lse),  dS = P (dP - delta)      softmax.py
                dQ = dQ + dS K
            dV = dV + P^T dOut,  dK = dK + dS^T Q

A head's blocks of keys are dealt to `parts` tasks, so that few heads keep many threads busy. Each part adds to a dQ of
its own, and the parts are added at the end, in order: how many there are depends on the shapes alone, and so the bits
do not depend on the threads.
"""

from __future__ import annotations

import numpy as np
from numba import get_thread_id

from .. import simd
from ..numba_setup import njit, prange
from .pack import clear_rows, pack_panels, pack_rows, row_step
from .softmax import LN2, LOG2_E, add_bias, hide, seen, softmax_backward_row
from .tiles import ROWS, WIDE, multiply, multiply_seen

BLOCK_Q = 64
MANY = 16  # tasks that are enough for any number of threads this is made for


@njit
def backward_sizes(S, width):
    """Keys of a block: a multiple of ROWS and of a panel. What belongs to them fits into L2."""
    return min(128 if width <= 128 else 64, (S + 95) // 96 * 96)


@njit
def backward_parts(heads, S, width):
    """Into how many tasks the blocks of keys of a head are dealt."""
    block_k = backward_sizes(S, width)
    return max(1, min((S + block_k - 1) // block_k, MANY // max(heads, 1)))


@njit
def backward_words(S, width):
    """Numbers of workspace that a task needs; the order of the parts is that of `_part`."""
    block_k = backward_sizes(S, width)
    return 2 * BLOCK_Q * (width + block_k) + 5 * block_k * width + 16 * width + 16 * WIDE


@njit(parallel=True, error_model="numpy")
def backward(dout, q, k, v, out, lse, bias, has_bias, rule, scale, work, partial, dq, dk, dv):
    """partial: (parts, B, H, T up to a multiple of ROWS, D up to whole vectors)"""
    B, H, T, D = q.shape
    heads_kv, S = k.shape[1:3]
    parts = partial.shape[0]
    delta = np.empty((B, H, T), lse.dtype)
    for task in prange(B * H):
        _delta(dout, out, delta, task // H, task % H)
    for task in prange(B * heads_kv * parts):
        b, g, part = task // (heads_kv * parts), task // parts % heads_kv, task % parts
        _part(dout, q, k, v, lse, delta, bias, has_bias, rule, scale, work[get_thread_id()], partial, dk, dv, b, g, part)
    for task in prange(B * H):
        _sum_parts(partial, scale, dq, task // H, task % H)


@njit
def _delta(dout, out, delta, b, h):
    """delta_i = dout_i . out_i"""
    T, D = out.shape[2:]
    lanes = simd.lanes(out)
    x, y = simd.pointer(dout[b, h]), simd.pointer(out[b, h])
    for i in range(T):
        total = simd.zeros(out)
        for d in range(0, D, lanes):
            total = simd.fma(
                simd.load_tail(x, i * row_step(dout) + d, D - d), simd.load_tail(y, i * row_step(out) + d, D - d), total
            )
        delta[b, h, i] = simd.hsum(total)


@njit
def _sum_parts(partial, scale, dq, b, h):
    T, D = dq.shape[2:]
    parts = partial.shape[0]
    lanes = simd.lanes(partial)
    to = simd.pointer(dq[b, h])
    width = partial.shape[4]
    for i in range(T):
        for d in range(0, width, lanes):
            total = simd.load(simd.pointer(partial[0, b, h, i]), d)
            for part in range(1, parts):
                total = total + simd.load(simd.pointer(partial[part, b, h, i]), d)
            simd.store_tail(to, i * row_step(dq) + d, total * scale, D - d)


@njit(error_model="numpy")
def _part(dout, q, k, v, lse, delta, bias, has_bias, rule, scale, work, partial, dk, dv, b, g, part):
    """Part `part` of the key blocks of kv head g."""
    T, D = q.shape[2:]
    S, group = k.shape[2], q.shape[1] // k.shape[1]
    causal, offset, window = rule
    parts = partial.shape[0]
    lanes = simd.lanes(work)
    vectors = (D + lanes - 1) // lanes
    width, panel = vectors * lanes, WIDE * lanes
    block_k = backward_sizes(S, width)
    zeros = simd.pointer(work)
    q_ = zeros + panel  # (BLOCK_Q, width)
    dout_ = q_ + BLOCK_Q * width
    p_ = dout_ + BLOCK_Q * width  # (BLOCK_Q, block_k)
    ds_ = p_ + BLOCK_Q * block_k
    keys = ds_ + BLOCK_Q * block_k  # panels
    values = keys + block_k * width  # panels
    k_ = values + block_k * width  # (block_k, width)
    dk_ = k_ + block_k * width
    dv_ = dk_ + block_k * width
    stage = dv_ + block_k * width
    clear_rows(zeros, 0, 0, 1, panel)
    for h in range(g * group, (g + 1) * group):
        clear_rows(simd.pointer(partial[part, b, h]), width, 0, partial.shape[3], width)

    blocks = (S + block_k - 1) // block_k
    for n in range(part, (blocks + parts - 1) // parts * parts, parts):
        # Dealt to and fro, because with causal the first blocks have most queries.
        block = n if n // parts % 2 == 0 else n - part + parts - 1 - part
        if block >= blocks:
            continue
        j = block * block_k
        count = min(block_k, S - j)
        pack_panels(simd.pointer(k[b, g, j]), row_step(k), count, D, keys, stage)
        pack_panels(simd.pointer(v[b, g, j]), row_step(v), count, D, values, stage)
        finite_k = pack_rows(simd.pointer(k[b, g, j]), row_step(k), count, D, k_, width, 1.0)
        clear_rows(dk_, width, 0, block_k, width)
        clear_rows(dv_, width, 0, block_k, width)
        start = max(0, j - offset) // ROWS * ROWS if causal else 0
        stop = max(0, min(T, j + count - 1 + window - offset))
        for h in range(g * group, (g + 1) * group):
            dq = simd.pointer(partial[part, b, h])
            for first in range(start, stop, BLOCK_Q):
                n_q = min(BLOCK_Q, T - first)
                rows = (n_q + ROWS - 1) // ROWS * ROWS
                finite = pack_rows(simd.pointer(q[b, h, first]), row_step(q), n_q, D, q_, width, scale * LOG2_E)
                finite &= pack_rows(simd.pointer(dout[b, h, first]), row_step(dout), n_q, D, dout_, width, 1.0)
                clear_rows(q_, width, n_q, rows, width)
                clear_rows(dout_, width, n_q, rows, width)
                for r in range(0, n_q, ROWS):
                    last = min(r + ROWS, n_q) - 1
                    left = max(0, seen(first + r, S, rule)[0] - j) // panel * panel
                    right = min(count, seen(first + last, S, rule)[1] - j)
                    if left >= right:
                        continue
                    columns = (right - left + lanes - 1) // lanes
                    to = left + columns * lanes
                    s, ds = p_ + r * block_k, ds_ + r * block_k
                    multiply(q_ + r * width, width, 1, keys + left * width, panel * width, panel, s + left, block_k,
                             zeros, 0, 0, columns, D)  # fmt: skip
                    multiply(dout_ + r * width, width, 1, values + left * width, panel * width, panel, ds + left,
                             block_k, zeros, 0, 0, columns, D)  # fmt: skip
                    for i in range(last + 1 - r):
                        at = first + r + i
                        s_i, ds_i = s + i * block_k, ds + i * block_k
                        if has_bias:
                            extra = bias[b % bias.shape[0], h % bias.shape[1], at % bias.shape[2]]
                            step = 1 if extra.size > 1 else 0
                            add_bias(s_i, left, to, simd.pointer(extra) + j * step, step, right)
                        from_, until = seen(at, S, rule)
                        hide(s_i, left, to, from_ - j, min(until - j, count))
                        total = lse[b, h, at] * LOG2_E if lse[b, h, at] != -np.inf else np.inf
                        softmax_backward_row(s_i, ds_i, left, to, total, delta[b, h, at])
                        clear_rows(s_i, 0, 0, 1, left)
                        clear_rows(ds_i, 0, 0, 1, left)
                        clear_rows(s_i + to, 0, 0, 1, block_k - to)
                        clear_rows(ds_i + to, 0, 0, 1, block_k - to)
                    to_dq = dq + (first + r) * width
                    if finite_k:
                        multiply(ds + left, block_k, 1, k_ + left * width, panel, width, to_dq, width, to_dq, width, 1,
                                 vectors, right - left)  # fmt: skip
                    else:
                        multiply_seen(ds + left, block_k, 1, k_ + left * width, panel, width, to_dq, width, vectors,
                                      right - left)  # fmt: skip
                for c in range(0, count, ROWS):  # keys j + c, ...: queries low .. high - 1 see one of them
                    low = max(0, j + c - offset - first) if causal else 0
                    high = min(n_q, j + min(c + ROWS, count) - 1 + window - offset - first)
                    if low >= high:
                        continue
                    p, ds, x, y = p_ + low * block_k + c, ds_ + low * block_k + c, dout_ + low * width, q_ + low * width
                    to_v, to_k = dv_ + c * width, dk_ + c * width
                    if finite:
                        multiply(p, 1, block_k, x, panel, width, to_v, width, to_v, width, 1, vectors, high - low)
                        multiply(ds, 1, block_k, y, panel, width, to_k, width, to_k, width, 1, vectors, high - low)
                    else:
                        multiply_seen(p, 1, block_k, x, panel, width, to_v, width, vectors, high - low)
                        multiply_seen(ds, 1, block_k, y, panel, width, to_k, width, vectors, high - low)
        to_k, to_v = simd.pointer(dk[b, g, j]), simd.pointer(dv[b, g, j])
        for i in range(count):
            for d in range(0, D, lanes):
                simd.store_tail(to_k, i * row_step(dk) + d, simd.load(dk_, i * width + d) * LN2, D - d)
                simd.store_tail(to_v, i * row_step(dv) + d, simd.load(dv_, i * width + d), D - d)
    simd.keep_alive(work)
