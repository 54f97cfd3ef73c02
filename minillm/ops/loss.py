"""Losses of numbers and of probabilities: how far `input` is from `target`, element by element, then reduced.

Every loss takes reduction="mean" (over all elements), "sum" or "none". input and target have one shape: nothing is
broadcast. The losses of classes are in classification.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kernels

from ..device import array_module
from ..engine import op
from .activation import logsigmoid
from .arrays import array_of, constant
from .classification import cross_entropy, nll_loss
from .elementwise import clamp, exp, log, sigmoid, sign, to_dtype, where
from .loss_arguments import REDUCTIONS, check_reduction, reduce, same_shape
from .reduce import sum

__all__ = [
    "bernoulli_nll", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss",
    "kl_div", "l1_loss", "mse_loss", "nll_loss", "smooth_l1_loss",
]  # fmt: skip

# ------------------------------------------------------------------------------------------- numbers
# The ops are declared broadcasting for its promotion of dtypes only: the losses below see to equal shapes.


@op(broadcasting=True)
def _mse_loss(x, y):
    return array_module(x).square(x - y)


@_mse_loss.vjp
def _(dout, x, y, needs_grad):
    d = 2 * dout * (x - y)
    return d, -d if needs_grad[1] else None


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """(input - target)^2."""
    input, target = _pair("mse_loss", input, target, reduction)
    return reduce(_mse_loss(input, target), reduction)


@op(broadcasting=True)
def _l1_loss(x, y):
    return array_module(x).abs(x - y)


@_l1_loss.vjp
def _(dout, x, y, needs_grad):
    d = dout * sign(x - y)
    return d, -d if needs_grad[1] else None


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """|input - target|; the gradient where they are equal is 0."""
    input, target = _pair("l1_loss", input, target, reduction)
    return reduce(_l1_loss(input, target), reduction)


@op(broadcasting=True)
def _huber_loss(x, y, delta):
    a = array_module(x).abs(x - y)
    near = array_module(x).minimum(a, delta)
    return near * (a - 0.5 * near)


@_huber_loss.vjp
def _(dout, x, y, delta, needs_grad):
    d = dout * clamp(x - y, -delta, delta)
    return d, -d if needs_grad[1] else None


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2); d = input - target. The gradient is d, clipped.

    Source: Huber 1964, Robust Estimation of a Location Parameter.
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta, where the parabola turns into a line, must be above 0; got {delta}")
    input, target = _pair("huber_loss", input, target, reduction)
    return reduce(_huber_loss(input, target, float(delta)), reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """huber_loss with delta = beta, divided by beta; beta = 0 is l1_loss."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must be 0 or more; got {beta}")
    return l1_loss(input, target, reduction) if beta == 0 else huber_loss(input, target, reduction, beta) / beta


# ------------------------------------------------------------------------------------- probabilities


@op(broadcasting=True)
def _binary_cross_entropy(p, y):
    """-(y log p + (1 - y) log(1 - p)), the logarithms held at -100 or above."""
    xp = array_module(p)
    with np.errstate(divide="ignore"):
        log_p, log_q = xp.maximum(xp.log(p), -100), xp.maximum(xp.log1p(-p), -100)
    return -(y * log_p + (1 - y) * log_q)


@_binary_cross_entropy.vjp
def _(dout, p, y, needs_grad):
    dp = dout * (p - y) / clamp(p * (1 - p), 1e-12) if needs_grad[0] else None  # finite at p = 0 and 1
    return dp, dout * (_log(1 - p) - _log(p)) if needs_grad[1] else None


def _log(p):
    """max(log p, -100)"""
    with np.errstate(divide="ignore"):  # log 0 = -inf, which becomes -100
        return clamp(log(p), -100.0)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Any:
    """-(y log p + (1 - y) log(1 - p)) of probabilities p = input and targets y, both from 0 to 1.

    Logarithms below -100 count as -100, so that p = 0 and p = 1 give finite losses; gradients there are finite too, as
    in PyTorch. weight: a constant factor that broadcasts to the input. ValueError for input outside 0 .. 1.
    """
    input, target = _pair("binary_cross_entropy", input, target, reduction)
    p = array_of(input)
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # NaN is outside, too
        raise ValueError(
            f"binary_cross_entropy: input holds probabilities, from 0 to 1; these go from {float(p.min()):g} to "
            f"{float(p.max()):g}. For logits use binary_cross_entropy_with_logits"
        )
    return reduce(_weighted("binary_cross_entropy", _binary_cross_entropy(input, target), weight), reduction)


@op(broadcasting=True)
def _binary_cross_entropy_with_logits(x, y, pos_weight):
    """pos_weight y softplus(-x) + (1 - y) softplus(x), softplus(x) = log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    xp = array_module(x)
    tail = xp.log1p(xp.exp(-xp.abs(x)))  # never overflows
    return pos_weight * y * (xp.maximum(-x, 0) + tail) + (1 - y) * (xp.maximum(x, 0) + tail)


@_binary_cross_entropy_with_logits.vjp
def _(dout, x, y, pos_weight, needs_grad):
    dx = dout * ((1 - y) * sigmoid(x) - pos_weight * y * sigmoid(-x)) if needs_grad[0] else None
    return dx, dout * (logsigmoid(-x) - pos_weight * logsigmoid(x)) if needs_grad[1] else None


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """-(pos_weight y log p + (1 - y) log(1 - p)), p = sigmoid(input), from the logits: exact where p rounds to 0 or 1.

    weight, pos_weight: constant factors that broadcast to the input (pos_weight above 1 favours recall).
    """
    loss = "binary_cross_entropy_with_logits"
    input, target = _pair(loss, input, target, reduction)
    if weight is None and pos_weight is None and _constant_pair(input, target):
        if reduction == "none" or 0 in (input.ndim, *input.shape):
            return reduce(_bce_of_elements(input, target), reduction)
        rows = bernoulli_nll(input, target)
        return sum(rows) if reduction == "sum" else sum(rows) / math.prod(input.shape)
    pos_weight = 1 if pos_weight is None else _factor(loss, "pos_weight", pos_weight, input.shape)
    return reduce(_weighted(loss, _binary_cross_entropy_with_logits(input, target, pos_weight), weight), reduction)


def _elements_composite(logits, targets):
    return _binary_cross_entropy_with_logits(logits, targets, 1)


@op(composite=_elements_composite)
def _bce_of_elements(logits, targets):
    return kernels.bce_forward(logits, targets)


@_bce_of_elements.vjp
def _(dout, logits, targets):
    return kernels.bce_backward(dout, logits, targets)


def _rows_composite(logits, targets):
    return sum(_elements_composite(logits, targets), -1)


@op(composite=_rows_composite)
def _bce_of_rows(logits, targets):
    return kernels.bce_forward(logits, targets, rows=True)


@_bce_of_rows.vjp
def _(dout, logits, targets):
    return kernels.bce_backward(dout, logits, targets)


def bernoulli_nll(logits: Any, targets: Any) -> Any:
    """-log p(targets) of independent Bernoulli variables, p = sigmoid(logits), summed over the last axis.

    logits, targets (..., N) -> (...).

    The reconstruction loss of an autoencoder of black and white images, in one pass. Greys count as probabilities.

    >>> bernoulli_nll(np.zeros((1, 3)), np.array([[0.0, 1.0, 0.5]])).round(4)      # 3 log 2
    array([2.0794])
    """
    logits, targets = _pair("bernoulli_nll", logits, targets, "none")
    if not logits.ndim:
        raise ValueError("bernoulli_nll: logits have shape (); expected (..., N), to be summed over the last axis")
    if not _constant_pair(logits, targets):
        return sum(_binary_cross_entropy_with_logits(logits, targets, 1), -1)
    return _bce_of_rows(logits, targets)


def _constant_pair(input, target):
    """Whether the kernel can have them: one dtype, and no gradient for the target."""
    return input.dtype == target.dtype and input.dtype.kind == "f" and not getattr(target, "requires_grad", False)


@op(broadcasting=True)
def _kl_div(log_q, p):
    """p (log p - log q), 0 where p is 0."""
    some = p != 0
    return p * where(some, log(where(some, p, 1.0)) - log_q, 0.0)


@_kl_div.vjp
def _(dout, log_q, p, needs_grad):
    some = p != 0
    dp = dout * where(some, log(where(some, p, 1.0)) + 1 - log_q, 0.0) if needs_grad[1] else None
    return -dout * p, dp


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """KL(target || exp(input)), element by element: p (log p - input), p = target, or exp(target) if log_target.

    input holds log-probabilities. reduction="batchmean" (sum / first size) is the divergence as defined, averaged over
    the batch; "mean" divides by the number of elements, as in PyTorch. 0 log 0 = 0, with gradient 0.
    """
    check_reduction("kl_div", reduction, (*REDUCTIONS, "batchmean"))
    input, target = _pair("kl_div", input, target, "none")
    if log_target:
        p = exp(target)
        terms = p * where(p > 0, target - input, 0.0)
    else:
        terms = _kl_div(input, target)
    if reduction != "batchmean":
        return reduce(terms, reduction)
    return sum(terms) / (input.shape[0] if input.ndim else 1)


# ----------------------------------------------------------------------------------------- arguments


def _pair(loss, input, target, reduction):
    """input and target once they fit; a target of integers or bools in the input's dtype."""
    check_reduction(loss, reduction)
    same_shape(loss, input=input, target=target)
    return input, to_dtype(target, input.dtype) if target.dtype.kind in "biu" else target


def _weighted(loss, values, weight):
    return values if weight is None else values * _factor(loss, "weight", weight, values.shape)


def _factor(loss, name, factor, shape):
    factor = constant(loss, name, factor)
    if factor.ndim > len(shape) or any(n not in (1, m) for n, m in zip(factor.shape[::-1], shape[::-1])):
        raise ValueError(f"{loss}: {name} of shape {factor.shape} does not broadcast to the input's shape {shape}")
    return factor
