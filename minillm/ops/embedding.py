"""Embedding: a table of vectors, looked up by id."""

from __future__ import annotations

from typing import Any

from ..device import array_module
from ..engine import op
from .elementwise import masked_fill
from .scatter import add_at

__all__ = ["embedding"]


@op
def embedding(indices: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """weight[indices]: indices of any shape (...), weight (V, D), result (..., D).

    An id that occurs several times adds up all its gradients. Row `padding_idx` gets none (negative: counted from the
    end). IndexError for an id outside 0 .. V-1.

    >>> import numpy as np
    >>> embedding(np.array([2, 0]), np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    array([[3., 3.],
           [1., 1.]])
    """
    _check(indices, weight, padding_idx)
    return weight[indices], {"count": weight.shape[0]}


@embedding.vjp
def _(dout, indices, padding_idx, count):
    return None, _add_rows(dout, indices, count, padding_idx)


@op
def _add_rows(rows, indices, count, padding_idx):
    """The look-up's transpose: row i of (count, D) is the sum of the rows (..., D) whose id is i."""
    xp = array_module(rows)
    table = xp.zeros((count, rows.shape[-1]), rows.dtype)
    add_at(xp, table, (indices,), rows)
    if padding_idx is not None:
        table[padding_idx] = 0
    return table


@_add_rows.vjp
def _(dtable, indices, padding_idx):
    drows = embedding(indices, dtable)
    if padding_idx is None:
        return drows
    return masked_fill(drows, (indices == padding_idx % dtable.shape[0])[..., None], 0.0)


def _check(indices, weight, padding_idx) -> None:
    dtype = getattr(indices, "dtype", type(indices).__name__)
    if getattr(dtype, "kind", "none") not in "iu":
        raise TypeError(f"indices must be an array of an integer dtype; got {dtype} (the order is indices, weight)")
    if weight.ndim != 2:
        raise ValueError(f"weight has shape {weight.shape}; expected (V, D), a row for each id")
    V = weight.shape[0]
    if padding_idx is not None and not -V <= padding_idx < V:
        raise ValueError(f"padding_idx {padding_idx} is outside the table of {V} rows")
    bad = (indices < 0) | (indices >= V)
    if bool(bad.any()):
        raise IndexError(f"id {int(indices[bad].reshape(-1)[0])} is outside 0 .. {V - 1}: the vocabulary has {V} rows")
