"""Matrix products on a GPU: cuBLAS, called by pointers, leading dimensions and transposes.

    float32      in float32; in TF32 (10 bits of the significand, 8 times as fast) only inside `tensor_float32()`
    bfloat16     factors of 16 bits on the tensor cores, sums in float32, rounded once when they are stored
    float16      likewise
    float64      in float64

cuBLAS reads matrices column by column, and a matrix C whose rows lie one after another is to it C^T. So it is asked for
C^T = B^T A^T, and gets the arrays as they are:

    out (M, N), rows of `ldc` numbers        an N x M matrix by columns
    b (K, N)  by rows: B^T, op "N"           by columns (a transposed view): B, op "T"
    a (M, K)  by rows: A^T, op "N"           by columns: A, op "T"

Any other strides are copied once. Batches: with one b for all, the rows of all of a's matrices make one large product;
else one call for all, where the matrices of each array lie at equal distances (0: the same one again).

Why not `cupy.matmul`: with more than two axes it converts float16 to float32 and leaves bfloat16 to a kernel without
tensor cores. NumPy arrays inside `kernels.gpu.numpy_on("simulator")` take the same way to `simulated_cublas.py`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu.launch import bfloat16, simulated
from .cublas import Cublas, loaded

VARIANTS: list = []  # of CUDA sources to compile: there are none here

NO, TRANSPOSED = 0, 1  # cublasOperation_t
TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}  # cudaDataType_t
SUMS_FLOAT32, SUMS_FLOAT64, TF32 = 68, 70, 77  # cublasComputeType_t
DEFAULT_ALGORITHM = -1  # cublasGemmAlgo_t
LARGEST = 2**31 - 1  # sizes are C ints

tf32 = False  # whether products of float32 arrays may round their factors to TF32: see tensor_float32


@contextmanager
def tensor_float32(enabled: bool = True) -> Iterator[None]:
    """Inside the block products of float32 arrays on a GPU round their factors to TF32; sums stay in float32.

    TF32 has float32's range and 10 bits of its 23: an error of about 2^-11 a factor. For the whole process set
    `kernels.matmul.cuda.tf32 = True`.
    """
    global tf32
    before, tf32 = tf32, enabled
    try:
        yield
    finally:
        tf32 = before


def matmul(a: Any, b: Any, out: Any, accumulate: bool) -> Any:
    return product_into(a, b, out, accumulate)


def matmul_bf16(a: Any, b: Any, out: Any, accumulate: bool) -> Any:
    bf16 = bfloat16()
    return product_into(a.astype(bf16), b.astype(bf16), out, accumulate)


def product_into(a: Any, b: Any, out: Any, accumulate: bool = False) -> Any:
    """out = a @ b, or out += a @ b: a (..., M, K), b (..., K, N), out (..., M, N), of any strides, out apart from both.

    a and b of one dtype of TYPES; out of the same, or float32 beside factors of 16 bits. Returns out.
    """
    if out.size == 0 or (a.shape[-1] == 0 and accumulate):
        return out
    if a.shape[-1] == 0:
        out[...] = 0
        return out
    if type(out) is np.ndarray and not simulated():
        return _there_and_back(a, b, out, accumulate)
    row, column = out.strides[-2:]
    if column != out.itemsize and row == out.itemsize and out.shape[-1] != 1:  # by columns: out^T = b^T a^T by rows
        product_into(b.swapaxes(-1, -2), a.swapaxes(-1, -2), out.swapaxes(-1, -2), accumulate)
        return out
    if out.ndim > 2 and math.prod(b.shape[:-2]) == 1:  # one large product
        folded, into = _folded(a, out.shape[:-1]), _folded(out, out.shape[:-1])
        if folded is not None and into is not None:
            a, b, target = folded, b.reshape(b.shape[-2:]), into
            return out if _call(a, b, target, accumulate) else _by_copy(a, b, out, accumulate)
    return out if _call(a, b, out, accumulate) else _by_copy(a, b, out, accumulate)


def _by_copy(a: Any, b: Any, out: Any, accumulate: bool) -> Any:
    """For an out of strides that cuBLAS cannot write."""
    made = out.copy(order="C") if accumulate else array_module(out).empty(out.shape, out.dtype)
    out[...] = product_into(a, b, made, accumulate)
    return out


def _call(a: Any, b: Any, out: Any, accumulate: bool) -> bool:
    """One call of cuBLAS, if the layout of out allows it."""
    lead, (M, N), K = out.shape[:-2], out.shape[-2:], a.shape[-1]
    (out_op, ldc), step = _layout(out) or (TRANSPOSED, 0), _step(out)
    if out_op != NO or step is None:
        return False
    a, op_a, lda, step_a = _operand(a, lead)
    b, op_b, ldb, step_b = _operand(b, lead)
    count = math.prod(lead)
    if max(M, N, K, lda, ldb, ldc, count) > LARGEST:
        raise ValueError(f"matmul: cuBLAS counts to 2^31 - 1; got {a.shape} @ {b.shape}: cut the larger one")
    blas, handle = _blas(type(out) is np.ndarray)
    kind, into = TYPES[a.dtype.name], TYPES[out.dtype.name]
    one, beta = _number(out, 1), _number(out, int(accumulate))
    left, right, result = _pointer(b), _pointer(a), _pointer(out)  # left and right change places, see above
    how = _sums(a.dtype)
    if count == 1:
        blas.gemmEx(
            handle, op_b, op_a, N, M, K, one, left, kind, ldb, right, kind, lda, beta, result, into, ldc, how,
            DEFAULT_ALGORITHM,
        )  # fmt: skip
    else:
        blas.gemmStridedBatchedEx(
            handle, op_b, op_a, N, M, K, one, left, kind, ldb, step_b, right, kind, lda, step_a, beta, result, into,
            ldc, step, count, how, DEFAULT_ALGORITHM,
        )  # fmt: skip
    return True


# ------------------------------------------------------------------------------------------------- layouts


def _operand(x: Any, lead: tuple[int, ...]) -> tuple[Any, int, int, int]:
    """(array, op, leading dimension, distance of its matrices in numbers), after a copy if its strides need one."""
    xp = array_module(x)
    if x.ndim - 2 != len(lead) or x.shape[:-2] != lead:
        x = xp.broadcast_to(x, (*lead, *x.shape[-2:]))
    layout, step = _layout(x), _step(x)
    if layout is None or step is None:
        x = xp.ascontiguousarray(x)
        layout, step = _layout(x), _step(x)
    assert layout is not None and step is not None
    return x, *layout, step


def _layout(x: Any) -> tuple[int, int] | None:
    """(op, leading dimension) of matrices in the last two axes; None where neither rows nor columns are contiguous."""
    (rows, columns), (row, column) = x.shape[-2:], _strides(x)[-2:]
    if (column == 1 or columns == 1) and (row >= columns or rows == 1):
        return NO, row if rows > 1 else columns
    if (row == 1 or rows == 1) and (column >= rows or columns == 1):
        return TRANSPOSED, column if columns > 1 else rows
    return None


def _step(x: Any) -> int | None:
    """The distance from each matrix to the next, in numbers; None where they are not equal, or a step back."""
    axes = [(n, s) for n, s in zip(x.shape[:-2], _strides(x)) if n > 1]
    step = axes[-1][1] if axes else 0
    expected = step
    for n, stride in reversed(axes):
        if stride != expected or stride < 0:
            return None
        expected = stride * n
    return step


def _folded(x: Any, lead: tuple[int, ...]) -> Any:
    """x (..., M, K) as (rows, K), a view; None where it would be a copy, or where x is repeated to fill `lead`."""
    if x.shape[:-1] != lead:
        return None
    axes = [(n, s) for n, s in zip(lead, _strides(x)) if n > 1]
    if any(s != n * s_next for (_, s), (n, s_next) in pairwise(axes)):
        return None
    if _strides(x)[-1] != 1 and x.shape[-1] != 1:
        return None
    return x.reshape(math.prod(lead), x.shape[-1])


def _strides(x: Any) -> tuple[int, ...]:
    """In numbers; -1, which fits nothing, where they are no whole ones."""
    return tuple([s // x.itemsize if s % x.itemsize == 0 else -1 for s in x.strides])


# ------------------------------------------------------------------------------------------------- the library


def _sums(dtype: np.dtype) -> int:
    """How products are added up."""
    if dtype.name == "float64":
        return SUMS_FLOAT64
    return TF32 if tf32 and dtype.name == "float32" else SUMS_FLOAT32


_NUMBERS = {name: np.array([0, 1], name) for name in ("float32", "float64")}  # alpha and beta are read by pointer


def _number(out: Any, n: int) -> int:
    held = _NUMBERS["float64" if out.dtype.name == "float64" else "float32"]
    return int(held.ctypes.data) + n * held.itemsize


def _pointer(x: Any) -> int:
    return int(x.ctypes.data if type(x) is np.ndarray else x.data.ptr)


def _blas(numpy: bool) -> tuple[Any, int]:
    """cuBLAS, or what stands for it in the simulator, and its handle."""
    if numpy:
        from . import simulated_cublas

        return simulated_cublas, 0
    from cupy.cuda import device

    return _cublas(), device.get_cublas_handle()


@cache
def _cublas() -> Any:
    try:
        import cupy
        from cupy_backends.cuda.libs import cublas
    except ImportError as error:
        raise RuntimeError(
            'matmul: CuPy finds no cuBLAS. In the project folder: pip install -e ".[cuda13]" brings it (or .[cuda12]); '
            f"{str(error).splitlines()[0]}"
        ) from error
    path = loaded()
    return cublas if path is None else Cublas(ctypes.CDLL(path), lambda: cupy.cuda.get_current_stream().ptr)


def _there_and_back(a: np.ndarray, b: np.ndarray, out: np.ndarray, accumulate: bool) -> np.ndarray:
    """NumPy arrays on a real GPU, inside numpy_on("device"): for tests."""
    import cupy

    made = cupy.asarray(out)
    product_into(cupy.asarray(a), cupy.asarray(b), made, accumulate)
    out[...] = cupy.asnumpy(made)
    return out
