"""Softmax cross-entropy, the specification: NumPy or CuPy, in float64, rounded once at the end.

    lse_n  = log sum_c exp(z_nc)          p_nc = exp(z_nc - lse_n)          s = label_smoothing
    loss_n = (1 - s) * w_y * (lse_n - z_ny) + s / V * sum_c w_c * (lse_n - z_nc)
    dz_nc  = dloss_n * ((1 - s) * w_y * (p_nc - [c = y]) + s / V * (p_nc * sum_k w_k - w_c))

Ignored rows: loss 0, lse 0, gradient 0.
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module
from ..checks import wide_dtype


def cross_entropy_forward(
    logits: Any, targets: Any, ignore_index: int, label_smoothing: float, weight: Any | None
) -> tuple[Any, Any]:
    xp = array_module(logits)
    z, y, w, kept = _prepare(logits, targets, ignore_index, weight)
    top = z.max(axis=1, keepdims=True)  # (N, 1)
    log_p = z - top  # (N, V), <= 0: nothing overflows, and no digits are lost to large logits
    log_sum = xp.log(xp.exp(log_p).sum(axis=1, keepdims=True))  # (N, 1)
    log_p = log_p - log_sum
    loss = -(1 - label_smoothing) * w[y] * xp.take_along_axis(log_p, y, axis=1)  # (N, 1)
    if label_smoothing > 0:  # else 0 * inf at a class masked with -inf
        loss = loss - label_smoothing / z.shape[1] * (w * log_p).sum(axis=1, keepdims=True)
    return (
        xp.where(kept, loss, 0)[:, 0].astype(wide_dtype(logits.dtype)),
        xp.where(kept, top + log_sum, 0)[:, 0].astype(wide_dtype(logits.dtype)),
    )


def cross_entropy_backward(
    dloss: Any, logits: Any, targets: Any, lse: Any, ignore_index: int, label_smoothing: float, weight: Any | None
) -> Any:
    xp = array_module(logits)
    z, y, w, kept = _prepare(logits, targets, ignore_index, weight)
    p = xp.exp(z - lse[:, None])  # (N, V)
    p = p / p.sum(axis=1, keepdims=True)  # lse, when rounded to float32, is off by up to 5e-4 at logits of 1e4
    hit = xp.arange(z.shape[1]) == y  # (N, V)
    dz = (1 - label_smoothing) * w[y] * (p - hit) + label_smoothing / z.shape[1] * (p * w.sum() - w)
    return xp.where(kept, dloss[:, None] * dz, 0).astype(logits.dtype)


def cross_entropy_with_grad(
    logits: Any,
    targets: Any,
    factor: Any,
    ignore_index: int,
    label_smoothing: float,
    weight: Any | None,
    out: Any | None,
) -> tuple[Any, Any, Any]:
    xp = array_module(logits)
    z = logits.astype(xp.float64)
    loss, lse = cross_entropy_forward(z, targets, ignore_index, label_smoothing, weight)
    factor = xp.zeros(targets.shape) + factor  # (N,)
    dlogits = cross_entropy_backward(factor, z, targets, lse, ignore_index, label_smoothing, weight)
    if out is None:
        out = xp.empty(logits.shape, logits.dtype)
    out[...] = dlogits.astype(logits.dtype)
    wide = wide_dtype(logits.dtype)
    return loss.astype(wide), lse.astype(wide), out


def _prepare(logits: Any, targets: Any, ignore_index: int, weight: Any | None) -> tuple[Any, Any, Any, Any]:
    """logits (N, V) and class weights (V,) in float64, targets (N, 1), rows kept (N, 1); zeros in ignored rows."""
    xp = array_module(logits)
    kept = (targets != ignore_index)[:, None]
    z = xp.where(kept, logits, 0).astype(xp.float64)
    w = xp.ones(z.shape[1]) if weight is None else weight.astype(xp.float64)
    return z, xp.where(kept, targets[:, None], 0), w, kept
