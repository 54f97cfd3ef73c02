"""Dropout in Numba: random words for 2048 elements at a time, in the first-level cache, used at once.

uniform >= p is a comparison of integers: word >> 8, which is 2^24 times the uniform number, with p * 2^24 rounded up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..blocks import BLOCK, SMALL, count, end
from ..checks import contiguous
from ..numba_setup import njit, prange
from ..random.philox import CHUNK, fill


def dropout_forward(x: Any, p: float, seed: int, position: int) -> Any:
    out = np.empty(x.shape, x.dtype)
    threshold = math.ceil(float(np.float32(p)) * 2**24)
    scale = x.dtype.type(1 / (1 - p) if p < 1 else 1)
    _apply(contiguous(x).reshape(-1), threshold, scale, np.uint64(seed), np.uint64(position), out.reshape(-1))
    return out


def dropout_backward(dout: Any, p: float, seed: int, position: int) -> Any:
    return dropout_forward(dout, p, seed, position)


@njit(parallel=True)
def _apply(x, threshold, scale, seed, position, out):
    if x.size <= SMALL:
        _apply_range(x, threshold, scale, seed, position, out, 0, x.size)
    else:
        for b in prange(count(x.size)):
            _apply_range(x, threshold, scale, seed, position, out, b * BLOCK, end(b, x.size))


@njit
def _apply_range(x, threshold, scale, seed, position, out, start, stop):
    pairs = np.empty(CHUNK // 2, np.uint64)
    words = pairs.view(np.uint32)
    least = np.uint32(threshold)
    for at in range(start, stop, CHUNK):
        xa, oa = x[at : min(at + CHUNK, stop)], out[at : min(at + CHUNK, stop)]
        fill(pairs[: (xa.size + 3) // 4 * 2], position + np.uint64(at // 4), seed)
        for i in range(xa.size):
            scaled = xa[i] * scale
            oa[i] = scaled if words[i] >> np.uint32(8) >= least else x.dtype.type(0.0)
