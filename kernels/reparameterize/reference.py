"""Reparameterized sample and KL divergence, the specification: NumPy or CuPy, in float64, rounded once at the end.

    z  = mean + exp(logvar / 2) * noise
    kl = sum_l (exp(logvar) - 1 - logvar + mean^2) / 2

    dmean   = dz + dkl * mean
    dlogvar = dz * noise * exp(logvar / 2) / 2 + dkl * (exp(logvar) - 1) / 2
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module


def reparameterize_forward(mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
    xp = array_module(mean)
    m, lv = mean.astype(xp.float64), logvar.astype(xp.float64)  # (B, L)
    z = m + xp.exp(lv / 2) * noise  # (B, L)
    kl = (xp.expm1(lv) - lv + m * m).sum(axis=1) / 2  # (B,), expm1(lv) = exp(lv) - 1 without its cancellation
    return z.astype(mean.dtype), kl.astype(mean.dtype)


def reparameterize_backward(dz: Any | None, dkl: Any | None, mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
    xp = array_module(mean)
    m, lv = mean.astype(xp.float64), logvar.astype(xp.float64)  # (B, L)
    dmean, dlogvar = xp.zeros_like(m), xp.zeros_like(m)
    if dz is not None:
        dmean += dz
        dlogvar += dz * noise * xp.exp(lv / 2) / 2
    if dkl is not None:
        dmean += dkl[:, None] * m
        dlogvar += dkl[:, None] * xp.expm1(lv) / 2
    return dmean.astype(mean.dtype), dlogvar.astype(mean.dtype)
