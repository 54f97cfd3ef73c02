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

from numba import get_thread_id

from .. import simd
from ..numba_setup import njit, prange
from . import signatures
from .apart import Apart
from .dropout import draw_row, drop_row
from .pack import clear_rows, pack_panels, pack_rows, row_at, row_step
from .rooms import BLOCK_Q, backward_sizes, of_keys, of_queries, words_of_keys, words_of_queries
from .softmax import LN2, LOG2_E, add_bias, hide, seen, softmax_backward_row
from .tiles import INNER, ROWS, WIDE, multiply, multiply_seen, spread
from .words import along, as_pairs, as_rows, either


@njit(no_cpython_wrapper=True)
def _pair(
    dout, dout_row, q, q_row, out, out_row, lse, bias, bias_sizes, has_bias, rule, scale, drop, word, pairs,
    keep, work, words, dq, first, j, T, S, D, width, finite_k,
):  # fmt: skip
    """A block of queries (first, ...) and a block of keys (j, ...): adds to dq, dk_ and dv_."""
    causal, offset, window = rule
    lanes = simd.lanes(work)
    vectors, panel = width // lanes, WIDE * lanes
    block_k = backward_sizes(S, width)
    n, count = min(BLOCK_Q, T - first), min(block_k, S - j)
    rows = (n + ROWS - 1) // ROWS * ROWS
    q_, dout_, delta, p_, ds_ = of_queries(work, block_k, width)
    keys, values, k_, dk_, dv_, _stage = of_keys(work, block_k, width)
    finite = pack_rows(q, q_row, n, D, q_, width, scale * LOG2_E)
    finite &= pack_rows(dout, dout_row, n, D, dout_, width, 1.0)
    clear_rows(q_, width, n, rows, width)
    clear_rows(dout_, width, n, rows, width)
    a1, a2, b1, b2, ds_words, c1, c2 = words_of_queries(words, block_k, width)
    q_a, dout_a = as_rows(q_, rows, width, width, a1), as_rows(dout_, rows, width, width, a2)
    q_b, dout_b = as_pairs(q_, n, width, width, b1), as_pairs(dout_, n, width, width, b2)
    b1, b2, b3 = words_of_keys(words, block_k, width)
    keys_b, values_b, k_b = either(keys, b1), either(values, b2), either(k_, b3)  # made by `_part`
    for i in range(n):  # delta_i = dout_i . out_i
        total = simd.zeros(q)
        for d in range(0, D, lanes):
            total = simd.fma(simd.load(dout_, i * width + d), simd.load_tail(out, i * out_row + d, D - d), total)
        simd.store(delta, i * lanes, simd.splat(simd.hsum(total), total))

    for r in range(0, n, ROWS):
        last = min(r + ROWS, n) - 1
        left = max(0, seen(first + r, S, rule)[0] - j) // panel * panel
        right = min(count, seen(first + last, S, rule)[1] - j)
        if left >= right:
            continue
        columns = (right - left + lanes - 1) // lanes
        to = left + columns * lanes
        s, ds = p_ + r * block_k, ds_ + r * block_k
        at, b_panel, k = along(left * width, words), along(panel * width, words), along(D, words)
        multiply(q_a + r * width, width, 1, keys_b + at, b_panel, panel, s + left, block_k, work, 0, 0, columns, k)
        multiply(dout_a + r * width, width, 1, values_b + at, b_panel, panel, ds + left, block_k, work, 0, 0, columns,
                 k)  # fmt: skip
        for i in range(r, last + 1):
            s_i, ds_i = p_ + i * block_k, ds_ + i * block_k
            if has_bias:
                step = 1 if bias_sizes[1] > 1 else 0
                extra = bias + ((first + i) % bias_sizes[0] * bias_sizes[1] + j * step)
                add_bias(s_i, left, to, extra, step, right)
            from_key, to_key = seen(first + i, S, rule)
            hide(s_i, left, to, from_key - j, min(to_key - j, count))
            if drop[2] > 0:
                draw_row(keep, pairs, word + (first + i) * S + j + left, to - left, drop)
                drop_row(ds_i + left, keep, to - left)
            softmax_backward_row(s_i, ds_i, left, to, spread(lse, i), simd.load(delta, i * lanes))
            if drop[2] > 0:
                drop_row(s_i + left, keep, to - left)
            for x in (s_i, ds_i):  # keys that none of these queries sees
                clear_rows(x, 0, 0, 1, left)
                clear_rows(x + to, 0, 0, 1, block_k - to)
        to_q = dq + r * width
        if finite_k:
            ds_a = as_rows(ds + left, last + 1 - r, block_k, to - left, ds_words)
            multiply(ds_a, block_k, 1, k_b + along(left, words) * width, panel, width, to_q, width, to_q, width, 1,
                     vectors, along(right - left, words))  # fmt: skip
        else:
            multiply_seen(ds + left, block_k, 1, k_ + left * width, panel, width, to_q, width, vectors, right - left,
                          ROWS)  # fmt: skip

    clear_rows(p_, block_k, n, n + n % 2, block_k)
    clear_rows(ds_, block_k, n, n + n % 2, block_k)
    p_b, ds_b = as_pairs(p_, n, block_k, block_k, c1), as_pairs(ds_, n, block_k, block_k, c2)
    for c in range(0, count, ROWS):  # of keys j + c, ...: queries low .. high - 1 see one of them
        low = max(0, j + c - offset - first) if causal else 0
        high = min(n, j + min(c + ROWS, count) - 1 + window - offset - first)
        if low >= high:
            continue
        to_v, to_k = dv_ + c * width, dk_ + c * width
        if finite:
            low = low // 2 * 2  # two queries to a word of bfloat16
            at, at_p, k = along(low, words) * width, along(low, words) * block_k + c, along(high - low, words)
            multiply(p_b + at_p, 1, block_k, dout_b + at, panel, width, to_v, width, to_v, width, 1, vectors, k)
            multiply(ds_b + at_p, 1, block_k, q_b + at, panel, width, to_k, width, to_k, width, 1, vectors, k)
        else:
            at, at_p, k = low * width, low * block_k + c, high - low
            multiply_seen(p_ + at_p, 1, block_k, dout_ + at, panel, width, to_v, width, vectors, k, ROWS)
            multiply_seen(ds_ + at_p, 1, block_k, q_ + at, panel, width, to_k, width, vectors, k, ROWS)


pair = Apart(_pair, signatures.pair)
_pair_apart = pair.call


@njit(no_cpython_wrapper=True)
def _part(
    dout, q, k, v, out, lse, bias, has_bias, rule, scale, drop, pairs, keep, work, words, partial, dk, dv, b, g, part
):  # fmt: skip
    """Part `part` of the key blocks of kv head g."""
    H, T, D = q.shape[1:]
    group, S, (parts, width) = H // k.shape[1], k.shape[2], (partial.shape[0], partial.shape[4])
    causal, offset, window = rule
    lanes = simd.lanes(work)
    block_k = backward_sizes(S, width)
    panel = WIDE * lanes
    blocks = (S + block_k - 1) // block_k
    keys, values, k_, dk_, dv_, stage = of_keys(work, block_k, width)
    size = partial.shape[3] * width
    dq = simd.pointer(partial) + ((part * q.shape[0] + b) * H + g * group) * size
    clear_rows(dq, width, 0, group * partial.shape[3], width)
    clear_rows(work, 0, 0, 1, panel)
    for turn in range((blocks + parts - 1) // parts):
        # Dealt to and fro, because with causal the first blocks have most queries.
        j = (turn * parts + (part if turn % 2 == 0 else parts - 1 - part)) * block_k
        count = min(block_k, S - j)
        if count <= 0:
            continue
        pack_panels(row_at(k, b, g, j), row_step(k), count, D, keys, stage)
        pack_panels(row_at(v, b, g, j), row_step(v), count, D, values, stage)
        finite = pack_rows(row_at(k, b, g, j), row_step(k), count, D, k_, width, 1.0)
        clear_rows(k_, width, count, count + count % 2, width)
        b1, b2, b3 = words_of_keys(words, block_k, width)
        as_pairs(keys, (count + panel - 1) // panel * width, panel, panel, b1)
        as_pairs(values, (count + panel - 1) // panel * width, panel, panel, b2)
        as_pairs(k_, count, width, width, b3)
        clear_rows(dk_, width, 0, block_k, width)
        clear_rows(dv_, width, 0, block_k, width)
        start = max(0, j - offset) // ROWS * ROWS if causal else 0  # the queries that see one of these keys
        stop = min(T, j + count - 1 + window - offset)
        for h in range(g * group, (g + 1) * group):
            for first in range(start, stop, BLOCK_Q):
                _pair_apart((
                    row_at(dout, b, h, first), row_step(dout), row_at(q, b, h, first), row_step(q),
                    row_at(out, b, h, first), row_step(out), simd.pointer(lse) + ((b * H + h) * T + first),
                    row_at(bias, b % bias.shape[0], h % bias.shape[1], 0), bias.shape[2:], has_bias, rule, scale,
                    drop, (b * H + h) * T * S, pairs, keep, work, words, dq + ((h - g * group) * size + first * width),
                    first, j, T, S, D, width, finite,
                ))  # fmt: skip
        for i in range(count):
            for d in range(0, D, lanes):
                dk_i, dv_i = simd.load(dk_, i * width + d) * LN2, simd.load(dv_, i * width + d)
                simd.store_tail(row_at(dk, b, g, j + i), d, dk_i, D - d)
                simd.store_tail(row_at(dv, b, g, j + i), d, dv_i, D - d)


@njit(**INNER)
def _sum_parts(partial, scale, dq, b, h):
    """dq = scale * (part 0 + part 1 + ...)"""
    parts, B, H, rows, width = partial.shape
    D = dq.shape[3]
    lanes = simd.lanes(partial)
    step = B * H * rows * width
    x = simd.pointer(partial) + (b * H + h) * rows * width
    to = row_at(dq, b, h, 0)
    for i in range(dq.shape[2]):
        for d in range(0, width, lanes):
            total = simd.load(x, i * width + d)
            for part in range(1, parts):
                total = total + simd.load(x, part * step + i * width + d)
            simd.store_tail(to, i * row_step(dq) + d, total * scale, D - d)


part = Apart(_part, signatures.part)
_part_apart = part.call


@njit(parallel=True)
def backward(dout, q, k, v, out, lse, bias, has_bias, rule, scale, drop, pairs, keep, work, words, partial, dq, dk, dv):
    """partial: (parts, B, H, T up to a multiple of ROWS, D up to whole vectors)"""
    B, H, _T = lse.shape
    heads_kv, parts = k.shape[1], partial.shape[0]
    for task in prange(B * heads_kv * parts):
        b, g, n = task // (heads_kv * parts), task // parts % heads_kv, task % parts
        thread = get_thread_id()
        mine, my_words = simd.pointer(work) + thread * work.shape[1], simd.pointer(words) + thread * words.shape[1]
        _part_apart((
            dout, q, k, v, out, lse, bias, has_bias, rule, scale, drop, pairs[thread], keep[thread], mine, my_words,
            partial, dk, dv, b, g, n,
        ))  # fmt: skip
    for task in prange(B * H):
        _sum_parts(partial, scale, dq, task // H, task % H)
