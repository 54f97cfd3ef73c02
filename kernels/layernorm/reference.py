"""LayerNorm, the specification: NumPy or CuPy, in float64, rounded once at the end to the dtype of x.

    mean = mean_j(x_j)      rstd = 1 / sqrt(mean_j((x_j - mean)^2) + eps)      xhat = (x - mean) * rstd
    out  = xhat * weight + bias

    g    = dout * weight    dx   = rstd * (g - mean_j(g) - xhat * mean_j(g * xhat)) + dresidual
    dweight = sum over rows of dout * xhat                  dbias = sum over rows of dout
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module
from ..checks import wide_dtype


def layernorm_forward(
    x: Any, weight: Any | None, bias: Any | None, eps: float, residual: Any | None
) -> tuple[Any, ...]:
    xp = array_module(x)
    total = x if residual is None else x + residual
    wide = total.astype(xp.float64)  # (..., N)
    mean = wide.mean(axis=-1, keepdims=True)  # (..., 1)
    rstd = 1 / xp.sqrt(((wide - mean) ** 2).mean(axis=-1, keepdims=True) + eps)  # (..., 1)
    out = (wide - mean) * rstd  # (..., N)
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    results = out.astype(x.dtype), *(a[..., 0].astype(wide_dtype(x.dtype)) for a in (mean, rstd))
    return results if residual is None else (*results, total)


def layernorm_backward(
    dout: Any,
    x: Any,
    weight: Any | None,
    mean: Any,
    rstd: Any,
    dresidual: Any | None,
    dweight: Any | None,
    dbias: Any | None,
) -> tuple[Any, Any, Any]:
    xp = array_module(x)
    rstd = rstd.astype(xp.float64)[..., None]  # (..., 1)
    xhat = (x.astype(xp.float64) - mean[..., None]) * rstd  # (..., N)
    dout = dout.astype(xp.float64)  # (..., N)
    g = dout if weight is None else dout * weight  # (..., N)
    dx = rstd * (g - g.mean(axis=-1, keepdims=True) - xhat * (g * xhat).mean(axis=-1, keepdims=True))
    if dresidual is not None:
        dx = dx + dresidual
    rows = tuple(range(x.ndim - 1))
    sums = (dout * xhat).sum(axis=rows), dout.sum(axis=rows)  # dweight and dbias, (N,) each
    return dx.astype(x.dtype), _add_into(dweight, sums[0], x.dtype), _add_into(dbias, sums[1], x.dtype)


def _add_into(given: Any | None, total: Any, dtype: Any) -> Any:
    if given is None:
        return total.astype(dtype)
    given[...] = (total + given).astype(dtype)
    return given
