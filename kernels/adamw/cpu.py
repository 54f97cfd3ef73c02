"""AdamW and Adam in Numba: one pass, 28 bytes a float32 parameter, so memory sets the pace. Formulas in reference.py.

Decay and clipping ride along: a segment of the buffer has a factor of its own, and the gradient is scaled as it is
read. Elements do not meet, so neither blocks nor threads nor segments show in the bits of the result.
"""

from __future__ import annotations

import math
from typing import Any

from .. import simd
from ..blocks import BLOCK, SMALL, count, end
from ..checks import contiguous
from ..numba_setup import njit, prange
from .segments import Cover, cover


def adamw_step(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, step: int, grad_scale: float, decoupled: bool,
) -> None:  # fmt: skip
    flat = (param.reshape(-1), contiguous(grad).reshape(-1), exp_avg.reshape(-1), exp_avg_sq.reshape(-1))
    adamw_flat(*flat, lr, beta1, beta2, eps, weight_decay, step, grad_scale, decoupled)


def adamw_flat(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float | Cover, step: int, scale: float, decoupled: bool,
) -> None:  # fmt: skip
    parts = weight_decay if isinstance(weight_decay, Cover) else cover(((0, param.size, weight_decay),), param.size)
    rate, inverse_root = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    factors = (scale, beta1, 1 - beta1, beta2, 1 - beta2, rate, inverse_root, eps, lr)
    _flat(param, contiguous(grad), exp_avg, exp_avg_sq, *parts, tuple(map(float, factors)), decoupled)


@njit(parallel=True, error_model="numpy")
def _flat(param, grad, exp_avg, exp_avg_sq, bounds, decay, factors, decoupled):
    if param.size <= SMALL:
        _range(param, grad, exp_avg, exp_avg_sq, bounds, decay, factors, decoupled, 0, param.size)
    else:
        for b in prange(count(param.size)):
            stop = end(b, param.size)
            _range(param, grad, exp_avg, exp_avg_sq, bounds, decay, factors, decoupled, b * BLOCK, stop)


@njit(error_model="numpy")
def _range(param, grad, exp_avg, exp_avg_sq, bounds, decay, factors, decoupled, start, stop):
    """Elements start .. stop - 1, segment by segment."""
    n = simd.lanes(param)
    for s in range(decay.size):
        keep = 1.0 - factors[-1] * decay[s] if decoupled else 1.0
        penalty = 0.0 if decoupled else decay[s]
        i, last = max(start, bounds[s]), min(stop, bounds[s + 1])
        while i < last:
            left = min(n, last - i)
            if left == n:
                p, g, m, v = simd.load(param, i), simd.load(grad, i), simd.load(exp_avg, i), simd.load(exp_avg_sq, i)
                p, m, v = _update(p, g, m, v, keep, penalty, factors)
                simd.store(param, i, p)
                simd.store(exp_avg, i, m)
                simd.store(exp_avg_sq, i, v)
            else:
                p, g = simd.load_tail(param, i, left), simd.load_tail(grad, i, left)
                m, v = simd.load_tail(exp_avg, i, left), simd.load_tail(exp_avg_sq, i, left)
                p, m, v = _update(p, g, m, v, keep, penalty, factors)
                simd.store_tail(param, i, p, left)
                simd.store_tail(exp_avg, i, m, left)
                simd.store_tail(exp_avg_sq, i, v, left)
            i += n


@njit(error_model="numpy", forceinline=True)
def _update(p, g, m, v, keep, penalty, factors):
    scale, beta1, rest1, beta2, rest2, rate, inverse_root, eps, _ = factors
    g = simd.fma(p, penalty, g * scale)
    m = simd.fma(m, beta1, g * rest1)
    v = simd.fma(v, beta2, g * g * rest2)
    step = m * rate / simd.fma(simd.sqrt(v), inverse_root, eps)
    return p * keep - step, m, v
