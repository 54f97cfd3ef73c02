"""Rotary position embedding in Numba on vectors: one row of D numbers at a time. Formulas in reference.py.

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
    rows = max(1, BLOCK // max(1, D))  # in a block; a row is one head at one position
    blocks = (B * H * T + rows - 1) // rows
    if out.size <= SMALL:
        _turn_rows(x, steps, cos, sin, sign, out, 0, B * H * T)
    else:
        for b in prange(blocks):
            _turn_rows(x, steps, cos, sin, sign, out, b * rows, min((b + 1) * rows, B * H * T))


@njit
def _turn_rows(x, steps, cos, sin, sign, out, start, stop):
    _, H, T, D = out.shape
    half, n = D // 2, simd.lanes(out)
    rest = half % n
    for row in range(start, stop):
        b, h, t = row // (H * T), row // T % H, row % T
        source = simd.pointer(x) + (b * steps[0] + h * steps[1] + t * steps[2])
        target = simd.pointer(out) + row * D
        c, s = simd.pointer(cos) + t * half, simd.pointer(sin) + t * half
        for j in range(0, half - rest, n):
            x1, x2, cj, sj = simd.load(source, j), simd.load(source, half + j), simd.load(c, j), simd.load(s, j) * sign
            simd.store(target, j, simd.fma(x1, cj, -x2 * sj))
            simd.store(target, half + j, simd.fma(x2, cj, x1 * sj))
        if rest:
            j = half - rest
            x1, x2 = simd.load_tail(source, j, rest), simd.load_tail(source, half + j, rest)
            cj, sj = simd.load_tail(c, j, rest), simd.load_tail(s, j, rest) * sign
            simd.store_tail(target, j, simd.fma(x1, cj, -x2 * sj), rest)
            simd.store_tail(target, half + j, simd.fma(x2, cj, x1 * sj), rest)
