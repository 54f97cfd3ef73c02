"""Elements by their index. Looking up copies elements out; the gradient adds them back where they came from.

getitem <-> place and gather <-> scatter_add are each other's gradients; an element that was read twice gets the sum.
An index is a constant: integer Tensors or arrays on the device of x.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import capture
from ..arguments import composed
from ..device import array_module, is_array
from ..engine import op
from .scatter import add_at
from .views import axis_of, expand, reshape

__all__ = [
    "getitem", "narrow", "unbind", "gather", "take_along_dim", "scatter_add", "index_select", "index_add", "one_hot",
    "sort", "argsort", "topk",
]  # fmt: skip


# ----------------------------------------------------------------------------------------------- x[index]


@op
def getitem(x: Any, index: Any) -> Any:
    """x[index] with NumPy's rules: ints, slices, None, ..., integer arrays, boolean masks, and mixtures of them.

    Slices and ints give a view, arrays and masks a copy. An index out of range is an IndexError. Where an int and an
    array stand apart, as in x[0, :, rows], NumPy puts the dims of the array first; PyTorch does not.
    """
    return x[_parts(x, index, x.shape)], {"x_shape": x.shape}


@getitem.vjp
def _(dout, index, x_shape):
    return place(dout, x_shape, index)


@op
def place(x: Any, shape: tuple, index: Any) -> Any:
    """Zeros of `shape` with x added at `index`."""
    xp = array_module(x)
    out = xp.zeros(shape, x.dtype)
    index = _parts(x, index, shape)
    if any(is_array(i) and i.dtype.kind in "iu" for i in index):
        add_at(xp, out, index, x)
    else:  # slices and masks name no element twice
        out[index] = x
    return out


@place.vjp
def _(dout, index):
    return getitem(dout, index)


def _parts(x: Any, index: Any, shape: tuple) -> tuple:
    """The index as a tuple, lists as arrays. CuPy would wrap indices that are out of range: so looked at here."""
    xp = array_module(x)
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(i, (list, range)) for i in parts):
        parts = tuple([_array(xp, i) if isinstance(i, (list, range)) else i for i in parts])
    if xp is not np and xp.__name__ == "cupy":
        _check_parts(parts, shape)
    return parts


def _array(xp: Any, numbers: Any) -> Any:
    return xp.asarray(numbers) if len(numbers) else xp.zeros(0, np.int64)


def _check_parts(parts: tuple, shape: tuple) -> None:
    """Every integer array of an index against the size of its axis."""
    axes = [0 if i is None or i is Ellipsis else i.ndim if is_array(i) and i.dtype.kind == "b" else 1 for i in parts]
    axis = 0
    for i, n in zip(parts, axes):
        if is_array(i) and i.dtype.kind in "iu" and axis < len(shape):
            _check_range(i, -shape[axis], shape[axis])
        axis += len(shape) - sum(axes) if i is Ellipsis else n


_known_to_be_right = False


@contextmanager
def right_indices() -> Iterator[None]:
    """A block whose indices were made by code that cannot be wrong: nobody looks at them, nobody waits for a GPU."""
    global _known_to_be_right
    before, _known_to_be_right = _known_to_be_right, True
    try:
        yield
    finally:
        _known_to_be_right = before


def _check_range(index: Any, low: int, high: int) -> None:
    """IndexError for an index outside low .. high - 1. On a GPU this is a wait: left out where indices are known to be
    right, and where a step is recorded, which waits for nothing."""
    _check_integers(index)
    if index.size == 0 or _known_to_be_right or capture.recorded:
        return
    if type(index) is not np.ndarray and not bool(((index < low) | (index >= high)).any()):
        return
    if int(index.min()) < low or int(index.max()) >= high:
        bad = int(index.min()) if int(index.min()) < low else int(index.max())
        raise IndexError(f"index {bad} is out of range: it must be from {low} to {high - 1}")


def _check_integers(index: Any) -> None:
    if not is_array(index) or index.dtype.kind not in "iu":
        kind = f"{index.dtype} array" if is_array(index) else type(index).__name__
        raise TypeError(f"an index must be an integer Tensor or array; got a {kind}")


@composed
def narrow(x: Any, dim: int, start: int, length: int) -> Any:
    """Elements start to start + length - 1 of one dim, a view: x.shape[dim] becomes length."""
    axis = axis_of(dim, x.ndim)
    n = x.shape[axis]
    first = start + n if start < 0 else start
    if not 0 <= first <= first + length <= n:
        raise IndexError(f"narrow: start {start} and length {length} do not fit in dim {dim} of shape {x.shape}")
    return getitem(x, (*[slice(None)] * axis, slice(first, first + length)))


# -------------------------------------------------------------------------- one index for each element of the output


@op
def gather(x: Any, dim: int, index: Any) -> Any:
    """out[i, j, k] = x[i, index[i, j, k], k] for dim 1 of three.

    index (int64) has as many dims as x and the shape of the result; in dims other than `dim` it may be smaller than x.
    Every index is from 0 to x.shape[dim] - 1, else an IndexError.
    """
    return x[_grid(x, dim, index)], {"x_shape": x.shape}


@gather.vjp
def _(dout, dim, index, x_shape):
    return scatter_add(_zeros(dout, x_shape), dim, index, dout)


@op
def scatter_add(x: Any, dim: int, index: Any, src: Any) -> Any:
    """x, with src[i, j, k] added at [i, index[i, j, k], k] for dim 1 of three. Repeated indices add up.

    x, index and src have the same number of dims; src may be larger than index, its rest is not used.
    """
    _check_integers(index)
    if src.ndim != index.ndim or any(n < m for n, m in zip(src.shape, index.shape)):
        raise ValueError(f"src {src.shape} must be at least as large as index {index.shape} in each dim")
    grid = _grid(x, dim, index)
    out = x.copy()
    add_at(array_module(x), out, grid, src[tuple([slice(n) for n in index.shape])])
    return out, {"src_shape": src.shape}


@scatter_add.vjp
def _(dout, dim, index, src_shape):
    dsrc = gather(dout, dim, index)
    if dsrc.shape != src_shape:
        dsrc = place(dsrc, src_shape, tuple([slice(n) for n in index.shape]))
    return dout, None, None, dsrc


def _grid(x: Any, dim: int, index: Any) -> tuple:
    """The NumPy index that picks [i, index[i, j, k], k]: the dims beside `dim` count along."""
    axis = axis_of(dim, x.ndim)
    _check_range(index, 0, x.shape[axis])
    if index.ndim != x.ndim or any(m > n for i, (m, n) in enumerate(zip(index.shape, x.shape)) if i != axis):
        raise ValueError(
            f"index {index.shape} must have {x.ndim} dims and, beside dim {dim}, no size above the input's {x.shape}"
        )
    xp = array_module(x)
    ones = (1,) * (x.ndim - 1)
    count = [xp.arange(m).reshape((*ones[:i], m, *ones[i:])) for i, m in enumerate(index.shape)]
    return (*count[:axis], index, *count[axis + 1 :])


@op(differentiable=False)
def _zeros(x: Any, shape: tuple) -> Any:
    """Zeros where x lives, in x's dtype."""
    return array_module(x).zeros(shape, x.dtype)


@composed
def take_along_dim(x: Any, indices: Any, dim: int | None = None) -> Any:
    """`gather` with x and indices broadcast against each other in all dims but `dim`; None: both as one row.

    Takes what argsort and topk return: take_along_dim(x, argsort(x, -1), -1) is sorted.
    """
    if dim is None:
        return gather(reshape(x, (-1,)), 0, reshape(indices, (-1,)))
    if len(getattr(indices, "shape", ())) != x.ndim:
        raise ValueError(f"take_along_dim: indices must be a Tensor or array of {x.ndim} dims, as the input {x.shape}")
    axis = axis_of(dim, x.ndim)
    full = [max(n, m) if min(n, m) else 0 for n, m in zip(x.shape, indices.shape)]
    x = expand(x, (*full[:axis], -1, *full[axis + 1 :]))
    return gather(x, axis, expand(indices, (*full[:axis], -1, *full[axis + 1 :])))


# ----------------------------------------------------------------------------------------- one index for each slice


@op
def index_select(x: Any, dim: int, index: Any) -> Any:
    """The slices x[..., index[i], ...] of one dim, copied: index (n) makes x.shape[dim] n."""
    axis = axis_of(dim, x.ndim)
    _check_vector(index, x.shape[axis])
    return array_module(x).take(x, index, axis=axis), {"x_shape": x.shape}


@index_select.vjp
def _(dout, dim, index, x_shape):
    return index_add(_zeros(dout, x_shape), dim, index, dout)


@op
def index_add(x: Any, dim: int, index: Any, source: Any, alpha: float = 1.0) -> Any:
    """x, with alpha * source[..., i, ...] added to x[..., index[i], ...] for each i. Repeated indices add up.

    source has x's shape, except index.size along dim.
    """
    xp, axis = array_module(x), axis_of(dim, x.ndim)
    _check_vector(index, x.shape[axis])
    if source.shape != (*x.shape[:axis], index.size, *x.shape[axis + 1 :]):
        raise ValueError(f"source {source.shape} must have the input's shape {x.shape}, but {index.size} in dim {dim}")
    out = x.copy()
    add_at(xp, xp.moveaxis(out, axis, 0), (index,), xp.moveaxis(source if alpha == 1 else alpha * source, axis, 0))
    return out


@index_add.vjp
def _(dout, dim, index, alpha):
    dsource = index_select(dout, dim, index)
    return dout, None, None, dsource if alpha == 1 else alpha * dsource


def _check_vector(index: Any, size: int) -> None:
    _check_range(index, 0, size)
    if index.ndim != 1:
        raise ValueError(f"index must be 1-D, one number a slice; it has shape {index.shape}")


@op(differentiable=False)
def one_hot(x: Any, num_classes: int = -1) -> Any:
    """1 at the place of each class, 0 elsewhere, int64: (...) -> (..., num_classes); -1: the largest class + 1.

    >>> one_hot(np.array([0, 2])).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    _check_integers(x)
    if num_classes == -1:
        if x.size == 0:
            raise ValueError("no classes to count in an empty input: give num_classes")
        num_classes = int(x.max()) + 1
    _check_range(x, 0, num_classes)
    return (x[..., None] == array_module(x).arange(num_classes)).astype(np.int64)


# -------------------------------------------------------------------------------------------------- sorting


class Sorted(NamedTuple):
    """What sort and topk return."""

    values: Any
    indices: Any


@op(differentiable=False)
def argsort(x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The indices (int64) that sort x along dim. Equal elements always keep their order; NaN is largest."""
    xp, axis = array_module(x), axis_of(dim, x.ndim)
    if not descending:
        return xp.argsort(x, axis=axis, kind="stable")
    return x.shape[axis] - 1 - xp.flip(xp.argsort(xp.flip(x, axis), axis=axis, kind="stable"), axis)


@composed
def sort(x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Sorted:
    """(values, indices) along dim. Equal elements keep their order; the gradient goes back to where each value stood.

    >>> sort(np.array([3., 1., 2.]), descending=True).indices.tolist()
    [0, 2, 1]
    """
    indices = argsort(x, dim, descending, stable)
    return Sorted(gather(x, dim, indices), indices)


@composed
def topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Sorted:
    """(values, indices) of the k largest (or smallest) along dim, in order; of equal elements, the first."""
    axis = axis_of(dim, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"topk: k = {k} must be from 0 to {x.shape[axis]}, the size of dim {dim} of shape {x.shape}")
    indices = narrow(argsort(x, dim, largest), axis, 0, k)
    return Sorted(gather(x, axis, indices), indices)


@composed
def unbind(x: Any, dim: int = 0) -> tuple:
    """The slices of one dim, without that dim."""
    axis = axis_of(dim, x.ndim)
    return tuple([getitem(x, (*[slice(None)] * axis, i)) for i in range(x.shape[axis])])
