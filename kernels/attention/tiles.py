"""Products of the attention kernels, made of register tiles (see vector/tile.py): ROWS rows of C at a time.

All five products of forward and backward have the same form, with their operands where they lie:

    S  = Q K^T       A = q rows            B = keys in panels           C = scores
    O += P V         A = p rows            B = value rows
    dV += P^T dOut   A = p columns         B = dout rows                (a tile reads one number of A at a time,
    dK += dS^T Q     A = ds columns        B = q rows                    so P and dS are never transposed)
    dQ += dS K       A = ds rows           B = key rows

B is walked in panels of WIDE vectors: `b_panel` numbers from one panel to the next, `b_row` from one k to the next.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from .. import simd
from ..numba_setup import njit

# Options of functions that only kernels call: less to compile.
INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

# A tile of 8 x 2 vectors has 16 sums in registers, enough to hide the latency of fma, and 10 loads for 16 fmas. Wider
# ones are no faster here, and two vectors fit head dims of 32, 64, 128. CPUs with 16 registers take 4 x 3.
ROWS, WIDE = (8, 2) if simd.TILE_ROWS == 8 else (4, 3)
UNIT = 32 if WIDE == 2 else 96  # blocks of keys are whole panels and whole rows of tiles, for all numbers of lanes

_TILES = tuple(simd.make_tile(ROWS, w) for w in range(1, WIDE + 1))
_TILES_BF16 = tuple(simd.make_tile_bf16(ROWS, w) for w in range(1, WIDE + 1))
_row1, _row4 = (simd.make_tile(1, w) for w in (1, 4))  # one query


@njit(**INNER)
def spread(p, i):
    """The number p[i] in every lane."""
    return simd.splat(simd.hsum(simd.load_tail(p, i, 1)), p)


@njit
def keys_of_block(most, S):
    """Keys of a block: about `most`, not many more than there are."""
    return min(max(most // UNIT, 1), (S + UNIT - 1) // UNIT) * UNIT


def _tile(w, a, a_row, a_step, b, b_row, c, c_row, d, d_row, k):
    """A tile of w <= WIDE vectors, of numbers or, where a and b point to int32, of pairs of bfloat16."""


@overload(_tile)
def _(w, a, a_row, a_step, b, b_row, c, c_row, d, d_row, k):
    tiles = _TILES_BF16 if a.dtype == types.int32 else _TILES
    narrow, middle, wide = tiles[0], tiles[1], tiles[-1]

    def tile(w, a, a_row, a_step, b, b_row, c, c_row, d, d_row, k):
        if w == WIDE:
            wide(a, a_row, a_step, b, b_row, c, c_row, d, d_row, k)
        elif w == 1:
            narrow(a, a_row, a_step, b, b_row, c, c_row, d, d_row, k)
        elif WIDE > 2:
            middle(a, a_row, a_step, b, b_row, c, c_row, d, d_row, k)

    return tile


@njit(**INNER)
def multiply(a, a_row, a_step, b, b_panel, b_row, c, c_row, d, d_row, d_step, vectors, k):
    """ROWS rows of C = D + A @ B, `vectors` vectors wide.

    d_step 0: D is one row of WIDE vectors of zeros (with d_row 0); d_step 1: D is a matrix, usually C itself.
    """
    lanes = simd.lanes(c)
    for v in range(0, vectors, WIDE):
        at = v * lanes
        w = min(WIDE, vectors - v)
        _tile(w, a, a_row, a_step, b + v // WIDE * b_panel, b_row, c + at, c_row, d + at * d_step, d_row, k)


@njit(**INNER)
def multiply_seen(a, a_row, a_step, b, b_panel, b_row, c, c_row, vectors, k, rows):
    """`rows` rows of C += A @ B where a zero in A skips its row of B: 0 * NaN and 0 * inf stay out. Slow, rarely used.

    The same sums in the same order as `multiply`: other rows keep their bits when a row of B becomes NaN.
    """
    lanes = simd.lanes(c)
    for r in range(rows):
        for v in range(vectors):
            p = b + (v // WIDE * b_panel + v % WIDE * lanes)
            total = simd.zeros(c)
            for i in range(k):
                weight = spread(a, r * a_row + i * a_step)
                if not simd.all_lanes(weight == 0.0):
                    total = simd.fma(weight, simd.load(p, i * b_row), total)
            at = r * c_row + v * lanes
            simd.store(c, at, total + simd.load(c, at))


@njit(**INNER)
def add_row(a, b, b_row, c, vectors, k):
    """One row of C += A @ B, with B where it is."""
    lanes = simd.lanes(c)
    whole = vectors // 4 * 4
    for v in range(0, whole, 4):
        _row4(a, 0, 1, b + v * lanes, b_row, c + v * lanes, 0, c + v * lanes, 0, k)
    for v in range(whole, vectors):
        _row1(a, 0, 1, b + v * lanes, b_row, c + v * lanes, 0, c + v * lanes, 0, k)
