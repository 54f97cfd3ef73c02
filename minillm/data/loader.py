"""Minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def batches(
    *arrays: Any, batch_size: int, shuffle: bool = True, rng: Any = None, drop_last: bool = False
) -> Iterator[tuple[Any, ...]]:
    """One pass over arrays of equal length N: tuples of (at most) `batch_size` rows of each, in the same order.

    shuffle: a new random order, from `rng.permutation(N)` (a NumPy Generator or anything alike); every row comes once.
    Without it the batches are slices: views, not copies. drop_last: leave out the last batch if it is smaller.

    >>> import numpy as np
    >>> x = np.arange(5)
    >>> [(a.tolist(), b.tolist()) for a, b in batches(x, 10 * x, batch_size=2, shuffle=False)]
    [([0, 1], [0, 10]), ([2, 3], [20, 30]), ([4], [40])]
    """
    lengths = [len(array) for array in arrays]
    if not arrays or len(set(lengths)) > 1:
        raise ValueError(f"arrays of lengths {lengths}: expected one or more arrays of one length")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected 1 or more")
    if shuffle and rng is None:
        raise ValueError("shuffle=True needs rng, for instance numpy.random.default_rng(0): or give shuffle=False")
    return _batches(arrays, lengths[0], batch_size, rng if shuffle else None, drop_last)


def _batches(arrays: tuple[Any, ...], n: int, size: int, rng: Any, drop_last: bool) -> Iterator[tuple[Any, ...]]:
    # a function of its own, so that `batches` complains when it is called, not when the first batch is taken
    order = None if rng is None else rng.permutation(n)  # (N,)
    for start in range(0, n - n % size if drop_last else n, size):
        rows = slice(start, start + size) if order is None else order[start : start + size]
        yield tuple(array[rows] for array in arrays)
