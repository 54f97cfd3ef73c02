"""Embedding: a table of vectors, looked up by id."""

from __future__ import annotations

from typing import Any

import kernels

from ..engine import op
from .elementwise import masked_fill

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
    return kernels.embedding_forward(indices, weight), {"count": weight.shape[0]}


@embedding.vjp
def _(dout, indices, padding_idx, count, into=None):
    if into and into[1] is not None:
        return None, kernels.embedding_backward(dout, indices, count, padding_idx=padding_idx, out=into[1])
    return None, _add_rows(dout, indices, count, padding_idx)


@op
def _add_rows(rows, indices, count, padding_idx):
    """The look-up's transpose: row i of (count, D) is the sum of the rows (..., D) whose id is i."""
    return kernels.embedding_backward(rows, indices, count, padding_idx=padding_idx)


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
