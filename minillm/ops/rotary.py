"""Rotary position embedding as an op (Su et al. 2021, RoFormer, arXiv:2104.09864), in the halves layout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kernels

from ..arguments import composed
from ..engine import op
from .arrays import constant
from .shape import cat, split

__all__ = ["rotary"]


@composed
def rotary(x: Any, cos: Any, sin: Any) -> Any:
    """Turn the pairs (x[..., j], x[..., j + D/2]) of x (B, H, T, D) by angles whose cos and sin are (T, D/2).

        out1 = x1 cos - x2 sin        out2 = x2 cos + x1 sin        x1, x2: the halves of the last axis

    cos and sin are constants, as `rotary_tables` makes them. The scalar product of two vectors that were turned depends
    on the distance of their positions only.
    """
    return _rotary(x, constant("rotary", "cos", cos), constant("rotary", "sin", sin))


def _rotary_of_ops(x, cos, sin):
    half = x.shape[-1] // 2
    x1, x2 = split(x, [half, half], -1)
    return cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)


@op(composite=_rotary_of_ops)
def _rotary(x, cos, sin):
    return kernels.rotary_forward(x, cos, sin)


_rotary.__name__ = "rotary"  # what errors and pictures of the graph show


@_rotary.vjp
def _(dout, cos, sin):
    return kernels.rotary_backward(dout, cos, sin)


def rotary_tables(
    length: int,
    head_dim: int,
    base: float = 10000.0,
    scaling: tuple[float, float, float, int] | None = None,
    dtype: Any = np.float32,
) -> tuple[Any, Any]:
    """(cos, sin) of the angles t * f_j for positions t < length, f_j = base^(-2 j / D), j < D/2: two (length, D/2).

    scaling  Llama 3's (factor, low, high, original): waves that turn less than `low` times in `original` positions are
             slowed down by `factor`, those of more than `high` turns stay, and between the two it is blended
             (Dubey et al. 2024, arXiv:2407.21783; the formula is that of its reference code)
    """
    f = base ** (-np.arange(0, head_dim, 2) / head_dim)  # (D/2,)
    if scaling is not None:
        factor, low, high, original = scaling
        turns = original * f / (2 * math.pi)
        keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
        f = f * (keep + (1 - keep) / factor)
    angles = np.arange(length)[:, None] * f  # (length, D/2)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
