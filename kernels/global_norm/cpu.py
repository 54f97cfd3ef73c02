"""The norm of a vector in Numba: sums of blocks in float64, added in order. Squares of float32 stay in its range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..blocks import BLOCK, SMALL
from ..checks import contiguous
from ..numba_setup import njit, prange
from . import reference


def global_norm(x: Any) -> float:
    total = _total(x)
    if x.dtype == np.float64 and not 1e-280 < total < math.inf:  # squares out of range, or all zero
        return reference.global_norm(x)
    return math.sqrt(total)


def sum_of_squares(arrays: Sequence[Any]) -> Any:
    return np.array(sum(_total(x) for x in arrays))


def _total(x: Any) -> float:
    x = contiguous(x).reshape(-1)
    return _sum_of_squares(x, np.empty((x.size + BLOCK - 1) // BLOCK))


@njit(parallel=True)
def _sum_of_squares(x, partial):
    if x.size <= SMALL:
        for b in range(partial.size):
            partial[b] = _squares(x[b * BLOCK : (b + 1) * BLOCK])
    else:
        for b in prange(partial.size):
            partial[b] = _squares(x[b * BLOCK : (b + 1) * BLOCK])
    total = 0.0
    for b in range(partial.size):
        total += partial[b]
    return total


@njit(fastmath={"reassoc", "contract"})  # several sums side by side, as the vectors are wide: the order is compiled in
def _squares(x):
    total = 0.0
    for i in range(x.size):
        wide = np.float64(x[i])
        total += wide * wide
    return total
