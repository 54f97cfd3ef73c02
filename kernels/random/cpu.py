"""Uniform and normal numbers in Numba: blocks of the stream in parallel, each from its own counter. See philox.py.

Normal numbers need log, cos and sin. The C library's are calls, 50 ns for a pair of numbers; those of normal.py are
arithmetic that LLVM turns into vectors, 3 ns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..blocks import BLOCK, SMALL, count, end
from ..numba_setup import njit, prange
from .normal import box_muller
from .philox import CHUNK, fill


def philox_bits(count: int, seed: int, position: int, xp: Any) -> Any:
    pairs = np.empty((count + 3) // 4 * 2, np.uint64)
    _bits(pairs, np.uint64(seed), np.uint64(position))
    return pairs.view(np.uint32)[:count]


@njit(parallel=True)
def _bits(pairs, seed, position):
    if pairs.size <= SMALL:
        fill(pairs, position, seed)
    else:
        for b in prange(count(pairs.size)):
            fill(pairs[b * BLOCK : (b + 1) * BLOCK], position + np.uint64(b * (BLOCK // 2)), seed)


def philox_uniform(shape: tuple[int, ...], seed: int, position: int, dtype: Any, xp: Any) -> Any:
    out = np.empty(shape, dtype)
    _uniform(out.reshape(-1), np.uint64(seed), np.uint64(position))
    return out


@njit(parallel=True)
def _uniform(out, seed, position):
    if out.size <= SMALL:
        _uniform_range(out, seed, position, 0, out.size)
    else:
        for b in prange(count(out.size)):
            _uniform_range(out, seed, position, b * BLOCK, end(b, out.size))


@njit
def _uniform_range(out, seed, position, start, stop):
    pairs = np.empty(CHUNK // 2, np.uint64)
    words = pairs.view(np.uint32)
    for at in range(start, stop, CHUNK):
        part = out[at : min(at + CHUNK, stop)]
        fill(pairs[: (part.size + 3) // 4 * 2], position + np.uint64(at // 4), seed)
        for i in range(part.size):
            part[i] = np.int32(words[i] >> np.uint32(8)) * np.float32(2.0**-24)


def philox_normal(
    shape: tuple[int, ...], seed: int, position: int, dtype: Any, mean: float, std: float, xp: Any
) -> Any:
    size = math.prod(shape)
    out = np.empty(size + size % 2, dtype)
    _normal(out, np.uint64(seed), np.uint64(position), mean, std)
    return out[:size].reshape(shape)


@njit(parallel=True)
def _normal(out, seed, position, mean, std):
    half = out.size // 2
    first, second = out[:half], out[half:]
    if half <= SMALL // 8:
        _normal_range(first, second, seed, position, mean, std, 0, half)
    else:
        for b in prange((half + CHUNK - 1) // CHUNK):
            _normal_range(first, second, seed, position, mean, std, b * CHUNK, min((b + 1) * CHUNK, half))


@njit(error_model="numpy")
def _normal_range(first, second, seed, position, mean, std, start, stop):
    pairs, other = np.empty(CHUNK // 2, np.uint64), np.empty(CHUNK // 2 + 2, np.uint64)
    words = pairs.view(np.uint32)
    skip = first.size % 4  # where in its counter the second half of the stream begins
    others = other.view(np.uint32)[skip:]
    for at in range(start, stop, CHUNK):
        n = min(CHUNK, stop - at)
        fill(pairs[: (n + 3) // 4 * 2], position + np.uint64(at // 4), seed)
        fill(other[: (n + skip + 3) // 4 * 2], position + np.uint64((first.size + at) // 4), seed)
        box_muller(words[:n], others[:n], first[at : at + n], second[at : at + n], mean, std)
