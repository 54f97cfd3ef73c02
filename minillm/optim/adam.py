"""Adam and AdamW, on a fused kernel: one pass over parameter, gradient and both moments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kernels

from .optimizer import Optimizer, zeros_like


class Adam(Optimizer):
    """Steps of about lr in each coordinate: the mean gradient over the root of its mean square.

        g          = grad + weight_decay * param
        exp_avg    = beta1 * exp_avg + (1 - beta1) * g
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g^2
        param      = param - lr * m / (sqrt(v) + eps)       m = exp_avg / (1 - beta1^t), v = exp_avg_sq / (1 - beta2^t)

    Source: Kingma and Ba 2014, arXiv:1412.6980. Settings and state have the names that torch.optim.Adam's have.
    """

    elementwise = True
    decoupled = False  # weight_decay is part of the gradient

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"{type(self).__name__}: betas are two numbers, 0 <= beta < 1; got {group['betas']}")

    def update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        self.update_scaled(param, grad, 1.0, state, group)

    def update_scaled(self, param: Any, grad: Any, scale: float, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, exp_avg=zeros_like(param), exp_avg_sq=zeros_like(param))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        kernels.adamw_step(
            param, grad, state["exp_avg"], state["exp_avg_sq"], lr=group["lr"], beta1=beta1, beta2=beta2,
            eps=group["eps"], weight_decay=group["weight_decay"], step=state["step"], grad_scale=scale,
            decoupled=self.decoupled,
        )  # fmt: skip


class AdamW(Adam):
    """Adam whose weight decay is not part of the gradient: param = param * (1 - lr * weight_decay) before the step.

    Source: Loshchilov and Hutter 2017, Decoupled Weight Decay Regularization, arXiv:1711.05101.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)
