"""Few queries against many keys, as in generation with a cache: every key and value is read once, from memory, and that
is what takes the time. So nothing is packed, and the threads share the keys:

    one task for each CUT keys of a kv head: for each query of each head that reads them
        s_j = q . k_j                     the key's row times the query's, and the sum over lanes
        p = 2^(s - m),  l,  o = p V       as in forward.py
    the tasks' (m, l, o) are merged in order: o = sum_c 2^(m_c - m) o_c, and l likewise

The cuts depend on S alone, and so the bits do not depend on the threads.
"""

from __future__ import annotations

import numpy as np
from numba import get_thread_id

from .. import simd
from ..numba_setup import njit, prange
from . import signatures
from .apart import Apart
from .dropout import draw_row, drop_row
from .pack import pack_rows, row_at, row_step
from .softmax import LN2, LOG2_E, add_bias, exp2, hide, seen, softmax_row
from .tiles import INNER, WIDE, add_row, multiply_seen

CUT = 512  # keys of a task
QUERIES = 4  # up to so many; forward.py is faster from there on


@njit
def decode_words(D):
    """Numbers of workspace that a task needs: a query, the scores, squares of sums."""
    return D + CUT + 2 * 16 * 16


@njit(**INNER)
def _dots(q, k, k_row, n, D, s, sums):
    """s_j = q . k_j for j < n (up to whole vectors). D is a multiple of the lanes.

    The products of one key stay in lanes; the sums over lanes of `lanes` keys at once are those of a square's columns.
    """
    lanes = simd.lanes(q)
    turned = sums + lanes * lanes
    for j in range(0, n, lanes):
        for i in range(min(lanes, n - j)):
            k_j = k + (j + i) * k_row
            x, y = simd.zeros(q), simd.zeros(q)
            for d in range(0, D - lanes, 2 * lanes):
                x = simd.fma(simd.load(q, d), simd.load(k_j, d), x)
                y = simd.fma(simd.load(q, d + lanes), simd.load(k_j, d + lanes), y)
            if D // lanes % 2:
                x = simd.fma(simd.load(q, D - lanes), simd.load(k_j, D - lanes), x)
            simd.store(sums, i * lanes, x + y)
        simd.transpose(sums, lanes, turned, lanes)
        total = simd.load(turned, 0)
        for i in range(1, lanes):
            total = total + simd.load(turned, i * lanes)
        simd.store(s, j, total)


@njit(**INNER)
def _finite_rows(x, stride, n, D):
    zero = simd.zeros(x)
    for i in range(n):
        for d in range(0, D, simd.lanes(x)):
            zero = simd.fma(simd.load(x, i * stride + d), 0.0, zero)
    return simd.all_lanes(zero == 0.0)


@njit(no_cpython_wrapper=True)
def _cut(q, k, v, bias, has_bias, rule, scale, drop, pairs, keep, work, parts, b, g, cut):
    """Keys cut * CUT, ... of kv head g. parts (cuts, B, H, T, lanes + lanes + D): m, l and o of each query."""
    H, T, D = q.shape[1:]
    S, group = k.shape[2], H // k.shape[1]
    lanes = simd.lanes(work)
    q_, s, sums = work, work + D, work + (D + CUT)
    j = cut * CUT
    count = min(CUT, S - j)
    values = row_at(v, b, g, j)
    finite = _finite_rows(values, row_step(v), count, D)
    for h in range(g * group, (g + 1) * group):
        for i in range(T):
            m = simd.pointer(parts) + (((cut * q.shape[0] + b) * H + h) * T + i) * parts.shape[4]
            l, o = m + lanes, m + 2 * lanes
            simd.store(m, 0, simd.splat(-np.inf, m))
            for d in range(lanes, 2 * lanes + D, lanes):
                simd.store(m, d, simd.zeros(m))
            start, stop = seen(i, S, rule)
            left, right = max(0, start - j) // lanes * lanes, min(stop - j, count)
            if left >= right:
                continue
            to = (right + lanes - 1) // lanes * lanes
            pack_rows(row_at(q, b, h, i), 0, 1, D, q_, D, scale * LOG2_E)
            _dots(q_, row_at(k, b, g, j + left), row_step(k), right - left, D, s + left, sums)
            if has_bias:
                step = 1 if bias.shape[3] > 1 else 0
                extra = row_at(bias, b % bias.shape[0], h % bias.shape[1], i % bias.shape[2])
                add_bias(s, left, to, extra + j * step, step, right)
            hide(s, left, to, start - j, right)
            softmax_row(s, left, to, m, l, o, 0)
            if drop[2] > 0:
                draw_row(keep, pairs, ((b * H + h) * T + i) * S + j + left, to - left, drop)
                drop_row(s + left, keep, to - left)
            if finite:
                add_row(s + left, values + left * row_step(v), row_step(v), o, D // lanes, right - left)
            else:
                multiply_seen(s + left, 0, 1, values + left * row_step(v), WIDE * lanes, row_step(v), o, 0,
                              D // lanes, right - left, 1)  # fmt: skip


cut = Apart(_cut, signatures.cut)
_cut_apart = cut.call


@njit(parallel=True)
def decode(q, k, v, bias, has_bias, rule, scale, drop, pairs, keep, work, parts, out, lse):
    """D is a multiple of the lanes."""
    B, H, T, D = q.shape
    heads_kv, cuts = k.shape[1], parts.shape[0]
    for task in prange(B * heads_kv * cuts):
        b, g, c = task // (heads_kv * cuts), task // cuts % heads_kv, task % cuts
        thread = get_thread_id()
        mine = simd.pointer(work) + thread * work.shape[1]
        _cut_apart((q, k, v, bias, has_bias, rule, scale, drop, pairs[thread], keep[thread], mine, parts, b, g, c))
    for row in range(B * H * T):
        b, h, i = row // (H * T), row // T % H, row % T
        _merge(parts, row, row_at(out, b, h, i), D, simd.pointer(lse) + row)


@njit(**INNER)
def _merge(parts, row, out, D, lse):
    lanes = simd.lanes(parts)
    size = parts.shape[4]
    step = parts.size // parts.shape[0]
    first = simd.pointer(parts) + row * size
    top, total = simd.splat(-np.inf, parts), simd.zeros(parts)
    for c in range(parts.shape[0]):
        top = simd.maximum(simd.load(first, c * step), top)
    shift = simd.select(top > -np.inf, top, 0.0)
    for c in range(parts.shape[0]):
        total = total + simd.load(first, c * step + lanes) * exp2(simd.load(first, c * step) - shift)
    total = simd.splat(simd.hsum(total), parts)
    simd.store_tail(lse, 0, top * LN2 + simd.log(total), 1)
    factor = simd.select(total == 0.0, 0.0, 1.0 / total)
    for d in range(0, D, lanes):
        x = simd.zeros(parts)
        for c in range(parts.shape[0]):
            weight = exp2(simd.load(first, c * step) - shift)
            x = simd.fma(simd.load(first, c * step + 2 * lanes + d), weight, x)
        simd.store(out, d, x * factor)
    simd.keep_alive(parts)
