"""RMSNorm, the specification: NumPy or CuPy, in float64, rounded once at the end to the dtype of x.

    rstd = 1 / sqrt(mean_j(x_j^2) + eps)      xhat = x * rstd      out = xhat * weight

    g    = dout * weight                      dx   = rstd * (g - xhat * mean_j(g * xhat)) + dresidual
    dweight = sum over rows of dout * xhat
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module
from ..checks import wide_dtype


def rmsnorm_forward(x: Any, weight: Any | None, eps: float, residual: Any | None) -> tuple[Any, ...]:
    xp = array_module(x)
    total = x if residual is None else x + residual
    wide = total.astype(xp.float64)  # (..., N)
    rstd = 1 / xp.sqrt((wide**2).mean(axis=-1, keepdims=True) + eps)  # (..., 1)
    out = wide * rstd if weight is None else wide * rstd * weight  # (..., N)
    results = out.astype(x.dtype), rstd[..., 0].astype(wide_dtype(x.dtype))
    return results if residual is None else (*results, total)


def rmsnorm_backward(
    dout: Any, x: Any, weight: Any | None, rstd: Any, dresidual: Any | None, dweight: Any | None
) -> tuple[Any, Any]:
    xp = array_module(x)
    rstd = rstd.astype(xp.float64)[..., None]  # (..., 1)
    xhat = x.astype(xp.float64) * rstd  # (..., N)
    dout = dout.astype(xp.float64)  # (..., N)
    g = dout if weight is None else dout * weight  # (..., N)
    dx = rstd * (g - xhat * (g * xhat).mean(axis=-1, keepdims=True))
    if dresidual is not None:
        dx = dx + dresidual
    total = (dout * xhat).sum(axis=tuple(range(x.ndim - 1)))  # (N,)
    if dweight is None:
        return dx.astype(x.dtype), total.astype(x.dtype)
    dweight[...] = (total + dweight).astype(x.dtype)
    return dx.astype(x.dtype), dweight
