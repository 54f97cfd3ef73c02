"""One of several values: where, maximum, minimum, clamp, |x|. The gradient goes to the value that was taken."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.arrays import array_module, is_array

from ..arguments import composed
from ..dtypes import DEFAULT
from ..engine import op
from .constants import sign
from .dtype import floating, operands

__all__ = ["where", "masked_fill", "maximum", "minimum", "clamp", "abs"]


@op(broadcasting=True)
def where(condition, x, y):
    """x where the (bool) condition holds, y elsewhere; what was not chosen, nan included, reaches no gradient."""
    if is_array(condition) and condition.dtype != bool:
        raise TypeError(f"condition must be bool; got {condition.dtype}: write (condition != 0)")
    xp = array_module(condition, x, y)
    x, y = operands(x, y)
    out = xp.where(condition, x, y)
    if xp is not np and out.dtype == np.float32:  # CuPy's where knows no bfloat16
        narrow = [a.dtype for a in (x, y) if is_array(a) and a.dtype.kind == "V"]
        out = out.astype(narrow[0]) if narrow else out
    if type(x) is not float and type(y) is not float:
        return out
    like = x if is_array(x) else y
    if is_array(like):
        return out if out.dtype == like.dtype else out.astype(like.dtype)  # bfloat16 and a float literal
    return out.astype(DEFAULT) if out.ndim else out


@where.vjp
def _(dout, condition, needs_grad):
    dx = where(condition, dout, 0.0) if needs_grad[1] else None
    dy = where(condition, 0.0, dout) if needs_grad[2] else None
    return None, dx, dy


@composed
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """x with `value` wherever the bool mask holds; the shapes broadcast."""
    return where(mask, value, x)


@op
def abs(x):
    """|x|; its slope at 0 is 0."""
    return array_module(x).abs(x)


@abs.vjp
def _(dout, x):
    return dout * sign(x)


@op(broadcasting=True)
def maximum(x, y):
    """The larger of the two; where they tie each gets half of the gradient."""
    x, y = operands(x, y)
    return array_module(x, y).maximum(x, y)


@maximum.vjp
def _(dout, x, y):
    shared = where(x == y, dout * 0.5, dout)
    return where(x < y, 0.0, shared), where(x > y, 0.0, shared)


@op(broadcasting=True)
def minimum(x, y):
    """The smaller of the two; where they tie each gets half of the gradient."""
    x, y = operands(x, y)
    return array_module(x, y).minimum(x, y)


@minimum.vjp
def _(dout, x, y):
    shared = where(x == y, dout * 0.5, dout)
    return where(x > y, 0.0, shared), where(x < y, 0.0, shared)


@op
def clamp(x, min=None, max=None):
    """x held between two numbers (None: no bound); slope 1 inside and on the bounds, 0 outside."""
    for name, bound in (("min", min), ("max", max)):
        if bound is not None and not isinstance(bound, (int, float)):
            raise TypeError(f"{name} is a number or None; got {type(bound).__name__}: use maximum, minimum for arrays")
    if min is None and max is None:
        raise ValueError("needs min, max or both")
    if isinstance(min, float) or isinstance(max, float):
        x = floating(x)
    return array_module(x).clip(x, min, max)


@clamp.vjp
def _(dout, x, min, max):
    if min is not None:
        dout = where(x < min, 0.0, dout)
    return dout if max is None else where(x > max, 0.0, dout)
