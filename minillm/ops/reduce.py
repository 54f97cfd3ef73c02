"""Over dims: sums and moments, logsumexp, norms, truth. `dim` is one dim, several, or None for all.

A reduced dim goes away, or stays with size 1 under keepdim. A 0-d input counts as one element, with dim 0 or -1.
"""

from __future__ import annotations

import math

import numpy as np

from kernels.arrays import array_module

from ..engine import op
from ..summation import sum_over
from .arithmetic import pow
from .choice import abs, where
from .constants import sign
from .dims import array, count, reduced, restored
from .dtype import floating
from .extremes import amax, amin, argmax, argmin, max, min, to_the_ties
from .functions import exp
from .scan import cumprod, cumsum, prod
from .views import broadcast_to

__all__ = [
    "sum", "mean", "var", "std", "prod", "cumsum", "cumprod",
    "amax", "amin", "max", "min", "argmax", "argmin", "all", "any", "logsumexp", "norm",
]  # fmt: skip


# ----------------------------------------------------------------------------------------- sums and moments


@op
def sum(x, dim=None, keepdim=False):
    """The sum; integers and bools give int64, nothing to add gives 0.

    >>> import minillm
    >>> minillm.tensor([[1.0, 2.0], [3.0, 4.0]]).sum(dim=0)
    tensor([4., 6.])
    """
    x = array(x)
    axes = reduced(x.shape, dim)
    if x.dtype.kind in "iub":
        return x.sum(axis=axes, dtype=np.int64, keepdims=keepdim), {"shape": x.shape}
    return sum_over(x, axes, keepdim), {"shape": x.shape}


@sum.vjp
def _(dout, dim, shape):
    return broadcast_to(restored(dout, shape, dim), shape)


@op
def mean(x, dim=None, keepdim=False):
    """The sum over n, divided by n, added up in float64; nan for n = 0. Integers and bools give float32."""
    x = floating(array(x))
    total = x.sum(axis=reduced(x.shape, dim), dtype=np.float64, keepdims=keepdim)
    return (total / (count(x.shape, dim) or math.nan)).astype(x.dtype), {"shape": x.shape}


@mean.vjp
def _(dout, dim, shape):
    return broadcast_to(restored(dout / (count(shape, dim) or math.nan), shape, dim), shape)


def _deviations(x, dim):
    """x - mean(x), float64."""
    total = x.sum(axis=reduced(x.shape, dim), dtype=np.float64, keepdims=True)
    return x - total / (count(x.shape, dim) or math.nan)


@op
def centered(x, dim):
    """x - mean(x, dim), in float64 before it is rounded to x's dtype."""
    x = array(x)
    return _deviations(x, dim).astype(x.dtype)


@centered.vjp
def _(dout, dim):
    return centered(dout, dim)  # taking the mean away is a projection: symmetric


def _variance(x, dim, correction, keepdim):
    d = _deviations(x, dim)
    return (d * d).sum(axis=reduced(x.shape, dim), keepdims=keepdim) / _freedom(x.shape, dim, correction)


def _freedom(shape, dim, correction):
    """n - correction; nan, which makes the result nan, where too few elements are left."""
    n = count(shape, dim) - correction
    return n if n > 0 else math.nan


@op
def var(x, dim=None, correction=1, keepdim=False):
    """sum (x - mean)^2 / (n - correction), in two passes and in float64; nan for n <= correction.

    correction  1: the unbiased estimate of a distribution's variance (Bessel); 0: the variance of these n numbers
    """
    x = floating(array(x))
    return _variance(x, dim, correction, keepdim).astype(x.dtype)


@var.vjp
def _(dout, x, dim, correction):
    return centered(x, dim) * restored(dout * (2 / _freedom(x.shape, dim, correction)), x.shape, dim)


@op
def std(x, dim=None, correction=1, keepdim=False):
    """The square root of `var`; its gradient is 0 where all elements are equal."""
    x = floating(array(x))
    return array_module(x).sqrt(_variance(x, dim, correction, keepdim)).astype(x.dtype)


@std.vjp
def _(dout, x, out, dim, correction):
    slope = where(out == 0, 0.0, dout / where(out == 0, 1.0, out))
    return centered(x, dim) * restored(slope / _freedom(x.shape, dim, correction), x.shape, dim)


@op(differentiable=False)
def all(x, dim=None, keepdim=False):
    """True where no element is 0 or False."""
    x = array(x)
    return x.all(axis=reduced(x.shape, dim), keepdims=keepdim)


@op(differentiable=False)
def any(x, dim=None, keepdim=False):
    """True where some element is neither 0 nor False."""
    x = array(x)
    return x.any(axis=reduced(x.shape, dim), keepdims=keepdim)


# -------------------------------------------------------------------------------------- logsumexp and norms


@op
def logsumexp(x, dim=None, keepdim=False):
    """log sum exp(x), shifted by the largest x: nothing overflows. All x -inf: -inf, with gradient 0."""
    x = floating(array(x))
    xp, axes = array_module(x), reduced(x.shape, dim)
    top = (x.max if count(x.shape, dim) else x.sum)(axis=axes, keepdims=True)  # the empty sum: 0
    top = xp.where(xp.isfinite(top), top, 0)
    total = xp.exp(x - top).sum(axis=axes, keepdims=True)
    out = xp.where(total == 0, -math.inf, xp.log(xp.where(total == 0, 1, total)) + top)  # nan stays nan
    return out if keepdim else out.squeeze(axes)


@logsumexp.vjp
def _(dout, x, out, dim):
    out = where(out == -math.inf, 0.0, out)
    return restored(dout, x.shape, dim) * exp(x - restored(out, x.shape, dim))


@op
def norm(x, p=2.0, dim=None, keepdim=False):
    """(sum |x|^p)^(1/p), p > 0; p = inf: the largest |x|. Its gradient is 0 where the norm is 0."""
    x = floating(array(x))
    if not isinstance(p, (int, float)) or not p > 0:
        raise ValueError(f"p is a positive number or math.inf; got {p!r}")
    a, axes = array_module(x).abs(x), reduced(x.shape, dim)
    if p == math.inf:
        return a.max(axis=axes, keepdims=keepdim)
    a = a if p == 1 else a.astype(np.float64)  # squares of float32 neither overflow nor vanish there
    total = (a * a if p == 2 else a**p).sum(axis=axes, keepdims=keepdim)
    return (total ** (1 / p)).astype(x.dtype)


@norm.vjp
def _(dout, x, out, p, dim):
    if p == math.inf:
        return sign(x) * to_the_ties(dout, abs(x), out, dim)
    dout, out = restored(dout, x.shape, dim), restored(out, x.shape, dim)
    safe = where(out == 0, 1.0, out)
    if p == 2:
        return dout * where(out == 0, 0.0, x / safe)
    zero = x == 0  # apart, for p < 1: 0 ** -0.5 must not be formed
    return dout * where(zero, 0.0, sign(x) * pow(where(zero, 1.0, abs(x) / safe), p - 1))
