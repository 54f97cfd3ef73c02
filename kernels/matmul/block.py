"""The product of two blocks on one thread: the loops around the tile. `product_block` is what other kernels call.

The loops, from outside to inside, and where their block lives (float32, 16 lanes):

    k       384 at a time
    columns 384 at a time    pack B   384 x 384    590 KB, L2, used by all rows      (more columns where k is short)
    rows     96 at a time    pack A    96 x 384    150 KB, L2, used by all columns of the block
    panels   48 columns               384 x 48     74 KB of B, streams from L2, used by 12 tiles
    tiles     8 rows         C          8 x 48     24 registers; 384 steps along k
"""

from __future__ import annotations

from .. import simd
from ..numba_setup import njit
from .activation import NONE, activate
from .pack import pack_panels, pack_panels_turned, pack_rows
from .sizes import A_AT, B_WORDS, BLOCK_ROWS, DEPTH, ROW_WORDS, ROWS, SQUARE_AT, WIDEST, ZEROS_AT
from .tiles import multiply_row, multiply_tile, numbers_per_word, panel_width


@njit
def product_block(a, a_row, a_step, b, b_step, b_column, c, c_row, rows, columns, depth, accumulate, work, tile_work):
    """C = A @ B, or C += A @ B, on this thread, for pointers of one floating dtype; strides in elements.

        C[i, j] = c[i * c_row + j]                  i < rows, j < columns
        A[i, k] = a[i * a_row + k * a_step]         k < depth; a_row or a_step must be 1
        B[k, j] = b[k * b_step + j * b_column]      b_step or b_column must be 1

    work        pointer to WORK words, from `sizes.workspace`; words of int32 give products of bfloat16
    tile_work   pointer to TILE_WORK numbers of C's dtype, from the same place
    Each number of C is summed in the same order whatever rows and columns there are.
    """
    if accumulate:
        fused_block(a, a_row, a_step, b, b_step, b_column, c, c_row, c, c_row, 1, c, c_row, NONE,
                    rows, columns, depth, work, tile_work)  # fmt: skip
    else:
        fused_block(a, a_row, a_step, b, b_step, b_column, c, c_row, tile_work + ZEROS_AT, 0, 0, c, c_row, NONE,
                    rows, columns, depth, work, tile_work)  # fmt: skip


@njit
def fused_block(
    a, a_row, a_step, b, b_step, b_column, c, c_row, d, d_row, d_column, out, out_row, activation,
    rows, columns, depth, work, tile_work,
):  # fmt: skip
    """C = D + A @ B, then out = activation(C), tile by tile while C is in L1; arguments as `product_block`'s, and

        D[i, j] = d[i * d_row + j * d_column]       a bias: 0, 1; C itself: c_row, 1; nothing: a row of zeros, 0, 0
        out[i, j] = out[i * out_row + j]            may be C itself; not written for activation NONE
    """
    lanes = simd.lanes(c)
    k_most = even_step(depth, DEPTH * numbers_per_word(work), 16 * numbers_per_word(work))
    in_l2 = B_WORDS * lanes // simd.LANES32 * numbers_per_word(work) // k_most // (WIDEST * lanes) * (WIDEST * lanes)
    j_most = even_step(columns, in_l2, WIDEST * lanes)
    k0 = 0
    while k0 == 0 or k0 < depth:  # once for depth 0: C = D
        k = min(k_most, depth - k0)
        for j0 in range(0, columns, j_most):
            n = min(j_most, columns - j0)
            from_b = b + (k0 * b_step + j0 * b_column)
            if b_column == 1:
                pack_panels(from_b, b_step, n, k, work, WIDEST)
            else:
                pack_panels_turned(from_b, b_column, n, k, work, WIDEST, work + SQUARE_AT)
            to, to_out = c + j0, out + j0
            if k0 == 0:
                start, start_row, start_column = d + j0 * d_column, d_row, d_column
            else:
                start, start_row, start_column = to, c_row, 1
            last_activation = activation if k0 + k >= depth else NONE
            _all_rows(a + k0 * a_step, a_row, a_step, to, c_row, start, start_row, start_column, to_out, out_row,
                      last_activation, rows, n, k, work, tile_work)  # fmt: skip
        k0 += k_most


@njit(inline="always")
def _all_rows(a, a_row, a_step, c, c_row, d, d_row, d_column, out, out_row, activation, rows, n, k, work, tile_work):
    """All rows of A times the block of B that is packed in `work`."""
    lanes = simd.lanes(c)
    packed = work + A_AT
    words = (k + numbers_per_word(work) - 1) // numbers_per_word(work)
    vectors = (n + lanes - 1) // lanes
    for i0 in range(0, rows, BLOCK_ROWS):
        m = min(BLOCK_ROWS, rows - i0)
        if a_step == 1:
            pack_rows(a + i0 * a_row, a_row, m, k, packed)
        else:
            pack_panels(a + i0, a_step, m, k, packed, max(lanes, ROWS) // lanes)
        v = 0
        while v < vectors:
            w = panel_width(vectors - v, WIDEST)
            for r in range(0, m, ROWS):
                i, j = i0 + r, v * lanes
                at, row, step = (r * ROW_WORDS, ROW_WORDS, 1) if a_step == 1 else _in_panel(r, m, words, lanes)
                _tile(w, packed + at, row, step, work + v * lanes * words,
                      c + (i * c_row + j), c_row, d + (i * d_row + j * d_column), d_row,
                      min(ROWS, m - r), min(w * lanes, n - j), words, tile_work)  # fmt: skip
                if activation != NONE:
                    activate(activation, c + (i * c_row + j), c_row, out + (i * out_row + j), out_row,
                             min(ROWS, m - r), min(w * lanes, n - j))  # fmt: skip
            v += w


@njit
def _in_panel(r, m, words, lanes):
    """Row r of m rows packed as panels: where it begins, how far to the next row and to the next k."""
    width = max(lanes, ROWS)
    first = r // width * width
    return first * words + r - first, 1, min(width, (m - first + lanes - 1) // lanes * lanes)


@njit
def _tile(w, a, a_row, a_step, b, c, c_row, d, d_row, m, n, words, tile_work):
    """One tile: m x n numbers of it are part of C. One that sticks out is made beside C and copied."""
    lanes = simd.lanes(c)
    if m == ROWS and n == w * lanes:
        multiply_tile(w, a, a_row, a_step, b, c, c_row, d, d_row, words)
        return
    _copy(d, d_row, tile_work, w * lanes, m, n)
    if m == 1:
        multiply_row(w, a, a_step, b, tile_work, tile_work, words)
    else:
        multiply_tile(w, a, a_row, a_step, b, tile_work, w * lanes, tile_work, w * lanes, words)
    _copy(tile_work, w * lanes, c, c_row, m, n)


@njit
def _copy(source, source_row, to, to_row, m, n):
    lanes = simd.lanes(source)
    for r in range(m):
        for j in range(0, n, lanes):
            simd.store_tail(to, r * to_row + j, simd.load_tail(source, r * source_row + j, n - j), n - j)


@njit
def even_step(total: int, most: int, multiple: int) -> int:
    """The step that cuts `total` into as few parts as `most` allows, of about one size, a multiple of `multiple`."""
    parts = max(1, (total + most - 1) // most)
    return max(1, (total + parts * multiple - 1) // (parts * multiple)) * multiple
