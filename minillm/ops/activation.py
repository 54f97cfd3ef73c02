"""Activation functions. sigmoid and tanh are with the elementary functions; softmax has a file of its own."""

from __future__ import annotations

import math
from typing import Any

import kernels
from kernels.arrays import array_module

from ..arguments import composed
from ..engine import op
from .choice import clamp, where
from .dtype import floating
from .functions import erf, exp, sigmoid, tanh

__all__ = ["relu", "relu_squared", "leaky_relu", "elu", "gelu", "silu", "swiglu", "mish", "softplus", "logsigmoid"]


@op
def relu(x):
    """max(x, 0); relu'(0) = 0."""
    return array_module(x).maximum(x, 0)


@relu.vjp
def _(dout, out):
    return where(out > 0, dout, 0.0)


@op
def relu_squared(x):
    """max(x, 0)^2 (So et al. 2021, Primer, https://arxiv.org/abs/2109.08668)."""
    positive = array_module(x).maximum(x, 0)
    return positive * positive


@relu_squared.vjp
def _(dout, x):
    return dout * relu(x) * 2


@op
def leaky_relu(x, negative_slope=0.01):
    """x where x > 0, negative_slope * x elsewhere (its slope at 0, too)."""
    x = floating(x)
    return array_module(x).where(x > 0, x, x * negative_slope)


@leaky_relu.vjp
def _(dout, x, negative_slope):
    return where(x > 0, dout, dout * negative_slope)


@op
def elu(x, alpha=1.0):
    """x where x > 0, alpha (exp(x) - 1) elsewhere (Clevert et al. 2016, https://arxiv.org/abs/1511.07289)."""
    xp, x = array_module(x), floating(x)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


@elu.vjp
def _(dout, x, alpha):
    return where(x > 0, dout, dout * alpha * exp(clamp(x, max=0.0)))


def _gelu_of_ops(x, approximate="none"):
    if approximate == "tanh":
        return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


@op(composite=_gelu_of_ops)
def gelu(x, approximate="none"):
    """x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415).

    approximate  "none": Phi(x) = (1 + erf(x / sqrt 2)) / 2
                 "tanh": Phi(x) ~ (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, as in GPT-2
    """
    return kernels.gelu_forward(floating(x), approximate)


@gelu.vjp
def _(dout, x, approximate):
    return kernels.gelu_backward(dout, x, approximate)


def _silu_of_ops(x):
    return x * sigmoid(x)


@op(composite=_silu_of_ops)
def silu(x):
    """x sigmoid(x), also called swish (Elfwing et al. 2017, https://arxiv.org/abs/1702.03118)."""
    return kernels.silu_forward(floating(x))


@silu.vjp
def _(dout, x):
    return kernels.silu_backward(dout, x)


def _swiglu_of_ops(gate, up):
    return _silu_of_ops(gate) * up


@op(composite=_swiglu_of_ops)
def swiglu(gate, up):
    """silu(gate) * up, of one shape (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""
    return kernels.swiglu_forward(gate, up)


@swiglu.vjp
def _(dout, gate, up):
    return kernels.swiglu_backward(dout, gate, up)


@composed
def mish(x: Any) -> Any:
    """x tanh(softplus(x)) (Misra 2019, https://arxiv.org/abs/1908.08681)."""
    return x * tanh(softplus(x))


@op
def softplus(x, beta=1.0, threshold=20.0):
    """log(1 + exp(beta x)) / beta; x itself where beta x > threshold, where the two agree to rounding.

    Written max(z, 0) + log1p(exp(-|z|)) with z = beta x: nothing overflows.
    """
    xp, x = array_module(x), floating(x)
    z = x * beta
    soft = (xp.maximum(z, 0) + xp.log1p(xp.exp(-xp.abs(z)))) / beta
    return xp.where(z > threshold, x, soft)


@softplus.vjp
def _(dout, x, beta, threshold):
    z = x * beta
    return where(z > threshold, dout, dout * sigmoid(z))


@op
def logsigmoid(x):
    """log(sigmoid(x)) = min(x, 0) - log1p(exp(-|x|))."""
    xp, x = array_module(x), floating(x)
    return xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x)))


@logsigmoid.vjp
def _(dout, x):
    return dout * sigmoid(-x)
