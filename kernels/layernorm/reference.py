"""LayerNorm, the specification: NumPy or CuPy, in float64, rounded once at the end to the dtype of x.

    mean = mean_j(x_j)      rstd = 1 / sqrt(mean_j((x_j - mean)^2) + eps)      xhat = (x - mean) * rstd
    out  = xhat * weight + bias

    g    = dout * weight    dx   = rstd * (g - mean_j(g) - xhat * mean_j(g * xhat))
    dweight = sum over rows of dout * xhat                  dbias = sum over rows of dout
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module


def layernorm_forward(x: Any, weight: Any | None, bias: Any | None, eps: float) -> tuple[Any, Any, Any]:
    xp = array_module(x)
    wide = x.astype(xp.float64)  # (..., N)
    mean = wide.mean(axis=-1, keepdims=True)  # (..., 1)
    rstd = 1 / xp.sqrt(((wide - mean) ** 2).mean(axis=-1, keepdims=True) + eps)  # (..., 1)
    out = (wide - mean) * rstd  # (..., N)
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    return out.astype(x.dtype), mean[..., 0].astype(x.dtype), rstd[..., 0].astype(x.dtype)


def layernorm_backward(dout: Any, x: Any, weight: Any | None, mean: Any, rstd: Any) -> tuple[Any, Any, Any]:
    xp = array_module(x)
    rstd = rstd.astype(xp.float64)[..., None]  # (..., 1)
    xhat = (x.astype(xp.float64) - mean[..., None]) * rstd  # (..., N)
    dout = dout.astype(xp.float64)  # (..., N)
    g = dout if weight is None else dout * weight  # (..., N)
    dx = rstd * (g - g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(axis=-1, keepdims=True))
    rows = tuple(range(x.ndim - 1))
    dweight = (dout * xhat).sum(axis=rows)  # (N,)
    dbias = dout.sum(axis=rows)  # (N,)
    return dx.astype(x.dtype), dweight.astype(x.dtype), dbias.astype(x.dtype)
