"""Packing: rows of q, k, v and dout, copied into the order in which tiles read them; and what finds a row.

    rows      row after row, `row` numbers apart: D channels and zeros up to whole vectors
    panels    keys turned: [panel][channel][WIDE * lanes keys], the B operand of Q K^T; zeros after the last key

Copies are cheap: each is read by all the queries (or keys) of a block. In return no tile sticks out of anything,
vectors do not straddle cache lines, and NaN is found before it spreads.
"""

from __future__ import annotations

from .. import simd
from ..numba_setup import njit
from .tiles import INNER, WIDE


@njit(**INNER)
def row_step(x):
    """Elements from a row of x (B, H, T, D) to the next."""
    return x.strides[2] // x.itemsize


@njit(**INNER)
def row_at(x, b, h, i):
    """Pointer to row i of x[b, h], an array of any strides."""
    return simd.pointer(x) + (b * x.strides[0] + h * x.strides[1] + i * x.strides[2]) // x.itemsize


@njit(**INNER)
def pack_rows(source, stride, n, D, to, row, factor):
    """n rows of D numbers, times factor; True if none is NaN or infinite."""
    lanes = simd.lanes(source)
    whole = D // lanes * lanes
    zero = simd.zeros(source)
    for i in range(n):
        x_i, to_i = source + i * stride, to + i * row
        for d in range(0, whole, lanes):
            x = simd.load(x_i, d)
            zero = simd.fma(x, 0.0, zero)  # stays 0 until a NaN or an infinity comes
            simd.store(to_i, d, x * factor)
        if whole < D:
            x = simd.load_tail(x_i, whole, D - whole)
            zero = simd.fma(x, 0.0, zero)
            simd.store(to_i, whole, x * factor)
    return simd.all_lanes(zero == 0.0)


@njit(**INNER)
def unpack_row(x, D, to, factor):
    """to[:D] = x * factor, x of whole vectors, `factor` a vector."""
    lanes = simd.lanes(x)
    whole = D // lanes * lanes
    for d in range(0, whole, lanes):
        simd.store(to, d, simd.load(x, d) * factor)
    if whole < D:  # apart, because a store of some lanes takes longer
        simd.store_tail(to, whole, simd.load(x, whole) * factor, D - whole)


@njit(**INNER)
def clear_rows(to, row, first, last, width):
    """Rows first .. last - 1 are zeros, `width` numbers (whole vectors) of each."""
    for i in range(first, last):
        for d in range(0, width, simd.lanes(to)):
            simd.store(to, i * row + d, simd.zeros(to))


@njit(**INNER)
def pack_panels(source, stride, n, D, to, stage):
    """n keys in panels. Squares of lanes x lanes are turned in registers; `stage` holds lanes rows of them where they
    are at an edge."""
    lanes = simd.lanes(source)
    width = (D + lanes - 1) // lanes * lanes
    panel = WIDE * lanes
    for j in range(0, (n + panel - 1) // panel * panel, lanes):
        here, step = source + j * stride, stride
        if j + lanes > n or width > D:
            pack_rows(here, stride, min(lanes, n - j), D, stage, width, 1.0)
            clear_rows(stage, width, max(0, n - j), lanes, width)
            here, step = stage, width
        for d in range(0, width, lanes):
            simd.transpose(here + d, step, to + (j // panel * width + d) * panel + j % panel, panel)
