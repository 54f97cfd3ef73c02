"""Adam (Kingma and Ba 2014, https://arxiv.org/abs/1412.6980) and AdamW (Loshchilov and Hutter 2017, 1711.05101)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checks import check_arrays, check_shape
from ..dispatch import implementation
from .segments import Segment, cover


def adamw_step(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    step: int,
    grad_scale: float = 1.0,
    decoupled: bool = True,
    impl: str | None = None,
) -> None:
    """One step of AdamW (decoupled=True) or of Adam with an L2 penalty (False), as torch.optim.AdamW and Adam take it.

        g          = grad * grad_scale               1.0, or the factor that clips the gradient or undoes loss scaling
        param      = param * (1 - lr * weight_decay)               decoupled
        g          = g + weight_decay * param                      not decoupled
        exp_avg    = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g^2
        param      = param - lr * m / (sqrt(v) + eps)              m = exp_avg / (1 - beta1^step)
                                                                   v = exp_avg_sq / (1 - beta2^step)

    param, exp_avg, exp_avg_sq: written in place, so C-contiguous and writable. grad: read only, any strides.
    All of one shape (any) and one floating dtype; exp_avg and exp_avg_sq start as zeros. step counts from 1.
    ValueError for shapes or strides that do not fit and for step < 1, TypeError for dtypes that differ.
    """
    _check("adamw_step", param, grad, exp_avg, exp_avg_sq, step)
    settings = (lr, beta1, beta2, eps, weight_decay, step, grad_scale, decoupled)
    implementation("adamw", impl, param).adamw_step(param, grad, exp_avg, exp_avg_sq, *settings)


def adamw_flat(
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    step: int,
    weight_decay: float | Sequence[Segment] = 0.0,
    scale: float = 1.0,
    decoupled: bool = True,
    impl: str | None = None,
) -> None:
    """`adamw_step` for all parameters of a model at once, which lie one after another in flat buffers (N,).

    weight_decay   one number, or segments (start, stop, decay), elements start .. stop - 1 each, in rising order and
                   apart; elements in none of them decay by 0. A tuple of tuples is looked at once and remembered.
    scale          factor of the gradient; `clip_factor(global_norm(grad), limit)` clips it, with no pass of its own
    decoupled      False: Adam, the decay is added to the gradient

    Each element gets the same bits as from `adamw_step`. ValueError for buffers of more axes and for segments that
    overlap or reach beyond N; otherwise as `adamw_step`.
    """
    _check("adamw_flat", param, grad, exp_avg, exp_avg_sq, step)
    if param.ndim != 1:
        raise ValueError(f"adamw_flat: param has shape {param.shape}, expected (N,), a flat buffer; or use adamw_step")
    segmented = isinstance(weight_decay, Sequence)
    decay: Any = cover(tuple(map(tuple, weight_decay)), param.size) if segmented else weight_decay  # type: ignore
    settings = (lr, beta1, beta2, eps, decay, step, scale, decoupled)
    implementation("adamw", impl, param).adamw_flat(param, grad, exp_avg, exp_avg_sq, *settings)


def clip_factor(norm: float, limit: float) -> float:
    """min(1, limit / (norm + 1e-6)): what a gradient of this norm is multiplied by to be no longer than `limit`."""
    if not limit >= 0:
        raise ValueError(f"clip_factor: the limit of the norm must be 0 or more, got {limit}")
    factor = limit / (norm + 1e-6)
    return 1.0 if factor > 1.0 else factor  # NaN stays NaN: a broken gradient is not to pass for a good one


def _check(kernel: str, param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, step: int) -> None:
    check_arrays(kernel, param=param, grad=grad, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    for name, array in (("grad", grad), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        check_shape(kernel, name, array, param.shape, "that of param")
    for name, array in (("param", param), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        if not array.flags.c_contiguous:
            raise ValueError(
                f"{kernel}: {name} of shape {array.shape} has strides {array.strides}; it is written in place and must "
                "be C-contiguous: keep a copy made with numpy.ascontiguousarray as the parameter"
            )
        if not getattr(array.flags, "writeable", True):
            raise ValueError(f"{kernel}: {name} is read-only, but it is written in place; keep a copy of it instead")
    if step < 1:
        raise ValueError(f"{kernel}: step is {step}, but it counts from 1: 1 in the first update")
