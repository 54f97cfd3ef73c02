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
from .softmax import LN2, LOG2_E, add_bias, hide, seen, softmax_backward_row
from .tiles import INNER, ROWS, WIDE, multiply, multiply_seen, spread

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
    return BLOCK_Q * (2 * width + 2 * block_k + 16) + 5 * block_k * width + 16 * width + 16 * WIDE


@njit(**INNER)
def _of_keys(work, block_k, width):
    """keys, values (panels), k_, dk_, dv_ (block_k, width), stage; before them, zeros and what `_of_queries` gives."""
    keys = work + (16 * WIDE + BLOCK_Q * (2 * width + 2 * block_k + 16))
    size = block_k * width
    return keys, keys + size, keys + 2 * size, keys + 3 * size, keys + 4 * size, keys + 5 * size


@njit(**INNER)
def _of_queries(work, block_k, width):
    """q_, dout_ (BLOCK_Q, width), delta (BLOCK_Q, lanes), p_, ds_ (BLOCK_Q, block_k)"""
    q_ = work + 16 * WIDE
    dout_ = q_ + BLOCK_Q * width
    delta_ = dout_ + BLOCK_Q * width
    p_ = delta_ + BLOCK_Q * 16
    return q_, dout_, delta_, p_, p_ + BLOCK_Q * block_k


@njit(no_cpython_wrapper=True)
def _pair(
    dout, dout_row, q, q_row, out, out_row, lse, bias, bias_sizes, has_bias, rule, scale, drop, word, pairs,
    keep, work, dq, first, j, T, S, D, width, finite_k,
):  # fmt: skip
    """A block of queries (first, ...) and a block of keys (j, ...): adds to dq, dk_ and dv_."""
    causal, offset, window = rule
    lanes = simd.lanes(work)
    vectors, panel = width // lanes, WIDE * lanes
    block_k = backward_sizes(S, width)
    n, count = min(BLOCK_Q, T - first), min(block_k, S - j)
    rows = (n + ROWS - 1) // ROWS * ROWS
    q_, dout_, delta, p_, ds_ = _of_queries(work, block_k, width)
    keys, values, k_, dk_, dv_, _stage = _of_keys(work, block_k, width)
    finite = pack_rows(q, q_row, n, D, q_, width, scale * LOG2_E)
    finite &= pack_rows(dout, dout_row, n, D, dout_, width, 1.0)
    clear_rows(q_, width, n, rows, width)
    clear_rows(dout_, width, n, rows, width)
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
        multiply(q_ + r * width, width, 1, keys + left * width, panel * width, panel, s + left, block_k,
                 work, 0, 0, columns, D)  # fmt: skip
        multiply(dout_ + r * width, width, 1, values + left * width, panel * width, panel, ds + left, block_k,
                 work, 0, 0, columns, D)  # fmt: skip
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
            multiply(ds + left, block_k, 1, k_ + left * width, panel, width, to_q, width, to_q, width, 1, vectors,
                     right - left)  # fmt: skip
        else:
            multiply_seen(ds + left, block_k, 1, k_ + left * width, panel, width, to_q, width, vectors, right - left,
                          ROWS)  # fmt: skip

    for c in range(0, count, ROWS):  # of keys j + c, ...: queries low .. high - 1 see one of them
        low = max(0, j + c - offset - first) if causal else 0
        high = min(n, j + min(c + ROWS, count) - 1 + window - offset - first)
        if low < high:
            at, at_k = low * width, low * block_k + c
            for a, b, to in ((p_, dout_, dv_), (ds_, q_, dk_)):
                x = to + c * width
                if finite:
                    multiply(a + at_k, 1, block_k, b + at, panel, width, x, width, x, width, 1, vectors, high - low)
                else:
                    multiply_seen(a + at_k, 1, block_k, b + at, panel, width, x, width, vectors, high - low, ROWS)


pair = Apart(_pair, signatures.pair)
_pair_apart = pair.call


@njit(no_cpython_wrapper=True)
def _part(
    dout, q, k, v, out, lse, bias, has_bias, rule, scale, drop, pairs, keep, work, partial, dk, dv, b, g, part
):  # fmt: skip
    """Part `part` of the key blocks of kv head g."""
    H, T, D = q.shape[1:]
    group, S, (parts, width) = H // k.shape[1], k.shape[2], (partial.shape[0], partial.shape[4])
    causal, offset, window = rule
    lanes = simd.lanes(work)
    block_k = backward_sizes(S, width)
    blocks = (S + block_k - 1) // block_k
    keys, values, k_, dk_, dv_, stage = _of_keys(work, block_k, width)
    size = partial.shape[3] * width
    dq = simd.pointer(partial) + ((part * q.shape[0] + b) * H + g * group) * size
    clear_rows(dq, width, 0, group * partial.shape[3], width)
    clear_rows(work, 0, 0, 1, WIDE * lanes)
    for turn in range((blocks + parts - 1) // parts):
        # Dealt to and fro, because with causal the first blocks have most queries.
        j = (turn * parts + (part if turn % 2 == 0 else parts - 1 - part)) * block_k
        count = min(block_k, S - j)
        if count <= 0:
            continue
        pack_panels(row_at(k, b, g, j), row_step(k), count, D, keys, stage)
        pack_panels(row_at(v, b, g, j), row_step(v), count, D, values, stage)
        finite = pack_rows(row_at(k, b, g, j), row_step(k), count, D, k_, width, 1.0)
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
                    drop, (b * H + h) * T * S, pairs, keep, work, dq + ((h - g * group) * size + first * width),
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
def backward(dout, q, k, v, out, lse, bias, has_bias, rule, scale, drop, pairs, keep, work, partial, dq, dk, dv):
    """partial: (parts, B, H, T up to a multiple of ROWS, D up to whole vectors)"""
    B, H, _T = lse.shape
    heads_kv, parts = k.shape[1], partial.shape[0]
    for task in prange(B * heads_kv * parts):
        b, g, n = task // (heads_kv * parts), task // parts % heads_kv, task % parts
        thread = get_thread_id()
        mine = simd.pointer(work) + thread * work.shape[1]
        _part_apart((
            dout, q, k, v, out, lse, bias, has_bias, rule, scale, drop, pairs[thread], keep[thread], mine, partial,
            dk, dv, b, g, n,
        ))  # fmt: skip
    for task in prange(B * H):
        _sum_parts(partial, scale, dq, task // H, task % H)
