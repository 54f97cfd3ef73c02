"""Embedding: a table of vectors, looked up by id; and the sum of gradients by id."""

from __future__ import annotations

from typing import Any

from ..arrays import array_module, is_array
from ..checks import check_arrays, check_shape
from ..dispatch import implementation


def embedding_forward(indices: Any, weight: Any, *, impl: str | None = None) -> Any:
    """out[...] = weight[indices[...]]: indices (...) of integers, weight (V, D) of a floating dtype, out (..., D).

    IndexError for an id outside 0 .. V - 1 (negative ones do not count from the end), TypeError for other dtypes. CUDA
    kernels on CuPy arrays: such a row is NaN, and its gradient goes nowhere; to look would be to wait for the GPU.
    """
    kernel = "embedding_forward"
    check_arrays(kernel, weight=weight)
    _check_indices(kernel, indices, weight)
    if weight.ndim != 2:
        raise ValueError(f"{kernel}: weight has shape {weight.shape}, expected (V, D): a row for each id")
    return implementation("embedding", impl, weight).embedding_forward(indices, weight)


def embedding_backward(
    dout: Any, indices: Any, count: int, *, padding_idx: int | None = None, out: Any = None, impl: str | None = None
) -> Any:
    """dweight (count, D), whose row v is the sum of the rows dout[...] with indices[...] == v; 0 where there is none.

    dout (..., D) of a floating dtype, indices (...) as in the forward pass. Row padding_idx (negative: counted from the
    end) gets nothing. out (count, D) of dout's dtype is added into and returned. Sums are accumulated in float64 in the
    order of the indices (NumPy arrays), so the bits do not depend on the number of threads.
    """
    kernel = "embedding_backward"
    check_arrays(kernel, dout=dout, out=out)
    _check_indices(kernel, indices, dout)
    if dout.ndim == 0:
        raise ValueError(f"{kernel}: dout has shape (), expected (..., D): a row for each index")
    check_shape(kernel, "dout", dout, (*indices.shape, dout.shape[-1]), "(..., D): a row for each index")
    check_shape(kernel, "out", out, (count, dout.shape[-1]), "(count, D)")
    if out is not None and not getattr(out.flags, "writeable", True):
        raise ValueError(f"{kernel}: out is read-only, but it is added into")
    if padding_idx is None:
        padding = -1
    elif -count <= padding_idx < count:
        padding = padding_idx % count
    else:
        raise ValueError(f"{kernel}: padding_idx {padding_idx} is outside the table of {count} rows")
    return implementation("embedding", impl, dout).embedding_backward(dout, indices, count, padding, out)


def _check_indices(kernel: str, indices: Any, beside: Any) -> None:
    if not is_array(indices) or indices.dtype.kind not in "iu":
        got = indices.dtype if is_array(indices) else type(indices).__name__
        raise TypeError(f"{kernel}: indices must be an array of an integer dtype, got {got}")
    if array_module(indices) is not array_module(beside):
        raise TypeError(
            f"{kernel}: indices belong to {array_module(indices).__name__} but the rows to "
            f"{array_module(beside).__name__}; move one of them"
        )


def outside(index: Any, count: int) -> IndexError:
    """The error for an id that is not in the table."""
    return IndexError(f"id {int(index)} is outside 0 .. {count - 1}: the table has {count} rows")
