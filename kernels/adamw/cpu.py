"""AdamW and Adam in Numba: one pass, 28 bytes a float32 parameter. Formulas in reference.py.

No fastmath: every operation is then rounded as IEEE 754 says, and the split among threads cannot show.
"""

from __future__ import annotations

import math
from typing import Any

from ..checks import contiguous
from ..numba_setup import njit, prange


def adamw_step(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, step: int, grad_scale: float, decoupled: bool,
) -> None:  # fmt: skip
    keep = 1 - lr * weight_decay if decoupled else 1.0
    penalty = 0.0 if decoupled else weight_decay
    size, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
    factors = (grad_scale, keep, penalty, beta1, 1 - beta1, beta2, 1 - beta2, size, root, eps)
    narrow = map(param.dtype.type, factors)  # in the arrays' dtype: twice the elements in a vector register
    _step(param.reshape(-1), contiguous(grad).reshape(-1), exp_avg.reshape(-1), exp_avg_sq.reshape(-1), *narrow)


@njit(parallel=True, cache=True, error_model="numpy")
def _step(param, grad, exp_avg, exp_avg_sq, scale, keep, penalty, beta1, rest1, beta2, rest2, size, root, eps):
    for i in prange(param.size):
        p = param[i]
        g = grad[i] * scale + penalty * p
        m = beta1 * exp_avg[i] + rest1 * g
        v = beta2 * exp_avg_sq[i] + rest2 * (g * g)
        exp_avg[i], exp_avg_sq[i] = m, v
        param[i] = p * keep - size * m / (math.sqrt(v) / root + eps)
