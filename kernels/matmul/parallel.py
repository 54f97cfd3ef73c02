"""Products on all threads: of one matrix, cut into parts, or of many, shared out."""

from __future__ import annotations

import numpy as np

from .. import simd
from ..numba_setup import njit, prange
from .block import fused_block
from .cut import cut, part, workers_for
from .few_rows import few_rows
from .sizes import FEW, ROWS
from .tiles import numbers_per_word


@njit(parallel=True)
def products(
    a, a_row, a_step, b, b_step, b_column, c, c_row, d, d_row, d_column, accumulate, out, out_row, activation,
    rows, columns, depth, batch, work, tile_work,
):  # fmt: skip
    """`fused_block` on all threads, for each matrix of a batch.

    a, b, c, d, out     arrays of which the first element counts (see strides.py)
    accumulate          D is C: it moves along with C over the batch, where otherwise it is the same for all
    batch (axes, 4)     of each batch axis: size, strides of a, b and c (out lies like c)
    work, tile_work     (threads, WORK), (threads, TILE_WORK)
    """
    matrices = 1
    for axis in range(batch.shape[0]):
        matrices *= batch[axis, 0]
    workers = workers_for(rows, columns, depth, matrices, work.shape[0])
    row_parts, column_parts = cut(rows, columns, matrices, workers, simd.lanes(c))
    tasks = matrices * row_parts * column_parts
    if workers == 1:
        first = tasks - tasks  # a 0 of the type that the other call has: one compilation less
        _some(first, tasks, row_parts, column_parts,
              a, a_row, a_step, b, b_step, b_column, c, c_row, d, d_row, d_column, accumulate, out, out_row,
              activation, rows, columns, depth, batch, work[0], tile_work[0])  # fmt: skip
    else:
        for w in prange(workers):
            _some(w * tasks // workers, (w + 1) * tasks // workers, row_parts, column_parts,
                  a, a_row, a_step, b, b_step, b_column, c, c_row, d, d_row, d_column, accumulate, out, out_row,
                  activation, rows, columns, depth, batch, work[w], tile_work[w])  # fmt: skip


@njit
def _some(
    first, last, row_parts, column_parts, a, a_row, a_step, b, b_step, b_column, c, c_row, d, d_row, d_column,
    accumulate, out, out_row, activation, rows, columns, depth, batch, work, tile_work,
):  # fmt: skip
    """Tasks first .. last - 1: task t is a part of matrix t // (parts of a matrix)."""
    parts = row_parts * column_parts
    m, n = part(rows, row_parts, ROWS), part(columns, column_parts, simd.lanes(c))
    few = rows <= FEW and a_step == 1 and b_step == 1 and numbers_per_word(work) == 1  # of all rows, not of a part's
    for task in range(first, last):
        at_a, at_b, at_c = _offsets(task // parts, batch)
        i, j = task % parts // column_parts * m, task % column_parts * n
        if i < rows and j < columns:
            at_c += i * c_row + j
            at_d = at_c if accumulate else i * d_row + j * d_column
            at_out = at_c + i * (out_row - c_row)
            if few:
                few_rows(
                    simd.pointer(a) + (at_a + i * a_row), a_row, simd.pointer(b) + (at_b + j * b_column), b_column,
                    simd.pointer(c) + at_c, c_row, simd.pointer(d) + at_d, d_row, d_column,
                    simd.pointer(out) + at_out, out_row, activation, rows, min(n, columns - j), depth,
                )  # fmt: skip
                continue
            fused_block(
                simd.pointer(a) + (at_a + i * a_row), a_row, a_step,
                simd.pointer(b) + (at_b + j * b_column), b_step, b_column,
                simd.pointer(c) + at_c, c_row, simd.pointer(d) + at_d, d_row, d_column,
                simd.pointer(out) + at_out, out_row, activation,
                min(m, rows - i), min(n, columns - j), depth, simd.pointer(work), simd.pointer(tile_work),
            )  # fmt: skip


@njit
def _offsets(matrix, batch):
    """Where matrix number `matrix` of the batch begins in a, b and c."""
    at_a = at_b = at_c = np.int64(0)
    for axis in range(batch.shape[0] - 1, -1, -1):
        size = batch[axis, 0]
        index = matrix % size
        matrix //= size
        at_a += index * batch[axis, 1]
        at_b += index * batch[axis, 2]
        at_c += index * batch[axis, 3]
    return at_a, at_b, at_c
