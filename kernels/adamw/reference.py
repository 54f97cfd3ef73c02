"""AdamW and Adam, the specification: NumPy or CuPy, in float64, rounded when stored.

    g          = grad * grad_scale
    param      = param * (1 - lr * weight_decay)          (AdamW)     g = g + weight_decay * param     (Adam)
    exp_avg    = beta1 * exp_avg    + (1 - beta1) * g
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g^2
    param      = param - lr * (exp_avg / (1 - beta1^step)) / (sqrt(exp_avg_sq / (1 - beta2^step)) + eps)
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module
from .segments import Cover


def adamw_step(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, step: int, grad_scale: float, decoupled: bool,
) -> None:  # fmt: skip
    xp = array_module(param)
    p, g, m, v = (a.astype(xp.float64) for a in (param, grad, exp_avg, exp_avg_sq))
    g = g * grad_scale
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    param[...] = p - lr * (m / (1 - beta1**step)) / (xp.sqrt(v / (1 - beta2**step)) + eps)
    exp_avg[...], exp_avg_sq[...] = m, v


def adamw_flat(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: Any, step: int, scale: float, decoupled: bool,
) -> None:  # fmt: skip
    parts = [(0, param.size, weight_decay)]
    if isinstance(weight_decay, Cover):
        bounds = weight_decay.bounds.tolist()
        parts = list(zip(bounds, bounds[1:], weight_decay.values.tolist()))
    for start, stop, decay in parts:
        p, g, m, v = (a[start:stop] for a in (param, grad, exp_avg, exp_avg_sq))
        adamw_step(p, g, m, v, lr, beta1, beta2, eps, decay, step, scale, decoupled)
