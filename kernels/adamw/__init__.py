"""Adam (Kingma and Ba 2014, https://arxiv.org/abs/1412.6980) and AdamW (Loshchilov and Hutter 2017, 1711.05101)."""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape
from ..dispatch import implementation


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
    kernel = "adamw_step"
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
    settings = (lr, beta1, beta2, eps, weight_decay, step, grad_scale, decoupled)
    implementation("adamw", impl, param).adamw_step(param, grad, exp_avg, exp_avg_sq, *settings)
