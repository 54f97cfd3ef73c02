"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..device import array_module
from .optimizer import Optimizer, zeros_like


class RMSprop(Optimizer):
    """The gradient over the root of its running mean square, as torch.optim.RMSprop takes it.

        g          = grad + weight_decay * param
        square_avg = alpha * square_avg + (1 - alpha) * g^2
        grad_avg   = alpha * grad_avg + (1 - alpha) * g          centered only; then square_avg - grad_avg^2 is used
        g          = g / (sqrt(square_avg) + eps)
        buffer     = momentum * buffer + g                       with momentum; then g = buffer
        param      = param - lr * g

    Sources: Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013, arXiv:1308.0850.
    """

    elementwise = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ):
        settings = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**settings, "centered": centered})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        if not 0 <= group["alpha"] <= 1:
            raise ValueError(f"RMSprop: alpha is the weight of the past, 0 <= alpha <= 1; got {group['alpha']}")

    def update(self, param: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        xp, alpha = array_module(param), group["alpha"]
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * param
        square_avg = _average(state, "square_avg", alpha, grad * grad)
        if group["centered"]:
            grad_avg = _average(state, "grad_avg", alpha, grad)
            square_avg = xp.maximum(square_avg - grad_avg * grad_avg, 0)  # rounding can make a variance of 0 negative
        grad = grad / (xp.sqrt(square_avg) + group["eps"])
        if group["momentum"]:
            buffer = state.setdefault("momentum_buffer", zeros_like(param))
            buffer *= group["momentum"]
            buffer += grad
            grad = buffer
        param -= group["lr"] * grad


def _average(state: dict[str, Any], name: str, alpha: float, new: Any) -> Any:
    """state[name] = alpha * state[name] + (1 - alpha) * new, in place; from zeros."""
    if name not in state:
        state[name] = zeros_like(new)
    state[name] *= alpha
    state[name] += (1 - alpha) * new
    return state[name]
