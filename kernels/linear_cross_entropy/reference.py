"""Linear layer and cross-entropy, the specification: NumPy or CuPy, in float64, rounded once at the end.

    u = x weight^T            z = cap * tanh(u / cap), or u             lse_n = log sum_c exp(z_nc)
    loss_n = (1 - s) * (lse_n - z_ny) + s / V * sum_c (lse_n - z_nc) + z_loss * lse_n^2

    dz_nc  = factor_n * (p_nc - (1 - s) * [c = y] - s / V + 2 * z_loss * lse_n * p_nc)           p = exp(z - lse)
    du     = dz * (1 - (z / cap)^2), or dz
    dx     = du weight        dweight = du^T x

Ignored rows: loss 0, gradient 0.
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module
from ..checks import wide_dtype


def linear_cross_entropy(
    x: Any,
    weight: Any,
    targets: Any,
    factor: Any,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
    z_loss: float,
    needs_grad: bool,
    dweight: Any | None,
) -> tuple[Any, Any, Any]:
    xp, V, s = array_module(x), weight.shape[0], label_smoothing
    kept = (targets != ignore_index)[:, None]  # (N, 1)
    wide, w, y = xp.where(kept, x, 0).astype(xp.float64), weight.astype(xp.float64), xp.where(kept[:, 0], targets, 0)
    z = xp.matmul(wide, w.T)  # (N, V)
    if softcap:
        z = softcap * xp.tanh(z / softcap)
    hit = (xp.arange(V) == y[:, None]).astype(xp.float64)  # (N, V)
    log_p = z - z.max(axis=1, keepdims=True)
    log_p = log_p - xp.log(xp.exp(log_p).sum(axis=1, keepdims=True))
    lse = (z - log_p)[:, :1]  # (N, 1)
    loss = -((1 - s) * hit + s / V) * log_p  # (N, V)
    loss = xp.where(kept, loss.sum(axis=1, keepdims=True) + z_loss * lse**2, 0)[:, 0].astype(wide_dtype(x.dtype))
    if not needs_grad:
        return loss, None, None
    p = xp.exp(log_p)
    dz = p - (1 - s) * hit - s / V + 2 * z_loss * lse * p
    if softcap:
        dz = dz * (1 - (z / softcap) ** 2)
    du = xp.where(kept, (xp.zeros(y.shape) + factor)[:, None] * dz, 0)  # (N, V)
    dx, total = xp.matmul(du, w).astype(x.dtype), xp.matmul(du.T, wide)  # (N, D), (V, D)
    if dweight is None:
        return loss, dx, total.astype(x.dtype)
    dweight[...] = (total + dweight).astype(x.dtype)
    return loss, dx, dweight
