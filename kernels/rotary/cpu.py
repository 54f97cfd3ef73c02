"""Rotary position embedding in Numba on vectors: a head at a position at a time. Formulas in reference.py.

Strides are arguments, so that the heads of (B, T, H, D) are turned where they lie: no copy in front of the kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import simd
from ..blocks import BLOCK, SMALL
from ..checks import contiguous
from ..numba_setup import njit, prange


def rotary_forward(x: Any, cos: Any, sin: Any) -> Any:
    return _turned(x, cos, sin, 1.0)


def rotary_backward(dout: Any, cos: Any, sin: Any) -> Any:
    return _turned(dout, cos, sin, -1.0)


def _turned(x: Any, cos: Any, sin: Any, sign: float) -> Any:
    flags, size = x.flags, x.itemsize
    if not (flags.aligned and flags.writeable and x.strides[3] == size and not any(s % size for s in x.strides)):
        x = np.array(x, order="C")
    out = np.empty(x.shape, x.dtype)
    steps = tuple([s // size for s in x.strides[:3]])
    _turn(x, steps, contiguous(cos), contiguous(sin), sign, out)
    return out


@njit(parallel=True)
def _turn(x, steps, cos, sin, sign, out):
    B, H, T, D = out.shape
    together = max(1, BLOCK // max(1, H * D))  # positions in a block
    if out.size <= SMALL:
        _turn_positions(x, steps, cos, sin, sign, out, 0, B * T)
    else:
        for b in prange((B * T + together - 1) // together):
            _turn_positions(x, steps, cos, sin, sign, out, b * together, min((b + 1) * together, B * T))


@njit
def _turn_positions(x, steps, cos, sin, sign, out, start, stop):
    """All heads of positions start .. stop - 1, counted through the batch: angles are read once for all heads."""
    _, H, T, D = out.shape
    half, n = D // 2, simd.lanes(out)
    rest = half % n
    for position in range(start, stop):
        b, t = position // T, position % T
        c, s = simd.pointer(cos) + t * half, simd.pointer(sin) + t * half
        for h in range(H):
            source = simd.pointer(x) + (b * steps[0] + h * steps[1] + t * steps[2])
            target = simd.pointer(out) + ((b * H + h) * T + t) * D
            for j in range(0, half - rest, n):
                x1, x2 = simd.load(source, j), simd.load(source, half + j)
                y1, y2 = _rotate(x1, x2, simd.load(c, j), simd.load(s, j) * sign)
                simd.store(target, j, y1)
                simd.store(target, half + j, y2)
            if rest:
                j = half - rest
                x1, x2 = simd.load_tail(source, j, rest), simd.load_tail(source, half + j, rest)
                y1, y2 = _rotate(x1, x2, simd.load_tail(c, j, rest), simd.load_tail(s, j, rest) * sign)
                simd.store_tail(target, j, y1, rest)
                simd.store_tail(target, half + j, y2, rest)


@njit(forceinline=True)
def _rotate(x1, x2, cos, sin):
    return simd.fma(x1, cos, -x2 * sin), simd.fma(x2, cos, x1 * sin)
