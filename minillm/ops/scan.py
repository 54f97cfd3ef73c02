"""Products, and running sums and products along a dim.

The products multiply and never divide: the engine differentiates the multiplications, so a 0 among the factors is no
special case, at any order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.arrays import array_module

from ..arguments import composed
from ..engine import op
from .dtype import to_dtype
from .shape import cat, flip
from .views import axes_of, axis_of, movedim, reshape, transpose

__all__ = ["prod", "cumsum", "cumprod"]


@composed
def prod(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The product over one dim, several or all; integers and bools give int64, nothing to multiply gives 1.

    >>> import minillm
    >>> x = minillm.tensor([3.0, 0.0, 4.0], requires_grad=True)
    >>> x.prod().backward(); x.grad
    tensor([ 0., 12.,  0.])
    """
    axes = tuple(range(x.ndim)) if dim is None or x.ndim == 0 else tuple(axes_of(dim, x.ndim))
    kept = tuple([n for i, n in enumerate(x.shape) if i not in axes])
    last = movedim(x, axes, tuple(range(x.ndim - len(axes), x.ndim)))
    out = _product(_integers_wide(reshape(last, (*kept, math.prod([x.shape[a] for a in axes])))))
    return reshape(out, tuple([1 if i in axes else n for i, n in enumerate(x.shape)])) if keepdim else out


def _product(x: Any) -> Any:
    """Over the last dim, the first half times the second half, over and over: log2 n multiplications deep."""
    n = x.shape[-1]
    if n < 2:
        return x[..., 0] if n else x.sum(axis=-1) + 1
    halves = _product(x[..., : n // 2] * x[..., n // 2 : n - n % 2])
    return halves * x[..., -1] if n % 2 else halves


@op
def cumsum(x, dim):
    """out[i] = x[0] + ... + x[i] along dim, added up in float64; integers and bools give int64."""
    wide = np.int64 if x.dtype.kind in "iub" else np.float64
    if x.ndim == 0:
        return x.copy()
    out = array_module(x).cumsum(x, axis=axis_of(dim, x.ndim), dtype=wide)
    return out if wide is np.int64 else out.astype(x.dtype)


@cumsum.vjp
def _(dout, dim):
    if dout.ndim == 0:
        return dout
    return flip(cumsum(flip(dout, dim), dim), dim)  # dx[i] = dout[i] + ... + dout[-1]


@composed
def cumprod(x: Any, dim: int) -> Any:
    """out[i] = x[0] * ... * x[i] along dim; integers and bools give int64.

    By doubling (Hillis and Steele 1986): once each element holds the product of the last k, one multiplication by the
    element k places before makes it the last 2k.
    """
    x = _integers_wide(x)
    if x.ndim == 0:
        return x * 1
    out, k = transpose(x, axis_of(dim, x.ndim), -1), 1
    while k < out.shape[-1]:
        out, k = cat([out[..., :k], out[..., k:] * out[..., :-k]], dim=-1), 2 * k
    return transpose(out, axis_of(dim, x.ndim), -1)


def _integers_wide(x: Any) -> Any:
    return to_dtype(x, np.int64) if x.dtype.kind in "iub" else x
