"""Binary cross-entropy of logits, the specification: NumPy or CuPy, in float64, rounded once.

    loss    = max(x, 0) - x y + log(1 + exp(-|x|))
    dlogits = dloss (sigmoid(x) - y)
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module


def bce_forward(logits: Any, targets: Any, rows: bool) -> Any:
    xp = array_module(logits)
    x, y = logits.astype(xp.float64), targets.astype(xp.float64)
    loss = xp.maximum(x, 0.0) - x * y + xp.log1p(xp.exp(-abs(x)))
    return xp.asarray(loss.sum(axis=-1) if rows else loss, dtype=logits.dtype)


def bce_backward(dloss: Any, logits: Any, targets: Any) -> Any:
    xp = array_module(logits)
    x, d = logits.astype(xp.float64), dloss.astype(xp.float64)
    if d.ndim < x.ndim:
        d = d[..., None]
    e = xp.exp(-abs(x))
    return xp.asarray(d * (xp.where(x < 0, e, 1.0) / (1 + e) - targets), dtype=logits.dtype)
