"""The register tile in the sizes that a product needs, for numbers and for pairs of bfloat16.

A tile computes ROWS x (w * lanes) numbers of C, w = 1 .. WIDEST vectors wide, with all its sums in registers; see
`make_tile` in vector/tile.py. The packed blocks of A and B hold *words*: the numbers themselves, or, for bfloat16, an
int32 with two of them that are neighbours along k. The type of the pointer to the words says which, and `@overload`
picks the code at compile time.
"""

from __future__ import annotations

from numba import types
from numba.extending import overload

from .. import simd
from ..numba_setup import njit
from .sizes import ROWS

_TILES = [simd.make_tile(rows, w) for rows in (ROWS, 1) for w in (1, 2, 3)]
_TILES_BF16 = [simd.make_tile_bf16(rows, w) for rows in (ROWS, 1) for w in (1, 2, 3)]


@njit
def panel_width(left: int, widest: int) -> int:
    """How many vectors wide the next panel is when `left` vectors remain: 3, 3, ...

    But 4 = 2 + 2 rather than 3 + 1: a tile one vector wide waits for its loads.
    """
    return 2 if left == 4 and widest == 3 else min(left, widest)


def numbers_per_word(words):
    """2 where words are pairs of bfloat16, else 1."""


@overload(numbers_per_word)
def _(words):
    return (lambda words: 2) if words.dtype == types.int32 else (lambda words: 1)


def multiply_tile(w, a, a_row, a_step, b, c, c_row, d, d_row, k):
    """C = D + A @ B for one tile, w vectors wide; k words of A and of a packed panel of B."""


def multiply_row(w, a, a_step, b, c, d, k):
    """The same for a tile of one row: what is left of A, or a vector, at an eighth of the cost."""


@overload(multiply_tile)
def _(w, a, a_row, a_step, b, c, c_row, d, d_row, k):
    tile1, tile2, tile3, *_ = _TILES_BF16 if a.dtype == types.int32 else _TILES

    def multiply(w, a, a_row, a_step, b, c, c_row, d, d_row, k):
        lanes = simd.lanes(c)
        if w == 3:
            tile3(a, a_row, a_step, b, 3 * lanes, c, c_row, d, d_row, k)
        elif w == 2:
            tile2(a, a_row, a_step, b, 2 * lanes, c, c_row, d, d_row, k)
        else:
            tile1(a, a_row, a_step, b, lanes, c, c_row, d, d_row, k)

    return multiply


@overload(multiply_row)
def _(w, a, a_step, b, c, d, k):
    *_, tile1, tile2, tile3 = _TILES_BF16 if a.dtype == types.int32 else _TILES

    def multiply(w, a, a_step, b, c, d, k):
        lanes = simd.lanes(c)
        if w == 3:
            tile3(a, 0, a_step, b, 3 * lanes, c, 0, d, 0, k)
        elif w == 2:
            tile2(a, 0, a_step, b, 2 * lanes, c, 0, d, 0, k)
        else:
            tile1(a, 0, a_step, b, lanes, c, 0, d, 0, k)

    return multiply
