"""Embedding in Numba: rows copied in parallel; gradients sorted by id, then each id's rows summed by one thread.

Sorting is counting: how many rows each id has tells where they go, in two looks at the indices. Then the rows of an id
lie in a run, in the order they came. Work is cut by columns and runs, never inside a sum, so threads do not show in the
result; cutting by columns keeps the work even when one id has most of the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import simd
from ..blocks import BLOCK, SMALL
from ..checks import contiguous
from ..numba_setup import njit, prange
from . import outside

NARROW, WIDE = 64, 512  # columns that are summed at a time, at least and at most: 0.5 to 4 KB of float64
ROWS = 256  # at least, in a piece of the sorted rows


def embedding_forward(indices: Any, weight: Any) -> Any:
    if weight.size == 0 or not weight.flags.carray:  # strided: NumPy copies no more than the rows asked for
        _check(indices, weight.shape[0])
        return weight[indices]
    out = np.empty((*indices.shape, weight.shape[1]), weight.dtype)
    ids = _ids(indices)
    bad = _forward(ids, weight, out.reshape(ids.size, weight.shape[1]))
    if bad >= 0:
        raise outside(ids[bad], weight.shape[0])
    return out


@njit(parallel=True)
def _forward(ids, weight, out):
    """The position of the first id outside the table, or -1."""
    bad = _first_outside(ids, weight.shape[0])
    if bad >= 0:
        return bad
    rows = max(1, BLOCK // weight.shape[1])
    if out.size <= SMALL:
        _copy_rows(ids, weight, out, 0, ids.size)
    else:
        for b in prange((ids.size + rows - 1) // rows):
            _copy_rows(ids, weight, out, b * rows, min((b + 1) * rows, ids.size))
    return bad


@njit
def _copy_rows(ids, weight, out, start, stop):
    n, D = simd.lanes(weight), weight.shape[1]
    rest = D % n
    for i in range(start, stop):
        source, target = simd.pointer(weight) + ids[i] * D, simd.pointer(out) + i * D
        for j in range(0, D - rest, n):
            simd.store(target, j, simd.load(source, j))
        if rest:
            simd.store_tail(target, D - rest, simd.load_tail(source, D - rest, rest), rest)


@njit
def _first_outside(ids, count):
    for i in range(ids.size):
        if ids[i] < 0 or ids[i] >= count:
            return i
    return -1


def _ids(indices: Any) -> Any:
    return contiguous(indices.astype(np.int64, copy=False)).reshape(-1)


def _check(indices: Any, count: int) -> None:
    ids = _ids(indices)
    bad = _first_outside(ids, count)
    if bad >= 0:
        raise outside(ids[bad], count)


# -------------------------------------------------------------------------------------------- backward


def embedding_backward(dout: Any, indices: Any, count: int, padding: int, out: Any) -> Any:
    ids, D = _ids(indices), dout.shape[-1]
    direct = out is not None and out.flags.carray
    table = out if direct else np.zeros((count, D), dout.dtype)
    bad = _backward(contiguous(dout).reshape(ids.size, D), ids, padding, table)
    if bad >= 0:
        raise outside(ids[bad], count)
    if out is not None and not direct:
        out += table
    return table if out is None else out


@njit(parallel=True)
def _backward(dout, ids, padding, table):
    bad = _first_outside(ids, table.shape[0])
    if bad >= 0:
        return bad
    order = _sorted(ids, padding, table.shape[0])
    D = table.shape[1]
    width = min(max((D // 2 + 15) // 16 * 16, NARROW), WIDE)  # half a row, where that is in bounds
    columns = (D + width - 1) // width
    if dout.size <= SMALL:
        _sum_runs(dout, ids, order, table, 0, order.size, 0, D)
    else:
        pieces = max(1, order.size // ROWS)
        for task in prange(columns * pieces):
            piece = task % pieces
            start, stop = _run_start(ids, order, piece, pieces), _run_start(ids, order, piece + 1, pieces)
            first = task // pieces * width
            _sum_runs(dout, ids, order, table, start, stop, first, min(first + width, D))
    return bad


@njit
def _sorted(ids, padding, count):
    """The positions of ids in rising order of id, equal ones as they came; those of `padding` are left out."""
    place = np.zeros(count + 1, np.int64)
    for i in range(ids.size):
        place[ids[i] + 1] += ids[i] != padding
    for v in range(count):
        place[v + 1] += place[v]
    order = np.empty(place[count], np.int64)
    for i in range(ids.size):
        if ids[i] != padding:
            order[place[ids[i]]] = i
            place[ids[i]] += 1
    return order


@njit
def _run_start(ids, order, piece, pieces):
    """Where the sorted rows are cut in front of this piece: at the first run that begins in its even share."""
    i = piece * order.size // pieces
    while 0 < i < order.size and ids[order[i]] == ids[order[i - 1]]:
        i += 1
    return i


@njit
def _sum_runs(dout, ids, order, table, start, stop, first, last):
    """table[v, first:last] += sum of dout[i, first:last] over each run of equal ids v in order[start:stop]."""
    total = np.empty(last - first, np.float64)
    while start < stop:
        v = ids[order[start]]
        target = table[v, first:last]
        for j in range(total.size):
            total[j] = target[j]
        run = start
        while run < stop and ids[order[run]] == v:
            run += 1
        while start + 4 <= run:  # four rows at once: their cache misses overlap
            a, b = dout[order[start], first:last], dout[order[start + 1], first:last]
            c, d = dout[order[start + 2], first:last], dout[order[start + 3], first:last]
            for j in range(total.size):
                total[j] += (np.float64(a[j]) + np.float64(b[j])) + (np.float64(c[j]) + np.float64(d[j]))
            start += 4
        while start < run:
            row = dout[order[start], first:last]
            for j in range(total.size):
                total[j] += row[j]
            start += 1
        for j in range(total.size):
            target[j] = total[j]
