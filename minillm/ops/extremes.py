"""The largest and the smallest, and where they are. Ties share the gradient evenly; an index is the first one's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels.arrays import array_module, is_array

from ..arguments import composed
from ..engine import op
from .choice import maximum, minimum, where
from .dims import array, reduced, restored
from .dtype import to_dtype

__all__ = ["amax", "amin", "max", "min", "argmax", "argmin"]


@op
def amax(x, dim=None, keepdim=False):
    """The largest element; elements that tie share the gradient evenly."""
    x = array(x)
    return x.max(axis=reduced(x.shape, dim), keepdims=keepdim)


@op
def amin(x, dim=None, keepdim=False):
    """The smallest element; elements that tie share the gradient evenly."""
    x = array(x)
    return x.min(axis=reduced(x.shape, dim), keepdims=keepdim)


def to_the_ties(dout, x, out, dim):
    hit = x == restored(out, x.shape, dim)
    ones = to_dtype(hit, x.dtype)
    ties = ones.sum(axis=reduced(x.shape, dim), keepdims=True)
    return where(hit, restored(dout, x.shape, dim) / ties, 0.0)


amax.vjp(to_the_ties)
amin.vjp(to_the_ties)


@op(differentiable=False)
def argmax(x, dim=None, keepdim=False):
    """The index (int64) of the first largest element along dim; in the flattened array for dim None."""
    return _index_of("argmax", x, dim, keepdim)


@op(differentiable=False)
def argmin(x, dim=None, keepdim=False):
    """The index (int64) of the first smallest element along dim; in the flattened array for dim None."""
    return _index_of("argmin", x, dim, keepdim)


def _index_of(name, x, dim, keepdim):
    x = array(x)
    if isinstance(dim, (tuple, list)):
        raise TypeError(f"dim is one dim or None; got {dim}")
    axis = dim if dim is None or x.ndim == 0 else reduced(x.shape, dim)[0]
    return getattr(array_module(x), name)(x, axis=axis, keepdims=keepdim).astype(np.int64)


class Extremes(NamedTuple):
    """What max and min give along a dim."""

    values: Any
    indices: Any


@composed
def max(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """max(x): the largest element. max(x, dim): (values, indices) along a dim. max(x, y): `maximum`, elementwise.

    Ties: the gradient is shared evenly, the index is the first one's.

    >>> import minillm
    >>> values, indices = minillm.max(minillm.tensor([[3.0, 7.0], [5.0, 2.0]]), dim=1)
    >>> values, indices
    (tensor([7., 5.]), tensor([1, 0]))
    """
    if is_array(dim) or hasattr(dim, "node"):
        return maximum(x, dim)
    return amax(x, None, keepdim) if dim is None else Extremes(amax(x, dim, keepdim), argmax(x, dim, keepdim))


@composed
def min(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """min(x): the smallest element. min(x, dim): (values, indices) along a dim. min(x, y): `minimum`, elementwise."""
    if is_array(dim) or hasattr(dim, "node"):
        return minimum(x, dim)
    return amin(x, None, keepdim) if dim is None else Extremes(amin(x, dim, keepdim), argmin(x, dim, keepdim))
