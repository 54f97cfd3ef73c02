"""The same elements under another shape: reshape, permute, expand. Views wherever possible.

The gradient goes the same way back: reshape by a reshape, permute by the inverse permutation, expand (which repeats
elements) by a sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..arguments import composed
from ..device import array_module
from ..engine import op

__all__ = [
    "reshape", "view", "flatten", "squeeze", "unsqueeze", "transpose", "swapaxes", "permute", "movedim", "expand",
    "broadcast_to",
]  # fmt: skip


def axis_of(dim: int, ndim: int) -> int:
    """`dim` counted from the front; IndexError if an array of `ndim` axes has no such axis.

    >>> axis_of(-1, 3)
    2
    """
    if not -ndim <= dim < ndim:
        have = f"dims {-ndim} to {ndim - 1}" if ndim else "no dims (it is 0-d)"
        raise IndexError(f"dim {dim} is out of range: the input has {have}")
    return int(dim) % ndim


def axes_of(dim: int | Sequence[int], ndim: int) -> list[int]:
    """One dim or several, counted from the front, none of them twice."""
    axes = [axis_of(d, ndim) for d in ((dim,) if not isinstance(dim, (tuple, list)) else dim)]
    if len(set(axes)) < len(axes):
        raise ValueError(f"dims {tuple(dim)} name one dim twice")  # type: ignore[arg-type]
    return axes


# ------------------------------------------------------------------------- reshape: same elements, same order


@op
def reshape(x: Any, shape: int | Sequence[int]) -> Any:
    """x's elements in row-major order, in a new shape; one size may be -1: whatever is left.

    >>> import numpy as np
    >>> reshape(np.arange(6), (2, -1)).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    return x.reshape(shape if isinstance(shape, int) else tuple(shape)), {"x_shape": x.shape}


@reshape.vjp
def _(dout, x_shape):
    return reshape(dout, x_shape)


view = reshape


@composed
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dims start_dim to end_dim (inclusive) as one; a 0-d x gives shape (1,)."""
    if x.ndim == 0:
        return reshape(x, (1,))
    first, last = axis_of(start_dim, x.ndim), axis_of(end_dim, x.ndim)
    if first > last:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim} in shape {x.shape}")
    return reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


@composed
def squeeze(x: Any, dim: int | Sequence[int] | None = None) -> Any:
    """Without the dims of size 1, or without those of `dim` that have size 1 (others stay)."""
    chosen = range(x.ndim) if dim is None else axes_of(dim, x.ndim)
    return reshape(x, tuple([n for i, n in enumerate(x.shape) if n != 1 or i not in chosen]))


@composed
def unsqueeze(x: Any, dim: int) -> Any:
    """A dim of size 1 put in at place `dim` of the result: (3, 4) and dim=-1 give (3, 4, 1)."""
    axis = axis_of(dim, x.ndim + 1)
    return reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


# ------------------------------------------------------------------------------- permute: the axes in another order


@op
def transpose(x: Any, dim0: int, dim1: int) -> Any:
    """Two dims swapped."""
    axes = list(range(x.ndim))
    a, b = axis_of(dim0, x.ndim), axis_of(dim1, x.ndim)
    axes[a], axes[b] = b, a
    return x.transpose(tuple(axes))


@transpose.vjp
def _(dout, dim0, dim1):
    return transpose(dout, dim0, dim1)


swapaxes = transpose


@op
def permute(x: Any, dims: Sequence[int]) -> Any:
    """out.shape[i] = x.shape[dims[i]]: (B, T, H, D) by (0, 2, 1, 3) gives (B, H, T, D)."""
    if len(dims) != x.ndim:
        raise ValueError(f"dims {tuple(dims)} must name each of the {x.ndim} dims of the input once")
    return x.transpose(tuple(axes_of(tuple(dims), x.ndim)))


@permute.vjp
def _(dout, dims):
    inverse = [0] * len(dims)
    for i, d in enumerate(dims):
        inverse[d] = i
    return permute(dout, inverse)


@composed
def movedim(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Dims `source` at the places `destination` of the result, the others in their old order."""
    start, end = axes_of(source, x.ndim), axes_of(destination, x.ndim)
    if len(start) != len(end):
        raise ValueError(f"movedim: {len(start)} source dims and {len(end)} destination dims: must be equal")
    order = [i for i in range(x.ndim) if i not in start]
    for place, axis in sorted(zip(end, start)):
        order.insert(place, axis)
    return permute(x, order)


# -------------------------------------------------------------------------------------- expand: the same row again


@op(broadcasting=True)  # the engine's sum over broadcast axes is the whole gradient
def expand(x: Any, size: Sequence[int]) -> Any:
    """x repeated along its dims of size 1 and along new leading dims, without a copy; -1 keeps a size.

    >>> import numpy as np
    >>> expand(np.array([[1], [2]]), (-1, 3)).tolist()
    [[1, 1, 1], [2, 2, 2]]
    """
    size = (size,) if isinstance(size, int) else tuple(size)
    lead = len(size) - x.ndim
    full = tuple([x.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(size)])
    if lead < 0 or min(full, default=0) < 0 or any(n not in (1, m) for n, m in zip(x.shape, full[lead:])):
        raise ValueError(
            f"shape {x.shape} cannot expand to {size}: aligned from the right, a size stays or grows from 1, "
            "-1 keeps a size, and new dims come first with a size of their own"
        )
    return array_module(x).broadcast_to(x, full)


@expand.vjp
def _(dout):
    return dout


@composed
def broadcast_to(x: Any, size: Sequence[int]) -> Any:
    """`expand` under NumPy's name."""
    return expand(x, size)
