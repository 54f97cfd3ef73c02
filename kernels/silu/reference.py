"""SiLU and SwiGLU, the specification: NumPy or CuPy, in float64, rounded once.

    silu   = x s                    s = sigmoid(x)            dx    = dout s (1 + x (1 - s))
    swiglu = silu(gate) up                                    dgate = dout up silu'(gate),  dup = dout silu(gate)

Beyond +-1000 s is 0 or 1 in float64, so x is clipped there, and there is no -inf * 0.
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module


def silu_forward(x: Any) -> Any:
    xp = array_module(x)
    return xp.asarray(xp.maximum(x, -1000.0) * _sigmoid(x), dtype=x.dtype)


def silu_backward(dout: Any, x: Any) -> Any:
    xp = array_module(x)
    return xp.asarray(dout * _slope(x), dtype=x.dtype)


def swiglu_forward(gate: Any, up: Any) -> Any:
    xp = array_module(gate)
    return xp.asarray(xp.maximum(gate, -1000.0) * _sigmoid(gate) * up, dtype=gate.dtype)


def swiglu_backward(dout: Any, gate: Any, up: Any) -> tuple[Any, Any]:
    xp = array_module(gate)
    dgate = xp.asarray(dout * _slope(gate) * up, dtype=gate.dtype)
    return dgate, xp.asarray(xp.maximum(gate, -1000.0) * _sigmoid(gate) * dout, dtype=gate.dtype)


def _sigmoid(x: Any) -> Any:
    """float64; from exp(-|x|), which cannot overflow."""
    xp = array_module(x)
    x = x.astype(xp.float64)
    e = xp.exp(-abs(x))
    return xp.where(x < 0, e, 1.0) / (1 + e)


def _slope(x: Any) -> Any:
    xp = array_module(x)
    s = _sigmoid(x)
    e = xp.exp(-abs(x.astype(xp.float64)))
    rest = xp.where(x < 0, 1.0, e) / (1 + e)  # 1 - s, without its cancellation
    return s * (1 + xp.clip(x.astype(xp.float64), -1000.0, 1000.0) * rest)
