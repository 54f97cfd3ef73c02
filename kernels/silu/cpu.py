"""SiLU and SwiGLU in Numba on vectors. Formulas in reference.py.

sigmoid comes from e = exp(-|x|), so it does not overflow and its small values keep their digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import simd
from ..blocks import BLOCK, SMALL, count, end
from ..checks import contiguous
from ..numba_setup import njit, prange


def silu_forward(x: Any) -> Any:
    out = np.empty(x.shape, x.dtype)
    _silu(contiguous(x).reshape(-1), out.reshape(-1))
    return out


@njit(parallel=True)
def _silu(x, out):
    if x.size <= SMALL:
        _silu_range(x, out, 0, x.size)
    else:
        for b in prange(count(x.size)):
            _silu_range(x, out, b * BLOCK, end(b, x.size))


@njit
def _silu_range(x, out, start, stop):
    n = simd.lanes(x)
    rest = (stop - start) % n
    for i in range(start, stop - rest, n):
        simd.store(out, i, silu(simd.load(x, i)))
    if rest:
        simd.store_tail(out, stop - rest, silu(simd.load_tail(x, stop - rest, rest)), rest)


@njit(error_model="numpy", forceinline=True)
def silu(x):
    """x sigmoid(x) of a vector."""
    return simd.maximum(-1000.0, x) * simd.sigmoid(x)  # NaN stays


def silu_backward(dout: Any, x: Any) -> Any:
    dx = np.empty(x.shape, x.dtype)
    _silu_backward(contiguous(dout).reshape(-1), contiguous(x).reshape(-1), dx.reshape(-1))
    return dx


@njit(parallel=True)
def _silu_backward(dout, x, dx):
    if x.size <= SMALL:
        _silu_backward_range(dout, x, dx, 0, x.size)
    else:
        for b in prange(count(x.size)):
            _silu_backward_range(dout, x, dx, b * BLOCK, end(b, x.size))


@njit
def _silu_backward_range(dout, x, dx, start, stop):
    n = simd.lanes(x)
    rest = (stop - start) % n
    for i in range(start, stop - rest, n):
        simd.store(dx, i, simd.load(dout, i) * silu_slope(simd.load(x, i)))
    if rest:
        i = stop - rest
        dv = simd.load_tail(dout, i, rest) * silu_slope(simd.load_tail(x, i, rest))
        simd.store_tail(dx, i, dv, rest)


@njit(error_model="numpy", forceinline=True)
def silu_slope(x):
    """The derivative of x sigmoid(x), of a vector."""
    x = simd.maximum(-1000.0, simd.minimum(1000.0, x))
    e = simd.exp(-simd.absolute(x))
    share = 1.0 / (e + 1.0)
    s, rest = simd.select(x < 0.0, e, 1.0) * share, simd.select(x < 0.0, 1.0, e) * share  # s, 1 - s
    return simd.fma(s * x, rest, s)


# ---------------------------------------------------------------------------------------------- swiglu


def swiglu_forward(gate: Any, up: Any) -> Any:
    out = np.empty(gate.shape, gate.dtype)
    _swiglu(contiguous(gate).reshape(-1), contiguous(up).reshape(-1), out.reshape(-1))
    return out


@njit(parallel=True)
def _swiglu(gate, up, out):
    if gate.size <= SMALL:
        _swiglu_range(gate, up, out, 0, gate.size)
    else:
        for b in prange(count(gate.size)):
            _swiglu_range(gate, up, out, b * BLOCK, end(b, gate.size))


@njit
def _swiglu_range(gate, up, out, start, stop):
    n = simd.lanes(gate)
    rest = (stop - start) % n
    for i in range(start, stop - rest, n):
        simd.store(out, i, silu(simd.load(gate, i)) * simd.load(up, i))
    if rest:
        i = stop - rest
        simd.store_tail(out, i, silu(simd.load_tail(gate, i, rest)) * simd.load_tail(up, i, rest), rest)


def swiglu_backward(dout: Any, gate: Any, up: Any) -> tuple[Any, Any]:
    dgate, dup = np.empty(gate.shape, gate.dtype), np.empty(gate.shape, gate.dtype)
    flat = (contiguous(a).reshape(-1) for a in (dout, gate, up))
    _swiglu_backward(*flat, dgate.reshape(-1), dup.reshape(-1))
    return dgate, dup


@njit(parallel=True)
def _swiglu_backward(dout, gate, up, dgate, dup):
    if gate.size <= SMALL:
        _swiglu_backward_range(dout, gate, up, dgate, dup, 0, gate.size)
    else:
        for b in prange(count(gate.size)):
            _swiglu_backward_range(dout, gate, up, dgate, dup, b * BLOCK, end(b, gate.size))


@njit
def _swiglu_backward_range(dout, gate, up, dgate, dup, start, stop):
    n = simd.lanes(gate)
    for i in range(start, stop, n):
        left = stop - i
        if left >= n:
            dg, du = _swiglu_gradients(simd.load(dout, i), simd.load(gate, i), simd.load(up, i))
            simd.store(dgate, i, dg)
            simd.store(dup, i, du)
        else:
            d, g, u = simd.load_tail(dout, i, left), simd.load_tail(gate, i, left), simd.load_tail(up, i, left)
            dg, du = _swiglu_gradients(d, g, u)
            simd.store_tail(dgate, i, dg, left)
            simd.store_tail(dup, i, du, left)


@njit(error_model="numpy", forceinline=True)
def _swiglu_gradients(d, gate, up):
    """(dgate, dup) of vectors; the two exponentials are one after inlining."""
    return d * up * silu_slope(gate), d * silu(gate)
