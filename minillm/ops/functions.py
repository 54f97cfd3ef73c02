"""The elementary functions, with the derivative under each. Integers give float32, as in PyTorch."""

from __future__ import annotations

import math

from kernels.arrays import array_module

from ..engine import op
from .dtype import floating

__all__ = ["sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf"]


@op
def sqrt(x):
    """The square root; its slope at 0 is infinite."""
    return array_module(x).sqrt(floating(x))


@sqrt.vjp
def _(dout, out):
    return dout / (2 * out)


@op
def rsqrt(x):
    """1 / sqrt(x)."""
    return 1 / array_module(x).sqrt(floating(x))


@rsqrt.vjp
def _(dout, out):
    return dout * (-0.5 * out * out * out)


@op
def exp(x):
    """e ** x."""
    return array_module(x).exp(floating(x))


@exp.vjp
def _(dout, out):
    return dout * out


@op
def expm1(x):
    """exp(x) - 1, exact near 0."""
    return array_module(x).expm1(floating(x))


@expm1.vjp
def _(dout, out):
    return dout * (out + 1)


@op
def log(x):
    """The natural logarithm."""
    return array_module(x).log(floating(x))


@log.vjp
def _(dout, x):
    return dout / x


@op
def log1p(x):
    """log(1 + x), exact near 0."""
    return array_module(x).log1p(floating(x))


@log1p.vjp
def _(dout, x):
    return dout / (1 + x)


@op
def sin(x):
    """The sine of x in radians."""
    return array_module(x).sin(floating(x))


@sin.vjp
def _(dout, x):
    return dout * cos(x)


@op
def cos(x):
    """The cosine of x in radians."""
    return array_module(x).cos(floating(x))


@cos.vjp
def _(dout, x):
    return dout * -sin(x)


@op
def tanh(x):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""
    return array_module(x).tanh(floating(x))


@tanh.vjp
def _(dout, out):
    return dout * (1 - out * out)


@op
def sigmoid(x):
    """1 / (1 + exp(-x)), by exp(-|x|): nothing overflows."""
    xp, x = array_module(x), floating(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1 / (1 + e), e / (1 + e))


@sigmoid.vjp
def _(dout, out):
    return dout * (out * (1 - out))


@op
def erf(x):
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    from kernels.gelu.erf import erf as kernel

    return kernel(floating(x))


@erf.vjp
def _(dout, x):
    return dout * (2 / math.sqrt(math.pi) * exp(-x * x))
