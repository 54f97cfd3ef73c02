"""Packing: a block of a matrix, copied into the order in which tiles read it.

Two kinds of packed block, whatever the strides of the matrix:

    rows      one row after the other, each k long           A stored by rows: a plain copy
    panels    for each k the next w * lanes numbers side     B, and A stored by columns
              by side: [k][w * lanes], one panel after the other

A panel is read by the tile from front to back. What sticks out of the matrix is filled with zeros; nothing outside of
it is read. In words for bfloat16 (see tiles.py) two numbers that are neighbours along k are rounded and put together.
"""

from __future__ import annotations

from numba import types
from numba.extending import overload

from .. import simd
from .sizes import ROW_WORDS
from .tiles import panel_width

AHEAD = 8  # rows that are asked for before they are packed: rows far apart are not guessed by the hardware
LINE = 16  # float32 numbers in a cache line


def pack_rows(source, stride, n, k, words):
    """n rows of k numbers, source[r * stride + p]; ROW_WORDS words from one to the next, filled up to whole vectors."""


def pack_panels(source, stride, n, k, words, widest):
    """Panels of n columns, k long, of columns that lie side by side in memory: source[p * stride + j], j < n."""


def pack_panels_turned(source, stride, n, k, words, widest, square):
    """Panels of n columns, k long, of columns that lie one after the other: source[j * stride + p], turned on the way.

    Squares of lanes x lanes are transposed in registers; `square` is room for one. A square at the end of k writes
    beyond its panel: the next panel, packed after it, overwrites that, and after the last one there is room.
    """


@overload(pack_rows)
def _(source, stride, n, k, words):
    return _rows_of_pairs if words.dtype == types.int32 else _rows


@overload(pack_panels)
def _(source, stride, n, k, words, widest):
    return _panels_of_pairs if words.dtype == types.int32 else _panels


@overload(pack_panels_turned)
def _(source, stride, n, k, words, widest, square):
    return _panels_of_pairs_turned if words.dtype == types.int32 else _panels_turned


# ------------------------------------------------------------------------------------------ rows


def _rows(source, stride, n, k, words):
    lanes = simd.lanes(source)
    whole = k // lanes * lanes
    for r in range(n):
        row, to = source + r * stride, words + r * ROW_WORDS
        for p in range(0, whole, lanes):
            simd.store(to, p, simd.load(row, p))
        if whole < k:
            simd.store(to, whole, simd.load_tail(row, whole, k - whole))


def _rows_of_pairs(source, stride, n, k, words):
    lanes = simd.lanes(source)
    whole = k // (2 * lanes) * (2 * lanes)
    for r in range(n):
        row, to = source + r * stride, words + r * ROW_WORDS
        for p in range(0, whole, 2 * lanes):
            simd.store(to, p // 2, simd.pack_row(simd.load(row, p), simd.load(row, p + lanes)))
        if whole < k:
            low, high = simd.load_tail(row, whole, k - whole), simd.load_tail(row, whole + lanes, k - whole - lanes)
            simd.store(to, whole // 2, simd.pack_row(low, high))


# ---------------------------------------------------------------------------------------- panels
# Row by row over all panels: memory is read in the order in which it lies.


def _panels(source, stride, n, k, words, widest):
    lanes = simd.lanes(source)
    vectors = (n + lanes - 1) // lanes
    for p in range(k):
        row = source + p * stride
        for j in range(0, n, LINE):
            simd.prefetch(row, AHEAD * stride + j)
        v = 0
        while v < vectors:
            w = panel_width(vectors - v, widest)
            for u in range(w):
                j = (v + u) * lanes
                x = simd.load(row, j) if j + lanes <= n else simd.load_tail(row, j, n - j)
                simd.store(words, (v * k + p * w + u) * lanes, x)
            v += w


def _panels_of_pairs(source, stride, n, k, words, widest):
    lanes = simd.lanes(source)
    vectors, pairs = (n + lanes - 1) // lanes, (k + 1) // 2
    for p in range(pairs):
        row = source + 2 * p * stride
        second = row + stride
        n_second = n if 2 * p + 1 < k else 0  # the last of an odd number of rows has no second: zeros
        for j in range(0, n, LINE):
            simd.prefetch(row, AHEAD * stride + j)
            simd.prefetch(second, AHEAD * stride + j)
        v = 0
        while v < vectors:
            w = panel_width(vectors - v, widest)
            for u in range(w):
                j = (v + u) * lanes
                x = simd.load(row, j) if j + lanes <= n else simd.load_tail(row, j, n - j)
                y = simd.load(second, j) if j + lanes <= n_second else simd.load_tail(second, j, n_second - j)
                simd.store(words, (v * pairs + p * w + u) * lanes, simd.pack_pairs(x, y))
            v += w


# -------------------------------------------------------------------------------- panels, turned


def _panels_turned(source, stride, n, k, words, widest, square):
    lanes = simd.lanes(source)
    vectors = (n + lanes - 1) // lanes
    v = 0
    while v < vectors:
        w = panel_width(vectors - v, widest)
        for u in range(w):
            j = (v + u) * lanes
            for p in range(0, k, lanes):
                to = words + (v * k + p * w + u) * lanes
                if j + lanes <= n and p + lanes <= k:
                    simd.transpose(source + (j * stride + p), stride, to, w * lanes)
                else:
                    for q in range(lanes):
                        left = k - p if j + q < n else 0
                        simd.store(square, q * lanes, simd.load_tail(source, (j + q) * stride + p, left))
                    simd.transpose(square, lanes, to, w * lanes)
        v += w


def _panels_of_pairs_turned(source, stride, n, k, words, widest, square):
    lanes = simd.lanes(source)
    vectors, pairs = (n + lanes - 1) // lanes, (k + 1) // 2
    v = 0
    while v < vectors:
        w = panel_width(vectors - v, widest)
        for u in range(w):
            j = (v + u) * lanes
            for p in range(0, pairs, lanes):
                for q in range(lanes):
                    row = source + ((j + q) * stride + 2 * p)
                    left = k - 2 * p if j + q < n else 0
                    if left >= 2 * lanes:
                        low, high = simd.load(row, 0), simd.load(row, lanes)
                    else:
                        low, high = simd.load_tail(row, 0, left), simd.load_tail(row, lanes, left - lanes)
                    simd.store(square, q * lanes, simd.pack_row(low, high))
                simd.transpose(square, lanes, words + (v * pairs + p * w + u) * lanes, w * lanes)
        v += w
