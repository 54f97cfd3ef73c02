"""Two functions of cuBLAS in NumPy, on addresses in main memory: what `cuda.py` calls in the simulator.

They do what they are told by pointers, leading dimensions and transposes, and nothing else, so a wrong one gives wrong
numbers here as on a GPU; and they refuse what cuBLAS refuses. Matrices are read column by column.
"""

from __future__ import annotations

import ctypes

import numpy as np

from ..gpu.launch import dtype_of

DTYPES = {0: "float32", 1: "float64", 2: "float16", 14: "bfloat16"}  # cudaDataType_t
COMPUTE = {68: "float32", 77: "float32", 70: "float64"}  # cublasComputeType_t
calls: list[tuple] = []  # the latest ones, (function, m, n, k, batches, compute type): for tests


def gemmEx(  # cuBLAS's name
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int, B: int,
    Btype: int, ldb: int, beta: int, C: int, Ctype: int, ldc: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """C (m, n) = alpha op(A) op(B) + beta C."""
    calls.append(("gemmEx", m, n, k, 1, computeType))
    _product(transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, computeType)


def gemmStridedBatchedEx(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int, Atype: int, lda: int,
    strideA: int, B: int, Btype: int, ldb: int, strideB: int, beta: int, C: int, Ctype: int, ldc: int, strideC: int,
    batchCount: int, computeType: int, algo: int,
) -> None:  # fmt: skip
    """gemmEx of batchCount matrices that lie stride numbers apart."""
    calls.append(("gemmStridedBatchedEx", m, n, k, batchCount, computeType))
    a, b, c = (np.dtype(_dtype(t)).itemsize for t in (Atype, Btype, Ctype))
    for i in range(batchCount):
        at = A + i * strideA * a, B + i * strideB * b, C + i * strideC * c
        _product(
            transa, transb, m, n, k, alpha, at[0], Atype, lda, at[1], Btype, ldb, beta, at[2], Ctype, ldc, computeType
        )


def _product(ta, tb, m, n, k, alpha, A, a_type, lda, B, b_type, ldb, beta, C, c_type, ldc, compute):
    wide = COMPUTE[compute]
    if a_type != b_type or (a_type != c_type and not (a_type in (2, 14) and c_type == 0)):
        raise ValueError(f"CUBLAS_STATUS_NOT_SUPPORTED: types {a_type}, {b_type} -> {c_type}")
    if (a_type == 1) != (wide == "float64") or (compute == 77 and a_type != 0):
        raise ValueError(f"CUBLAS_STATUS_NOT_SUPPORTED: compute type {compute} for {DTYPES[a_type]}")
    a = _matrix(A, a_type, *((k, m) if ta else (m, k)), lda)
    b = _matrix(B, b_type, *((n, k) if tb else (k, n)), ldb)
    c = _matrix(C, c_type, m, n, ldc)
    a, b = (_tf32(x) if compute == 77 else x.astype(np.float64) for x in (a, b))
    alpha, beta = (np.float64(_matrix(x, 1 if wide == "float64" else 0, 1, 1, 1)[0, 0]) for x in (alpha, beta))
    with np.errstate(all="ignore"):  # a GPU does not warn
        sums = alpha * ((a.T if ta else a) @ (b.T if tb else b))
    if beta:  # else what C holds does not matter, not even NaN
        sums = sums + beta * c.astype(np.float64)
    with np.errstate(over="ignore"):
        c[...] = sums.astype(wide).astype(c.dtype)


def _dtype(code: int) -> np.dtype:
    return dtype_of(DTYPES[code])


def _matrix(address: int, code: int, rows: int, columns: int, ld: int) -> np.ndarray:
    """The memory as a matrix of rows x columns, whose columns begin ld numbers apart."""
    if ld < max(1, rows):
        raise ValueError(f"CUBLAS_STATUS_INVALID_VALUE: a leading dimension of {ld} for columns of {rows}")
    dtype = _dtype(code)
    size = (columns - 1) * ld + rows
    memory = (ctypes.c_char * (size * dtype.itemsize)).from_address(address)
    flat = np.frombuffer(memory, dtype)  # type: ignore[call-overload]
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (dtype.itemsize, ld * dtype.itemsize))


def _tf32(x: np.ndarray) -> np.ndarray:
    """float32 numbers rounded to 10 bits of the significand, as float64."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return rounded.view(np.float32).astype(np.float64)
