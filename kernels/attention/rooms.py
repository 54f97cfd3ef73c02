"""How large the blocks are, and where the parts of a task's workspace lie in it.

width is the head dim up to whole vectors; sizes are in numbers, or in words of two bfloat16. The larger a block of
keys, the less often each query is visited; but what is packed for it has to stay in L2 (1 MB).
"""

from __future__ import annotations

from .. import simd
from ..numba_setup import njit
from .tiles import INNER, ROWS, WIDE, keys_of_block

BLOCK_Q = 64  # queries of a block in the backward pass
MANY = 16  # tasks of the backward pass that are enough for any number of threads this is made for


@njit
def forward_sizes(T, S, width):
    """(queries, keys) of a block. The packed keys and values fit into L2."""
    most = 256 if width <= 64 else 128 if width <= 128 else 64
    return min(128, (T + ROWS - 1) // ROWS * ROWS), keys_of_block(most, S)


@njit
def forward_words(T, S, width):
    """Numbers of workspace that a task needs."""
    block_q, block_k = forward_sizes(T, S, width)
    return block_q * (2 * width + 32) + 16 * 16 + 2 * block_k * width + ROWS * block_k + 16 * max(width, 16) + 16 * WIDE


@njit
def forward_bf16_words(T, S, width):
    """Words of bfloat16 that a task needs beside that."""
    block_q, block_k = forward_sizes(T, S, width)
    return block_q * width + block_k * width + ROWS * block_k + width


@njit(**INNER)
def forward_rooms(work, block_q, block_k, width):
    """q_, o_ (block_q, width), m_, l_ (block_q, lanes), keys (panels), values (block_k, width), s_ (ROWS, block_k), and
    room for a transpose; before them, zeros."""
    lanes = simd.lanes(work)
    q_ = work + 16 * WIDE
    m_ = q_ + 2 * block_q * width
    keys = m_ + (2 * block_q + lanes) * lanes
    s_ = keys + 2 * block_k * width
    return q_, q_ + block_q * width, m_, m_ + block_q * lanes, keys, keys + block_k * width, s_, s_ + ROWS * block_k


@njit(**INNER)
def forward_rooms_bf16(words, block_q, block_k, width):
    """For keys, values and p_; before them, for q_."""
    keys = words + block_q * width
    return keys, keys + block_k * width // 2, keys + block_k * width


@njit
def backward_sizes(S, width):
    """Keys of a block: what belongs to them fits into L2."""
    return keys_of_block(128 if width <= 128 else 64, S)


@njit
def backward_parts(heads, S, width):
    """Into how many tasks the blocks of keys of a head are dealt."""
    block_k = backward_sizes(S, width)
    return max(1, min((S + block_k - 1) // block_k, MANY // max(heads, 1)))


@njit
def backward_words(S, width):
    """Numbers of workspace that a task needs."""
    block_k = backward_sizes(S, width)
    return BLOCK_Q * (2 * width + 2 * block_k + 16) + 5 * block_k * width + 16 * width + 16 * WIDE


@njit
def backward_bf16_words(S, width):
    """Words of bfloat16 that a task needs beside that."""
    block_k = backward_sizes(S, width)
    return BLOCK_Q * (3 * width + 2 * block_k) + 2 * block_k * width + width + block_k


@njit(**INNER)
def of_keys(work, block_k, width):
    """keys, values (panels), k_, dk_, dv_ (block_k, width), stage; before them, zeros and what `of_queries` gives."""
    keys = work + (16 * WIDE + BLOCK_Q * (2 * width + 2 * block_k + 16))
    size = block_k * width
    return keys, keys + size, keys + 2 * size, keys + 3 * size, keys + 4 * size, keys + 5 * size


@njit(**INNER)
def of_queries(work, block_k, width):
    """q_, dout_ (BLOCK_Q, width), delta (BLOCK_Q, lanes), p_, ds_ (BLOCK_Q, block_k)"""
    q_ = work + 16 * WIDE
    dout_ = q_ + BLOCK_Q * width
    delta_ = dout_ + BLOCK_Q * width
    p_ = delta_ + BLOCK_Q * 16
    return q_, dout_, delta_, p_, p_ + BLOCK_Q * block_k


@njit(**INNER)
def words_of_keys(words, block_k, width):
    """Room for keys, values, k_; before it, room for what `words_of_queries` gives."""
    keys = words + BLOCK_Q * (3 * width + 2 * block_k) + width + block_k
    size = block_k * width // 2
    return keys, keys + size, keys + 2 * size


@njit(**INNER)
def words_of_queries(words, block_k, width):
    """Room for q_ and dout_ as A (rows), as B (pairs), then ds_ as A and p_, ds_ turned."""
    q_a, size = words, BLOCK_Q * width
    q_b = q_a + 2 * size + width
    ds_a = q_b + size
    p_b = ds_a + BLOCK_Q * block_k + block_k
    return q_a, q_a + size, q_b, q_b + size // 2, ds_a, p_b, p_b + BLOCK_Q * block_k // 2
