"""Rotary position embedding, the specification: NumPy or CuPy, in float64, rounded once.

    out1 = x1 cos - x2 sin          dx1 = dout1 cos + dout2 sin
    out2 = x2 cos + x1 sin          dx2 = dout2 cos - dout1 sin
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module


def rotary_forward(x: Any, cos: Any, sin: Any) -> Any:
    xp = array_module(x)
    half = x.shape[-1] // 2
    x1, x2 = x[..., :half].astype(xp.float64), x[..., half:].astype(xp.float64)  # (B, H, T, D/2)
    return xp.concatenate((x1 * cos - x2 * sin, x2 * cos + x1 * sin), axis=-1).astype(x.dtype)


def rotary_backward(dout: Any, cos: Any, sin: Any) -> Any:
    return rotary_forward(dout, cos, -sin)
