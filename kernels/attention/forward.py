"""Attention forward: one task for each block of queries.

    for each block of keys that the queries see:
        turn the keys, copy the values                     read by all the queries of the block
        for ROWS queries at a time:                        their scores stay in L1
            S = Q K^T                                      as far as these queries see keys
            P = 2^(S - m), rescale O where m grew          softmax.py
            O = O + P V

Nothing of size T x S exists, and nothing is shared between tasks.
"""

from __future__ import annotations

import numpy as np
from numba import get_thread_id

from .. import simd
from ..numba_setup import njit, prange
from . import signatures
from .apart import Apart
from .dropout import draw_row, drop_row
from .pack import clear_rows, pack_panels, pack_rows, row_at, row_step, unpack_row
from .rooms import forward_rooms, forward_rooms_bf16, forward_sizes
from .softmax import LN2, LOG2_E, add_bias, hide, seen, softmax_row
from .tiles import ROWS, WIDE, multiply, multiply_seen, spread
from .words import along, as_pairs, as_rows


@njit(no_cpython_wrapper=True)
def _block(
    q, q_row, k, k_row, v, v_row, T, S, D, first, rule, scale, bias, bias_sizes, has_bias, drop, word, pairs, keep,
    work, words, out, out_row, lse,
):  # fmt: skip
    """Queries first, first + 1, ... of a head."""
    lanes = simd.lanes(work)
    vectors = (D + lanes - 1) // lanes
    width, panel = vectors * lanes, WIDE * lanes
    block_q, block_k = forward_sizes(T, S, width)
    n = min(block_q, T - first)
    rows = (n + ROWS - 1) // ROWS * ROWS
    q_, o_, m_, l_, keys, values, s_, stage = forward_rooms(work, block_q, block_k, width)
    keys_words, values_words, p_words = forward_rooms_bf16(words, block_q, block_k, width)  # after q's
    clear_rows(work, 0, 0, 1, panel)
    clear_rows(o_, width, 0, rows, width)
    clear_rows(l_, lanes, 0, rows, lanes)
    for i in range(n):
        simd.store(m_, i * lanes, simd.splat(-np.inf, m_))
    pack_rows(q, q_row, n, D, q_, width, scale * LOG2_E)
    clear_rows(q_, width, n, rows, width)
    q_a = as_rows(q_, rows, width, width, words)

    from_key, to_key = seen(first, S, rule)[0], seen(first + n - 1, S, rule)[1]
    for j in range(from_key // panel * panel, to_key, block_k):
        count = min(block_k, S - j)
        pack_panels(k + j * k_row, k_row, count, D, keys, stage)
        finite = pack_rows(v + j * v_row, v_row, count, D, values, width, 1.0)
        clear_rows(values, width, count, count + count % 2, width)
        keys_b = as_pairs(keys, (count + panel - 1) // panel * width, panel, panel, keys_words)
        values_b = as_pairs(values, count, width, width, values_words)
        for r in range(0, n, ROWS):
            last = min(r + ROWS, n) - 1
            left = max(0, seen(first + r, S, rule)[0] - j) // panel * panel
            right = min(count, seen(first + last, S, rule)[1] - j)
            if left >= right:
                continue
            columns = (right - left + lanes - 1) // lanes
            to = left + columns * lanes
            multiply(q_a + r * width, width, 1, keys_b + along(left * width, words), along(panel * width, words), panel,
                     s_ + left, block_k, work, 0, 0, columns, along(D, words))  # fmt: skip
            for i in range(r, last + 1):
                s = s_ + (i - r) * block_k
                if has_bias:
                    step = 1 if bias_sizes[1] > 1 else 0
                    extra = bias + ((first + i) % bias_sizes[0] * bias_sizes[1] + j * step)
                    add_bias(s, left, to, extra, step, right)
                start, stop = seen(first + i, S, rule)
                hide(s, left, to, start - j, min(stop - j, count))
                softmax_row(s, left, to, m_ + i * lanes, l_ + i * lanes, o_ + i * width, width)
                if drop[2] > 0:
                    draw_row(keep, pairs, word + (first + i) * S + j + left, to - left, drop)
                    drop_row(s + left, keep, to - left)
            o = o_ + r * width
            if finite:
                p_a = as_rows(s_ + left, last + 1 - r, block_k, to - left, p_words)
                multiply(p_a, block_k, 1, values_b + along(left, words) * width, panel, width, o, width, o, width, 1,
                         vectors, along(right - left, words))  # fmt: skip
            else:
                multiply_seen(s_ + left, block_k, 1, values + left * width, panel, width, o, width,
                              vectors, right - left, ROWS)  # fmt: skip

    for r in range(0, n, lanes):  # l and m of `lanes` rows, turned: one logarithm for all of them
        simd.transpose(l_ + r * lanes, lanes, stage, lanes)
        total = simd.load(stage, 0)
        for i in range(1, lanes):
            total = total + simd.load(stage, i * lanes)
        simd.transpose(m_ + r * lanes, lanes, stage, lanes)
        log_sum = simd.load(stage, 0) * LN2 + simd.log(total)  # -inf where nothing was seen
        simd.store_tail(lse, r, log_sum, n - r)
        simd.store(stage, 0, simd.select(total == 0.0, 0.0, 1.0 / total))
        for i in range(r, min(r + lanes, n)):
            unpack_row(o_ + i * width, D, out + i * out_row, spread(stage, i - r))


block = Apart(_block, signatures.block)
_block_apart = block.call


@njit(parallel=True)
def forward(q, k, v, bias, has_bias, rule, scale, drop, pairs, keep, work, words, out, lse):
    B, H, T, D = q.shape
    group, S = H // k.shape[1], k.shape[2]
    lanes = simd.lanes(work)
    block_q = forward_sizes(T, S, (D + lanes - 1) // lanes * lanes)[0]
    blocks = (T + block_q - 1) // block_q
    for task in prange(B * H * blocks):
        b, h, n = task // (H * blocks), task // blocks % H, task % blocks
        # With causal the last blocks have most to do. First, last, second, last but one: each thread gets as much.
        first = (n // 2 if n % 2 == 0 else blocks - 1 - n // 2) * block_q
        _block_apart((
            row_at(q, b, h, first), row_step(q), row_at(k, b, h // group, 0), row_step(k),
            row_at(v, b, h // group, 0), row_step(v), T, S, D, first, rule, scale,
            row_at(bias, b % bias.shape[0], h % bias.shape[1], 0), bias.shape[2:], has_bias,
            drop, (b * H + h) * T * S, pairs[get_thread_id()], keep[get_thread_id()],
            simd.pointer(work) + get_thread_id() * work.shape[1],
            simd.pointer(words) + get_thread_id() * words.shape[1], row_at(out, b, h, first), row_step(out),
            simd.pointer(lse) + ((b * H + h) * T + first),
        ))  # fmt: skip
