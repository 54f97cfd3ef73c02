"""Dropout of a row of weights: its random numbers are made again from (seed, position) wherever they are needed.

Element (b, h, i, j) of the (B, H, T, S) weights has word ((b H + h) T + i) S + j of the stream; see kernels/random.
"""

from __future__ import annotations

import math

import numpy as np

from .. import simd
from ..numba_setup import njit
from ..random.philox import fill
from .tiles import INNER

_NOTHING = np.uint64(0), np.uint64(0), np.uint32(0), 1.0


def drop_options(dropout: tuple[float, int, int] | None) -> tuple[np.uint64, np.uint64, np.uint32, float]:
    """seed, position, the least 24-bit number that is kept (0: no dropout), the factor of what is kept."""
    if dropout is None:
        return _NOTHING
    p, seed, position = dropout
    least = math.ceil(float(np.float32(p)) * 2**24)
    return np.uint64(seed), np.uint64(position), np.uint32(least), 1 / (1 - p) if p < 1 else 0.0


@njit(**INNER)
def draw_row(keep, pairs, first, n, drop):
    """keep[:n] = factor or 0, for n elements from word `first` of the stream on. pairs: room for their words."""
    seed, position, least, factor = drop
    skip = first % 4
    fill(pairs[: (skip + n + 3) // 4 * 2], position + np.uint64(first // 4), seed)
    words = pairs.view(np.uint32)[skip : skip + n]
    kept, dropped = keep.dtype.type(factor), keep.dtype.type(0)
    out = keep[:n]
    for i in range(out.size):
        out[i] = kept if words[i] >> np.uint32(8) >= least else dropped


@njit(**INNER)
def drop_row(x, keep, n):
    """x[:n] = x * keep for whole vectors, 0 where keep is 0, whatever x is there."""
    for c in range(0, n, simd.lanes(x)):
        factor = simd.load(keep, c)
        simd.store(x, c, simd.select(factor == 0.0, 0.0, simd.load(x, c) * factor))
