"""Normalisation over the trailing axes: LayerNorm and RMSNorm."""

from __future__ import annotations

from typing import Any

import numpy as np

import kernels

from ..engine import op
from .elementwise import rsqrt, square
from .reduce import mean

__all__ = ["layer_norm", "rms_norm"]


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
    rows = _rows(x, normalized_shape)  # (M, N)
    out, mean, rstd = kernels.layernorm_forward(rows, _flat(weight), _flat(bias), eps)
    return out.reshape(x.shape), {"mean": mean, "rstd": rstd}


@layer_norm.vjp
def _(dout, x, normalized_shape, weight, mean, rstd):
    rows, drows = _rows(x, normalized_shape), _rows(dout, normalized_shape)  # (M, N)
    dx, dweight, dbias = kernels.layernorm_backward(drows, rows, _flat(weight), mean, rstd)
    shape = x.shape[x.ndim - len(_dims(normalized_shape)) :]
    return dx.reshape(x.shape), None, dweight.reshape(shape), dbias.reshape(shape)


@op
def rms_norm(x: Any, normalized_shape: int | tuple[int, ...], weight: Any = None, eps: float | None = None) -> Any:
    """x / sqrt(mean(x^2) + eps) * weight, over the trailing axes `normalized_shape` (an int or a tuple).

    x (..., *normalized_shape); weight of shape normalized_shape, or None for ones; eps None is the dtype's machine
    epsilon, as in PyTorch. Source: Zhang and Sennrich 2019, arXiv:1910.07467.

    >>> import numpy as np
    >>> rms_norm(np.array([3.0, -3.0]), 2).round(4)
    array([ 1., -1.])
    """
    _check(x, normalized_shape, weight=weight)
    out = x * _rrms(x, normalized_shape, eps)
    return out if weight is None else out * weight


@rms_norm.vjp
def _(dout, x, normalized_shape, weight, eps):
    rrms = _rrms(x, normalized_shape, eps)  # (..., 1)
    xhat = x * rrms
    g = dout if weight is None else dout * weight
    dx = rrms * (g - xhat * mean(g * xhat, _dims(normalized_shape), True))
    if weight is None:
        return dx
    return dx, None, (dout * xhat).reshape((-1, *weight.shape)).sum(axis=0)


def _rrms(x, normalized_shape, eps):
    """1 / sqrt(mean(x^2) + eps), the normalised axes kept with size 1."""
    eps = float(np.finfo(x.dtype).eps) if eps is None else eps
    return rsqrt(mean(square(x), _dims(normalized_shape), True) + eps)


def _shape(normalized_shape) -> tuple[int, ...]:
    return tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (int(normalized_shape),)


def _dims(normalized_shape) -> tuple[int, ...]:
    """(5, 3) -> (-2, -1)"""
    return tuple(range(-len(_shape(normalized_shape)), 0))


def _rows(x, normalized_shape):
    """(..., *normalized_shape) -> (M, N)"""
    return x.reshape(-1, int(np.prod(_shape(normalized_shape))))


def _flat(x):
    return None if x is None else x.reshape(-1)


def _check(x, normalized_shape, **parameters) -> None:
    shape = _shape(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape or 0 in shape:
        raise ValueError(
            f"normalized_shape {shape} must be the last sizes of the input, whose shape is {x.shape}, none of them 0"
        )
    for name, p in parameters.items():
        if p is not None and p.shape != shape:
            raise ValueError(f"{name} has shape {p.shape}; expected normalized_shape {shape}")
