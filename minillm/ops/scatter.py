"""Adding at indices that may repeat: what the gradient of every look-up needs. In place, bit for bit repeatable."""

from __future__ import annotations

from typing import Any

import numpy as np

WIDE = 128  # numbers in a row; from about there on, sorting beats NumPy's add.at, several times over if rows repeat


def add_at(xp: Any, target: Any, index: tuple, values: Any) -> None:
    """target[index] += values, where an element that is named twice receives both values.

    index is a tuple, values has the shape of target[index]. On CuPy, target is contiguous, or the index is one array.
    """
    by_rows = len(index) == 1 and index[0].dtype.kind in "iu"
    if xp is np and by_rows and target[:1].size >= WIDE:
        add_rows(target, index[0], values)
    elif xp.__name__ != "cupy":
        xp.add.at(target, index, values)
    elif by_rows:
        add_without_atomics(xp, target, index[0], values)
    else:  # any index is a set of places in flat memory
        places = xp.arange(target.size).reshape(target.shape)[index]
        add_without_atomics(xp, target.reshape(-1), places, values)


def add_rows(target: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """target[rows[i]] += values[i] for wide rows: sorted, so that each run of equal rows is summed at once.

    target (V, ...), rows any shape, values (*rows.shape, ...).
    """
    if rows.size == 0:
        return
    rows, values = _sorted(np, target, rows, values)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    ends = np.append(starts[1:], rows.size)
    alone = ends - starts == 1
    target[rows[starts[alone]]] += values[starts[alone]]
    for start, end in zip(starts[~alone].tolist(), ends[~alone].tolist()):
        target[rows[start]] += values[start:end].sum(axis=0)


def add_without_atomics(xp: Any, target: Any, rows: Any, values: Any) -> None:
    """The same on a GPU, where atomic additions would come in another order each time and round differently.

    Runs of equal rows are summed by doubling: after pass p, each value is the sum of the next 2**p of its run.
    """
    if rows.size == 0:
        return
    rows, values = _sorted(xp, target, rows, values)
    column = (-1, *[1] * (values.ndim - 1))
    step = 1
    while step < rows.size and bool((same := rows[step:] == rows[:-step]).any()):
        values[:-step] = values[:-step] + xp.where(same.reshape(column), values[step:], 0)
        step *= 2
    first = xp.concatenate([xp.ones(1, bool), rows[1:] != rows[:-1]])
    target[rows[first]] += values[first]


def _sorted(xp: Any, target: Any, rows: Any, values: Any) -> tuple[Any, Any]:
    """rows (n,) in ascending order, none negative, and a copy of values (n, ...) in the same order."""
    rows, values = rows.reshape(-1).astype(np.int64), values.reshape(rows.size, *target.shape[1:])
    rows = xp.where(rows < 0, rows + target.shape[0], rows)
    order = xp.argsort(rows, kind="stable")
    return rows[order], values[order]
