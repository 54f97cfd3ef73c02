"""Arithmetic with broadcasting, and its derivatives.

`dout` is the gradient of the output, in the output's shape: the engine sums what the rules return over broadcast axes.
Integers give float32 wherever the result is a real number, as in PyTorch.
"""

from __future__ import annotations

import math

from ..engine import op
from .choice import where
from .constants import zeros_like
from .dtype import floating, operands
from .functions import log

__all__ = ["add", "sub", "mul", "div", "neg", "pow", "remainder", "square", "reciprocal"]


@op(broadcasting=True)
def add(x, y):
    """x + y."""
    if type(x) is not type(y):
        x, y = operands(x, y)
    return x + y


@add.vjp
def _(dout):
    return dout, dout


@op(broadcasting=True)
def sub(x, y):
    """x - y."""
    if type(x) is not type(y):
        x, y = operands(x, y)
    return x - y


@sub.vjp
def _(dout):
    return dout, -dout


@op(broadcasting=True)
def mul(x, y):
    """x * y."""
    if type(x) is not type(y):
        x, y = operands(x, y)
    return x * y


@mul.vjp
def _(dout, x, y, needs_grad):  # x * 2 needs one of them, and 0 * inf from the other would only be a warning
    return (dout * y if needs_grad[0] else None), (dout * x if needs_grad[1] else None)


@op(broadcasting=True)
def div(x, y):
    """x / y, true division: integers give float32.

    >>> import minillm
    >>> minillm.tensor([1, 2]) / 4
    tensor([0.25, 0.5 ])
    """
    return floating(x) / floating(y)


@div.vjp
def _(dout, y, out, needs_grad):
    dx = dout / y
    return dx, (-dx * out if needs_grad[1] else None)


@op
def neg(x):
    """-x."""
    return -x


@neg.vjp
def _(dout):
    return -dout


@op(broadcasting=True)
def pow(x, exponent):
    """x ** exponent; both may be tensors.

    Where x is 0: exponent 0 has slope 0 in x, and the slope in the exponent is 0. Where x < 0: x may have any integer
    exponent; the slope in the exponent does not exist and is nan.
    """
    x, exponent = operands(x, exponent)
    return x**exponent


@pow.vjp
def _(dout, x, exponent, out, needs_grad):
    dx = dexponent = None
    if needs_grad[0]:
        if isinstance(exponent, (int, float)):
            dx = dout * (exponent * pow(x, exponent - 1)) if exponent != 0 else zeros_like(dout)
        else:  # 0 ** -1 must not be formed
            constant = exponent == 0
            dx = where(constant, 0.0, dout * exponent * pow(x, where(constant, 1.0, exponent - 1)))
    if needs_grad[1]:
        edge = where((x == 0) * (exponent >= 0), 0.0, math.nan)
        dexponent = where(x > 0, dout * out * log(where(x > 0, x, 1.0)), edge)
    return dx, dexponent


@op(broadcasting=True)
def remainder(x, y):
    """x - y floor(x / y): has the sign of y."""
    x, y = operands(x, y)
    return x % y


@remainder.vjp
def _(dout, x, y, out):
    return dout, dout * (out - x) / y


@op
def square(x):
    """x ** 2."""
    return x * x


@square.vjp
def _(dout, x):
    return dout * (2 * x)


@op
def reciprocal(x):
    """1 / x."""
    return 1 / floating(x)


@reciprocal.vjp
def _(dout, out):
    return -dout * out * out
