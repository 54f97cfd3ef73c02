"""Softmax and its logarithm: scores to probabilities along one axis."""

from __future__ import annotations

from typing import Any

import numpy as np

import kernels

from ..device import array_module
from ..engine import op
from .arrays import by_kernel
from .dtype import floating
from .elementwise import exp

__all__ = ["log_softmax", "softmax"]


@op
def softmax(x: Any, dim: int = -1) -> Any:
    """p_i = exp(x_i) / sum_j exp(x_j) along `dim`; shape of x.

    The largest x is subtracted first, so that exp never overflows: nothing changes, it cancels. An entry of -inf gets
    probability 0; a row of nothing but -inf is 0/0 and gives NaN, as in PyTorch.

    >>> import numpy as np
    >>> softmax(np.array([1e4, 1e4, 0.0]))
    array([0.5, 0.5, 0. ])
    """
    x = floating(x)
    if _by_kernel(x, dim):
        return kernels.softmax_forward(x)
    if x.size == 0:
        return x.copy()
    xp = array_module(x)
    e = xp.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


@softmax.vjp
def _(dout, out, dim):  # the Jacobian is diag(p) - p p^T
    if _by_kernel(out, dim):
        return kernels.softmax_backward(dout, out)
    return out * (dout - (dout * out).sum(axis=dim, keepdims=True))


@op
def log_softmax(x: Any, dim: int = -1) -> Any:
    """log p_i = x_i - log sum_j exp(x_j) along `dim`; shape of x. Exact where softmax itself would round to 0.

    >>> import numpy as np
    >>> log_softmax(np.array([1e4, 0.0]))
    array([     0., -10000.])
    """
    x = floating(x)
    if _by_kernel(x, dim):
        return kernels.log_softmax_forward(x)
    if x.size == 0:
        return x.copy()
    xp = array_module(x)
    z = x - x.max(axis=dim, keepdims=True)
    return z - xp.log(xp.exp(z).sum(axis=dim, keepdims=True))


@log_softmax.vjp
def _(dout, out, dim):
    if _by_kernel(out, dim):
        return kernels.log_softmax_backward(dout, out)
    return dout - exp(out) * dout.sum(axis=dim, keepdims=True)


def _by_kernel(x: Any, dim: int) -> bool:
    """Along the last axis, where a kernel takes the array; a rule on Tensors uses its formula."""
    return dim in (-1, x.ndim - 1) and x.ndim > 0 and (type(x) is np.ndarray or by_kernel("softmax", x))
