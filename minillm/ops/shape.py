"""Putting arrays together, cutting them up, moving elements around. What only renames shapes is in views.py.

Nothing is computed with the numbers, so each gradient is the way back: cat by a split, pad by a crop, flip by a flip.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from .. import capture
from ..arguments import composed
from ..device import array_module
from ..dtypes import promote
from ..engine import op
from .index import _zeros, narrow
from .views import (
    axes_of,
    axis_of,
    broadcast_to,
    expand,
    flatten,
    movedim,
    permute,
    reshape,
    squeeze,
    swapaxes,
    transpose,
    unsqueeze,
    view,
)  # fmt: skip

__all__ = [
    "reshape", "view", "flatten", "squeeze", "unsqueeze", "transpose", "swapaxes", "permute", "movedim", "expand",
    "broadcast_to", "cat", "stack", "split", "chunk", "repeat", "flip", "roll", "pad", "tril", "triu", "diagonal",
]  # fmt: skip


# ---------------------------------------------------------------------------------------- together and apart


def _few(tensors: Sequence[Any]) -> None:
    if len(tensors) > 8:
        capture.refuse("CuPy copies the addresses of more than 8 arrays to join them", "join them in parts")


@composed
def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Tensors one after the other along an existing dim; all other sizes are equal."""
    return _cat(*tensors, dim=dim)


@op
def _cat(*tensors: Any, dim: int) -> Any:
    axis = axis_of(dim, tensors[0].ndim) if tensors else 0
    if capture.recorded:
        _few(tensors)
    out = array_module(*tensors).concatenate(promote(list(tensors)), axis=axis)
    return out, {"sizes": [t.shape[axis] for t in tensors]}


@_cat.vjp
def _(dout, sizes, dim):
    return split(dout, sizes, dim)


@composed
def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Tensors of one shape along a new dim: n of (3, 4) with dim=1 give (3, n, 4)."""
    return _stack(*tensors, dim=dim)


@op
def _stack(*tensors: Any, dim: int) -> Any:
    if len({t.shape for t in tensors}) != 1:
        raise ValueError(f"stack needs tensors of one shape, at least one; got {[t.shape for t in tensors]}")
    axis = axis_of(dim, tensors[0].ndim + 1)
    if capture.recorded:
        _few(tensors)
    return array_module(*tensors).stack(promote(list(tensors)), axis=axis), {"shape": tensors[0].shape}


@_stack.vjp
def _(dout, shape, dim):
    return [reshape(piece, shape) for piece in split(dout, 1, dim)]


@composed
def split(x: Any, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple:
    """Pieces of one dim, views: of one size (the last may be smaller), or of a list of sizes that add up to the whole.

    >>> import numpy as np
    >>> [piece.tolist() for piece in split(np.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    n, sizes = x.shape[axis_of(dim, x.ndim)], split_size_or_sections
    if isinstance(sizes, int):
        if sizes <= 0:
            raise ValueError(f"split: the size of a piece must be at least 1; got {sizes}")
        sizes = [min(sizes, n - start) for start in range(0, n, sizes)] or [0]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise ValueError(f"split: sizes {list(sizes)} must add up to {n}, the size of dim {dim} of shape {x.shape}")
    return _split_into(len(sizes))(x, tuple(sizes), dim) if len(sizes) > 1 else (narrow(x, dim, 0, n),)


@cache
def _split_into(count: int) -> Any:
    """The op that cuts into `count` pieces: its gradient is one cat, of zeros for the pieces that nobody used."""

    @op(outputs=count)
    def split(x: Any, sizes: Sequence[int], dim: int) -> Any:
        starts = [sum(sizes[:i]) for i in range(count)]
        return (*[narrow(x, dim, start, size) for start, size in zip(starts, sizes)], {"x_shape": x.shape})

    @split.vjp
    def _(douts, sizes, dim, x_shape):
        axis = axis_of(dim, len(x_shape))
        some = next(d for d in douts if d is not None)
        shapes = [(*x_shape[:axis], size, *x_shape[axis + 1 :]) for size in sizes]
        return cat([_zeros(some, shape) if d is None else d for d, shape in zip(douts, shapes)], axis)

    return split


@composed
def chunk(x: Any, chunks: int, dim: int = 0) -> tuple:
    """`chunks` pieces of equal size, rounded up: the last may be smaller, and there may be fewer (5 in 4: 2, 2, 1)."""
    if chunks < 1:
        raise ValueError(f"chunk: the number of chunks must be at least 1; got {chunks}")
    n = x.shape[axis_of(dim, x.ndim)]
    return split(x, -(-n // chunks), dim) if n else split(x, [0] * chunks, dim)


# ------------------------------------------------------------------------------------------------- moved around


@op
def repeat(x: Any, repeats: int | Sequence[int]) -> Any:
    """Copies of x side by side, repeats[i] along dim i (NumPy's tile); more repeats than dims add leading dims.

    >>> import numpy as np
    >>> repeat(np.array([1, 2]), (2, 2)).tolist()
    [[1, 2, 1, 2], [1, 2, 1, 2]]
    """
    repeats = _tuple(repeats)
    if len(repeats) < x.ndim or min(repeats, default=0) < 0:
        raise ValueError(f"repeats {repeats} must be numbers from 0 up, one for each dim of {x.shape} at least")
    return array_module(x).tile(x, repeats), {"x_shape": x.shape}


@repeat.vjp
def _(dout, repeats, x_shape):
    repeats = _tuple(repeats)
    sizes = (1,) * (len(repeats) - len(x_shape)) + x_shape
    dout = reshape(dout, [n for pair in zip(repeats, sizes) for n in pair])  # (r0, n0, r1, n1, ...)
    return reshape(dout.sum(axis=tuple(range(0, 2 * len(sizes), 2))), x_shape)


@op
def flip(x: Any, dims: int | Sequence[int]) -> Any:
    """x with the order reversed along dims."""
    return array_module(x).flip(x, tuple(axes_of(dims, x.ndim)))


@flip.vjp
def _(dout, dims):
    return flip(dout, dims)


@op
def roll(x: Any, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Any:
    """Elements moved `shifts` places along dims, what falls off the end back in at the start; None: the flat array."""
    return array_module(x).roll(x, shifts, dims)


@roll.vjp
def _(dout, shifts, dims):
    return roll(dout, -shifts if isinstance(shifts, int) else tuple([-s for s in shifts]), dims)


@op
def tril(x: Any, diagonal: int = 0) -> Any:
    """The matrices in the last two dims with zeros above a diagonal: kept where column <= row + diagonal."""
    axis_of(-2, x.ndim)  # NumPy would make a matrix of a vector
    return array_module(x).tril(x, diagonal)


@tril.vjp
def _(dout, diagonal):
    return tril(dout, diagonal)


@op
def triu(x: Any, diagonal: int = 0) -> Any:
    """The matrices in the last two dims with zeros below a diagonal: kept where column >= row + diagonal."""
    axis_of(-2, x.ndim)
    return array_module(x).triu(x, diagonal)


@triu.vjp
def _(dout, diagonal):
    return triu(dout, diagonal)


@op
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The elements with index in dim2 = index in dim1 + offset, as a new last dim; dim1 and dim2 are gone."""
    a, b = axes_of((dim1, dim2), x.ndim)
    return array_module(x).diagonal(x, offset, a, b), {"x_shape": x.shape}


@diagonal.vjp
def _(dout, offset, dim1, dim2, x_shape):
    return _place_diagonal(dout, x_shape, offset, dim1, dim2)


@op
def _place_diagonal(x: Any, shape: tuple, offset: int, dim1: int, dim2: int) -> Any:
    """Zeros of `shape` with x on a diagonal."""
    xp = array_module(x)
    out = xp.zeros(shape, x.dtype)
    i = xp.arange(x.shape[-1])
    xp.moveaxis(out, (dim1, dim2), (-2, -1))[..., i + max(-offset, 0), i + max(offset, 0)] = x
    return out


@_place_diagonal.vjp
def _(dout, offset, dim1, dim2):
    return diagonal(dout, offset, dim1, dim2)


# ---------------------------------------------------------------------------------------------------------- pad


@composed
def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Any:
    """Elements put around x. `pad` counts pairs from the last dim: (left, right, top, bottom, ...).

    constant   `value`; negative numbers cut off instead
    reflect    the elements next to the edge, mirrored at it      [1 2 3] -> 3 2 [1 2 3] 2 1
    replicate  the edge itself, again and again                   [1 2 3] -> 1 1 [1 2 3] 3 3
    circular   the elements of the other end                      [1 2 3] -> 2 3 [1 2 3] 1 2
    """
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad: {tuple(pad)} must be pairs (before, after), last dim first, for dims of {x.shape}")
    pairs = list(zip(pad[::2], pad[1::2]))
    pairs = [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]  # first dim first
    if mode == "constant":
        return _pad(x, pairs, value)
    limits = {"reflect": lambda n: n - 1, "circular": lambda n: n, "replicate": lambda n: float("inf") if n else 0}
    if mode not in limits:
        raise ValueError(f"pad: no mode {mode!r}; there are constant, {', '.join(limits)}")
    for dim, pair in enumerate(pairs):
        limit = limits[mode](x.shape[dim])
        if pair == (0, 0):
            continue
        if min(pair) < 0 or max(pair) > limit:
            raise ValueError(f"pad: mode {mode!r} can add 0 to {limit} elements to dim {dim} of {x.shape}; got {pair}")
        x = _extend(x, dim, *pair, mode)
    return x


def _extend(x: Any, dim: int, before: int, after: int, mode: str) -> Any:
    """x between what `mode` puts on its two sides along one dim; written with views and cat, so gradients follow."""
    n = x.shape[dim]
    if mode == "reflect":
        left, right = flip(narrow(x, dim, 1, before), dim), flip(narrow(x, dim, n - 1 - after, after), dim)
    elif mode == "circular":
        left, right = narrow(x, dim, n - before, before), narrow(x, dim, 0, after)
    else:
        keep = [-1] * x.ndim
        left = expand(narrow(x, dim, 0, 1), (*keep[:dim], before, *keep[dim + 1 :]))
        right = expand(narrow(x, dim, n - 1, 1), (*keep[:dim], after, *keep[dim + 1 :]))
    return cat([left, x, right], dim)


@op
def _pad(x: Any, pairs: Sequence[tuple[int, int]], value: float) -> Any:
    """pairs (before, after) for each dim, first dim first."""
    shape = tuple([n + before + after for n, (before, after) in zip(x.shape, pairs)])
    if min(shape, default=0) < 0:
        raise ValueError(f"pad: cutting {pairs} (first dim first) takes more off than shape {x.shape} has")
    out = array_module(x).full(shape, value, x.dtype)
    inside = tuple([slice(max(b, 0), max(n + b, 0)) for n, (b, _) in zip(x.shape, pairs)])
    kept = tuple([slice(max(-b, 0), max(n + min(a, 0), 0)) for n, (b, a) in zip(x.shape, pairs)])
    out[inside] = x[kept]
    return out


@_pad.vjp
def _(dout, pairs):
    return _pad(dout, [(-before, -after) for before, after in pairs], 0.0)


_cat.__name__, _stack.__name__, _pad.__name__ = "cat", "stack", "pad"  # what errors and pictures of the graph show


def _tuple(x: int | Sequence[int]) -> tuple:
    return (x,) if isinstance(x, int) else tuple(x)
