"""Normalisation over the trailing axes: LayerNorm and RMSNorm."""

from __future__ import annotations

from typing import Any

import numpy as np

import kernels

from ..engine import op
from .elementwise import rsqrt, square
from .loss_arguments import same_shape
from .reduce import mean

__all__ = ["add_layer_norm", "add_rms_norm", "layer_norm", "rms_norm"]


def layer_norm_composite(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """LayerNorm as its formula."""
    dims = _dims(normalized_shape)
    centred = x - mean(x, dims, True)  # (..., *normalized_shape)
    out = centred * rsqrt(mean(square(centred), dims, True) + eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@op(composite=layer_norm_composite)
def layer_norm(
    x: Any, normalized_shape: int | tuple[int, ...], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """(x - mean) / sqrt(var + eps) * weight + bias, over the trailing axes `normalized_shape` (an int or a tuple).

    x (..., *normalized_shape); weight, bias of shape normalized_shape, or None for ones and zeros. The variance is the
    biased one, and eps stands inside the root. Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450.

    >>> import numpy as np
    >>> layer_norm(np.array([1.0, 2.0, 3.0]), 3).round(4)
    array([-1.2247,  0.    ,  1.2247])
    """
    _check(x, normalized_shape, weight=weight, bias=bias)
    rows = _rows(x, normalized_shape)  # (..., N)
    out, mean, rstd = kernels.layernorm_forward(rows, _flat(weight), _flat(bias), eps)
    return out.reshape(x.shape), {"mean": mean, "rstd": rstd}


@layer_norm.vjp
def _(dout, x, normalized_shape, weight, mean, rstd, into=None):
    dx, dweight, dbias = _layer_norm_gradients(dout, None, x, normalized_shape, weight, mean, rstd, into, 2)
    return dx, None, dweight, dbias


def add_layer_norm_composite(x, residual, normalized_shape, weight=None, bias=None, eps=1e-5):
    """`add_layer_norm` as its formulas."""
    total = x + residual
    return layer_norm_composite(total, normalized_shape, weight, bias, eps), total


@op(outputs=2, composite=add_layer_norm_composite)
def add_layer_norm(
    x: Any,
    residual: Any,
    normalized_shape: int | tuple[int, ...],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    """(layer_norm(total), total) with total = x + residual: what a residual stream does at a layer, in one pass.

    x, residual (..., *normalized_shape), of one shape; the other arguments as in `layer_norm`.
    """
    _check(x, normalized_shape, weight=weight, bias=bias)
    same_shape("add_layer_norm", x=x, residual=residual)
    rows, others = _rows(x, normalized_shape), _rows(residual, normalized_shape)  # (..., N)
    out, mean, rstd, total = kernels.layernorm_forward(rows, _flat(weight), _flat(bias), eps, residual=others)
    total = total.reshape(x.shape)
    return out.reshape(x.shape), total, {"mean": mean, "rstd": rstd, "total": total}


@add_layer_norm.vjp
def _(douts, normalized_shape, weight, total, mean, rstd, into=None):
    dout, dtotal = douts
    if dout is None:
        return dtotal, dtotal
    dx, dweight, dbias = _layer_norm_gradients(dout, dtotal, total, normalized_shape, weight, mean, rstd, into, 3)
    return dx, dx, None, dweight, dbias


def _layer_norm_gradients(dout, dresidual, x, normalized_shape, weight, mean, rstd, into, at):
    """(dx, dweight, dbias); `into` holds arrays for the latter two at `at`, where their sums are to be added up."""
    rows, drows = _rows(x, normalized_shape), _rows(dout, normalized_shape)  # (..., N)
    dresidual = None if dresidual is None else _rows(dresidual, normalized_shape)
    dweight, dbias = into[at : at + 2] if into else (None, None)
    dx, dw, db = kernels.layernorm_backward(
        drows, rows, _flat(weight), mean, rstd, dresidual=dresidual, dweight=_flat(dweight), dbias=_flat(dbias)
    )
    shape = x.shape[x.ndim - len(_dims(normalized_shape)) :]
    dweight = dw.reshape(shape) if dweight is None else dweight
    return dx.reshape(x.shape), dweight, db.reshape(shape) if dbias is None else dbias


def rms_norm_composite(x, normalized_shape, weight=None, eps=None):
    """RMSNorm as its formula."""
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    out = x * rsqrt(mean(square(x), _dims(normalized_shape), True) + eps)
    return out if weight is None else out * weight


@op(composite=rms_norm_composite)
def rms_norm(x: Any, normalized_shape: int | tuple[int, ...], weight: Any = None, eps: float | None = None) -> Any:
    """x / sqrt(mean(x^2) + eps) * weight, over the trailing axes `normalized_shape` (an int or a tuple).

    x (..., *normalized_shape); weight of shape normalized_shape, or None for ones; eps None is the dtype's machine
    epsilon, as in PyTorch. Source: Zhang and Sennrich 2019, arXiv:1910.07467.

    >>> import numpy as np
    >>> rms_norm(np.array([3.0, -3.0]), 2).round(4)
    array([ 1., -1.])
    """
    _check(x, normalized_shape, weight=weight)
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    out, rstd = kernels.rmsnorm_forward(_rows(x, normalized_shape), _flat(weight), eps)
    return out.reshape(x.shape), {"rstd": rstd}


@rms_norm.vjp
def _(dout, x, normalized_shape, weight, rstd, into=None):
    dx, dweight = _rms_norm_gradients(dout, None, x, normalized_shape, weight, rstd, into, 2)
    return dx, None, dweight


def add_rms_norm_composite(x, residual, normalized_shape, weight=None, eps=None):
    """`add_rms_norm` as its formulas."""
    total = x + residual
    return rms_norm_composite(total, normalized_shape, weight, eps), total


@op(outputs=2, composite=add_rms_norm_composite)
def add_rms_norm(
    x: Any, residual: Any, normalized_shape: int | tuple[int, ...], weight: Any = None, eps: float | None = None
) -> Any:
    """(rms_norm(total), total) with total = x + residual, in one pass; the other arguments as in `rms_norm`."""
    _check(x, normalized_shape, weight=weight)
    same_shape("add_rms_norm", x=x, residual=residual)
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    rows, others = _rows(x, normalized_shape), _rows(residual, normalized_shape)  # (..., N)
    out, rstd, total = kernels.rmsnorm_forward(rows, _flat(weight), eps, residual=others)
    total = total.reshape(x.shape)
    return out.reshape(x.shape), total, {"rstd": rstd, "total": total}


@add_rms_norm.vjp
def _(douts, normalized_shape, weight, total, rstd, into=None):
    dout, dtotal = douts
    if dout is None:
        return dtotal, dtotal
    dx, dweight = _rms_norm_gradients(dout, dtotal, total, normalized_shape, weight, rstd, into, 3)
    return dx, dx, None, dweight


def _rms_norm_gradients(dout, dresidual, x, normalized_shape, weight, rstd, into, at):
    """(dx, dweight); `into` holds an array for the latter at `at`, where its sum is to be added up."""
    rows, drows = _rows(x, normalized_shape), _rows(dout, normalized_shape)  # (..., N)
    dresidual = None if dresidual is None else _rows(dresidual, normalized_shape)
    dweight = into[at] if into else None
    dx, dw = kernels.rmsnorm_backward(drows, rows, _flat(weight), rstd, dresidual=dresidual, dweight=_flat(dweight))
    shape = x.shape[x.ndim - len(_dims(normalized_shape)) :]
    return dx.reshape(x.shape), dw.reshape(shape) if dweight is None else dweight


def _shape(normalized_shape) -> tuple[int, ...]:
    return tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (int(normalized_shape),)


def _dims(normalized_shape) -> tuple[int, ...]:
    """(5, 3) -> (-2, -1)"""
    return tuple(range(-len(_shape(normalized_shape)), 0))


def _rows(x, normalized_shape):
    """(..., *normalized_shape) -> (..., N)"""
    if type(normalized_shape) is int or len(normalized_shape) == 1:
        return x
    return x.reshape(-1, int(np.prod(_shape(normalized_shape))))


def _flat(x):
    return x if x is None or x.ndim == 1 else x.reshape(-1)


def _check(x, normalized_shape, **parameters) -> None:
    shape = _shape(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape or 0 in shape:
        raise ValueError(
            f"normalized_shape {shape} must be the last sizes of the input, whose shape is {x.shape}, none of them 0"
        )
    for name, p in parameters.items():
        if p is not None and p.shape != shape:
            raise ValueError(f"{name} has shape {p.shape}; expected normalized_shape {shape}")
