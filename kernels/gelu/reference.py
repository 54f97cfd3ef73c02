"""GELU, the specification: NumPy or CuPy, in float64, rounded once at the end to the dtype of x.

    out = x * Phi(x)                    dx = dout * (Phi(x) + x * Phi'(x))

    exact:  Phi(x) = erfc(-x / sqrt(2)) / 2          Phi'(x) = exp(-x^2 / 2) / sqrt(2 pi)
    tanh:   Phi(x) = (1 + t) / 2                     Phi'(x) = (1 - t^2) / 2 * sqrt(2 / pi) * (1 + 3 * 0.044715 x^2)
            t = tanh(sqrt(2 / pi) * (x + 0.044715 x^3))

Beyond +-40 Phi is 0 or 1 and Phi' is 0 in float64, so x is clipped there: no power overflows, and there is no
-inf * 0.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import array_module
from .erf import erfc


def gelu_forward(x: Any, approximate: str) -> Any:
    xp = array_module(x)
    phi, _ = _phi(x, approximate)
    return xp.asarray(xp.maximum(x, -40.0) * phi, dtype=x.dtype)


def gelu_backward(dout: Any, x: Any, approximate: str) -> Any:
    xp = array_module(x)
    phi, slope = _phi(x, approximate)
    return xp.asarray(dout * (phi + xp.clip(x, -40.0, 40.0) * slope), dtype=x.dtype)


def _phi(x: Any, approximate: str) -> tuple[Any, Any]:
    """Phi(x) and its derivative, float64."""
    xp = array_module(x)
    x = xp.clip(x.astype(xp.float64), -40.0, 40.0)
    if approximate == "none":
        return erfc(-x / math.sqrt(2)) / 2, xp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    k = math.sqrt(2 / math.pi)
    t = xp.tanh(k * (x + 0.044715 * x * x * x))
    return (1 + t) / 2, (1 - t * t) / 2 * k * (1 + 3 * 0.044715 * x * x)
