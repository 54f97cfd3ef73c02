"""A few rows times a B whose columns lie one after the other: a text written token by token, x W^T.

Each number of B is used once or a few times, and what takes the time is to read it from memory. So B is read once, in
the order in which it lies there, and never packed: C[i, j] is the dot product of two rows of memory.
"""

from __future__ import annotations

from .. import simd
from ..numba_setup import njit
from .activation import NONE, activate


@njit
def few_rows(
    a, a_row, b, b_column, c, c_row, d, d_row, d_column, out, out_row, activation, rows, columns, depth
):  # fmt: skip
    """`fused_block` for a_step = b_step = 1. Each number of C is summed in an order that depends on depth alone."""
    for j in range(columns):
        column = b + j * b_column
        for i in range(rows):
            total = simd.number(d, i * d_row + j * d_column) + simd.hsum(_dot(a + i * a_row, column, depth))
            simd.store_tail(c, i * c_row + j, simd.splat(total, c), 1)
    if activation != NONE:
        activate(activation, c, c_row, out, out_row, rows, columns)


@njit(inline="always")
def _dot(x, y, n):
    """The lanes of four sums side by side, added: x . y is their sum."""
    lanes = simd.lanes(x)
    s0 = s1 = s2 = s3 = simd.zeros(x)
    k = 0
    while k + 4 * lanes <= n:
        s0 = simd.fma(simd.load(x, k), simd.load(y, k), s0)
        s1 = simd.fma(simd.load(x, k + lanes), simd.load(y, k + lanes), s1)
        s2 = simd.fma(simd.load(x, k + 2 * lanes), simd.load(y, k + 2 * lanes), s2)
        s3 = simd.fma(simd.load(x, k + 3 * lanes), simd.load(y, k + 3 * lanes), s3)
        k += 4 * lanes
    while k < n:
        s0 = simd.fma(simd.load_tail(x, k, n - k), simd.load_tail(y, k, n - k), s0)
        k += lanes
    return (s0 + s1) + (s2 + s3)
