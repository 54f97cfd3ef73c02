"""Softmax and log-softmax, the specification: NumPy or CuPy, in float64, rounded once at the end to the dtype of x.

    p     = exp(x - max x) / sum exp(x - max x)             dx = p * (dout - sum_j dout_j p_j)
    log p = (x - max x) - log sum exp(x - max x)            dx = dout - p * sum_j dout_j

Sums and the maximum run over the last axis.
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module


def softmax_forward(x: Any) -> Any:
    xp = array_module(x)
    e = xp.exp(_below_zero(x))  # (..., N)
    return (e / e.sum(axis=-1, keepdims=True)).astype(x.dtype)


def softmax_backward(dout: Any, out: Any) -> Any:
    xp = array_module(out)
    p, dout = out.astype(xp.float64), dout.astype(xp.float64)  # (..., N)
    return (p * (dout - (dout * p).sum(axis=-1, keepdims=True))).astype(out.dtype)


def log_softmax_forward(x: Any) -> Any:
    xp = array_module(x)
    z = _below_zero(x)  # (..., N)
    return (z - xp.log(xp.exp(z).sum(axis=-1, keepdims=True))).astype(x.dtype)


def log_softmax_backward(dout: Any, out: Any) -> Any:
    xp = array_module(out)
    dout = dout.astype(xp.float64)  # (..., N)
    return (dout - xp.exp(out.astype(xp.float64)) * dout.sum(axis=-1, keepdims=True)).astype(out.dtype)


def _below_zero(x: Any) -> Any:
    """x minus the largest of its row, float64: at most 0."""
    wide = x.astype(array_module(x).float64)
    return wide - wide.max(axis=-1, keepdims=True) if x.size else wide
