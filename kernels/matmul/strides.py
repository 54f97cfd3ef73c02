"""What a product looks like to the compiled code: addresses, strides and sizes.

NumPy arrays are of many kinds to Numba (C order, Fortran order, strided, read-only, of each number of dims), and it
compiles a function again for each. So the compiled code sees an array as its first element, which is always an array
of one kind, and its strides, in elements.
"""

from __future__ import annotations

import numpy as np


class _Writable:
    """The memory of a read-only array, without the mark: compiled code reads it and nothing more."""

    def __init__(self, x: np.ndarray):
        self.__array_interface__ = {**x.__array_interface__, "data": (x.__array_interface__["data"][0], False)}
        self.kept = x


def operand(x: np.ndarray) -> tuple[np.ndarray, int, int]:
    """(first element, stride of the rows, stride of the columns), one of the strides 1; of the last two dims of x.

    x has no size of 0. Where neither its rows nor its columns lie side by side in memory, it is copied.
    """
    flags = x.flags
    if x.ndim == 2:  # the two common kinds, quickly
        if flags.carray:  # in C order, aligned, writable
            return x, x.shape[1], 1
        if flags.f_contiguous and flags.behaved:  # (flags.farray is true for strided arrays, too)
            return x.T, 1, x.shape[0]
    size = x.itemsize
    (row, column), (M, N) = x.strides[-2:], x.shape[-2:]
    if not flags.aligned or (column != size and row != size and M != 1 and N != 1):
        return operand(np.array(x, order="C"))
    row, column = row // size, column // size
    if row != 1 and column != 1:  # the stride of a dim of size 1 has no meaning
        if N == 1:
            column = 1
        else:
            row = 1
    return first_element(x), row, column


def first_element(x: np.ndarray) -> np.ndarray:
    """A (1, 1) view of the first element, in C order and writable as far as Numba can see; x has no size of 0."""
    if not x.flags.writeable:
        x = np.asarray(_Writable(x))
    if x.ndim > 2:
        x = x[(0,) * (x.ndim - 2)]
    return x[:1, :1]


def copied_if_needed(x: np.ndarray) -> np.ndarray:
    """x, or the copy that `operand` would make: for batches, whose strides are needed too."""
    (row, column), (M, N) = x.strides[-2:], x.shape[-2:]
    fits = x.flags.aligned and (column == x.itemsize or row == x.itemsize or M == 1 or N == 1)
    return x if fits else np.array(x, order="C")


NO_BATCH = np.zeros((0, 4), np.int64)


def batch_axes(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(axes, 4) int64: of each batch axis its size, and the strides of a, b, c in elements, 0 where they broadcast."""
    shape = c.shape[:-2]
    if not shape:
        return NO_BATCH
    table = [list(shape)]
    for x in (a, b, c):
        extent, strides = x.shape[:-2], x.strides[:-2]
        padding = len(shape) - len(extent)
        table.append([0] * padding + [0 if n == 1 else s // x.itemsize for n, s in zip(extent, strides)])
    return np.array(table, np.int64).T.copy()
