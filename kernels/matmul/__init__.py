"""Matrix product: out = a @ b, with products of float32, float64, or bfloat16 numbers.

For other kernels, compiled: `from ..matmul.block import product_block` computes a block on one thread, on pointers:

    work, tile_work, _ = sizes.workspace(x.dtype, x.dtype)      # (threads, WORK), (threads, TILE_WORK), kept
    product_block(a, a_row, a_step, b, b_step, b_column, c, c_row, rows, columns, depth, accumulate, work, tile_work)

and its docstring says what the arguments are. `cpu.product` runs on all threads, with a bias and an activation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import array_module
from ..checks import check_arrays
from ..dispatch import implementation


def matmul(a: Any, b: Any, *, out: Any | None = None, accumulate: bool = False, impl: str | None = None) -> Any:
    """out[..., i, j] = sum over k of a[..., i, k] * b[..., k, j], or added to what `out` holds with accumulate=True.

    a (..., M, K), b (..., K, N), of one floating dtype and any strides; the axes before the last two broadcast.
    out (..., M, N) of the broadcast shape, of any strides; made if not given, and returned. K = 0 gives zeros.

    Each number is summed in an order that depends on K alone: rows of a give the same bits alone and among others,
    for any layout and any number of threads. 1 to 4 rows times a B^T (columns lie one after the other: x W^T of one
    token) are summed in another order, at the speed of reading B.
    TypeError for dtypes that differ, ValueError for shapes that do not fit.
    """
    a, b, out = _checked("matmul", a, b, out, accumulate)
    return implementation("matmul", impl, a).matmul(a, b, out, accumulate)


def matmul_bf16(a: Any, b: Any, *, out: Any | None = None, accumulate: bool = False, impl: str | None = None) -> Any:
    """`matmul` of float32 arrays with a and b rounded to bfloat16 (to nearest, ties to even) and sums in float32.

    Twice the speed where the CPU multiplies bfloat16 (`kernels.has_bf16()`), and RuntimeError where it does not,
    unless impl="reference". An error of about 2^-9 for each factor, sums not counted; denormals count as zeros.
    """
    a, b, out = _checked("matmul_bf16", a, b, out, accumulate)
    if a.dtype != np.float32:
        raise TypeError(f"matmul_bf16: a is {a.dtype}, expected float32; convert it with .astype, or use matmul")
    return implementation("matmul", impl, a).matmul_bf16(a, b, out, accumulate)


def has_bf16() -> bool:
    """Whether this CPU has products of bfloat16 numbers (AVX512_BF16), which `bf16=True` needs."""
    from .. import simd

    return bool(simd.HAS_BF16)


def _checked(kernel: str, a: Any, b: Any, out: Any | None, accumulate: bool) -> tuple[Any, Any, Any]:
    """a, b and out after all checks: out is made if it is None; a and b are copied if they share its memory."""
    plain = type(a) is np.ndarray is type(b) and out is None and not accumulate and a.ndim == 2 == b.ndim
    if plain and a.dtype is b.dtype and a.dtype.kind == "f" and a.shape[1] == b.shape[0]:  # the same, in 0.5 us
        return a, b, np.empty((a.shape[0], b.shape[1]), a.dtype)
    check_arrays(kernel, a=a, b=b, out=out)
    a_shape, b_shape = a.shape, b.shape
    if len(a_shape) < 2 or len(b_shape) < 2 or a_shape[-1] != b_shape[-2]:
        raise ValueError(f"{kernel}: a {a_shape} and b {b_shape} do not fit, expected (..., M, K) and (..., K, N)")
    if len(a_shape) == len(b_shape) == 2:
        shape = (a_shape[0], b_shape[1])
    else:
        shape = (*_broadcast(kernel, a_shape, b_shape), a_shape[-2], b_shape[-1])
    if out is None:
        if accumulate:
            raise ValueError(f"{kernel}: accumulate=True adds to out, and out is None; give the array to add to")
        return a, b, array_module(a).empty(shape, a.dtype)
    if out.shape != shape:
        raise ValueError(f"{kernel}: out has shape {out.shape}, expected {shape}, as a is {a_shape} and b {b_shape}")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError(f"{kernel}: out is read-only; give an array that can be written to")
    share = array_module(a).may_share_memory
    return (a.copy() if share(out, a) else a), (b.copy() if share(out, b) else b), out


def _broadcast(kernel: str, a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(a_shape[:-2], b_shape[:-2])
    except ValueError:
        message = f"{kernel}: the axes before the last two of a {a_shape} and b {b_shape} do not broadcast"
        raise ValueError(message) from None
