"""Linear layer on a GPU: products by cuBLAS (../matmul/cuda.py), bias, activation and their gradients by linear.cu.

cuBLAS rounds the product to the dtype of x before the bias is added: for bfloat16 one rounding more than a fused kernel
would make, and for float32 none that matters. The sums of dbias are of dpre before it is rounded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import bfloat16, kernel, type_name
from ..gpu.elements import THREADS, WIDTH, contiguous, grid, packs, whole
from ..matmul.cuda import product_into

SOURCE = Path(__file__).with_name("linear.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]

CODES = {None: 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "silu": 4, "relu2": 5}  # as in linear.cu
ROWS, LANES = 128, 32  # of a block of linear_slopes, as in linear.cu


def linear_forward(
    x: Any, weight: Any, bias: Any | None, activation: str | None, bf16: bool, keep_pre: bool
) -> tuple[Any, Any | None]:
    xp = array_module(x)
    product = xp.empty((math.prod(x.shape[:-1]), weight.shape[0]), x.dtype)  # (rows, out)
    product_into(_factor(_rows(x), bf16), _factor(weight, bf16).T, product)
    keep = keep_pre and activation not in (None, "relu")
    out = xp.empty_like(product) if keep else product
    if product.size and (bias is not None or activation is not None):
        _epilogue(product, bias, out, activation, keep)
    shape = (*x.shape[:-1], weight.shape[0])
    return out.reshape(shape), product.reshape(shape) if keep else None


def linear_backward(
    dout: Any, x: Any, weight: Any, pre: Any | None, out: Any | None, activation: str | None,
    needs: tuple[bool, bool, bool], dweight: Any | None, dbias: Any | None, bf16: bool,
) -> tuple[Any, Any, Any]:  # fmt: skip
    xp = array_module(x)
    dpre, x_rows = _rows(dout), _rows(x)
    if needs[2] and dbias is None:
        dbias = xp.zeros(weight.shape[0], x.dtype)
    if activation is not None or needs[2]:
        z = None if activation is None else _rows(out if activation == "relu" else pre)
        dpre = _slopes(dpre, z, activation, dbias if needs[2] else None)
    dx = None
    if needs[0] or needs[1]:
        dpre = _factor(dpre, bf16)
    if needs[0]:
        dx = xp.empty(x_rows.shape, x.dtype)
        product_into(dpre, _factor(weight, bf16), dx)
        dx = dx.reshape(x.shape)
    if needs[1]:
        accumulate = dweight is not None
        dweight = xp.empty(weight.shape, x.dtype) if dweight is None else dweight
        product_into(dpre.T, _factor(x_rows, bf16), dweight, accumulate)
    return dx, dweight if needs[1] else None, dbias if needs[2] else None


def _rows(x: Any) -> Any:
    """All axes but the last folded into one, without a copy where the strides allow it."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _factor(x: Any, bf16: bool) -> Any:
    return x.astype(bfloat16()) if bf16 else x


def _whole_rows(columns: int, *arrays: Any) -> np.int32:
    """1 where every row of every array begins at a multiple of 16 bytes."""
    return whole(*arrays) if columns * arrays[0].itemsize % WIDTH == 0 else np.int32(0)


def _epilogue(product: Any, bias: Any | None, out: Any, activation: str | None, keep: bool) -> None:
    rows, columns = product.shape
    bias = None if bias is None else contiguous(bias)[0]
    kernel(SOURCE, "linear_epilogue", product, TYPE=type_name(product.dtype))(
        grid(rows * packs(columns, product)),
        (THREADS,),
        (product, bias, out, np.uint64(rows), np.int32(columns), _whole_rows(columns, product, bias, out),
         np.int32(CODES[activation]), np.int32(keep)),
    )  # fmt: skip


def _slopes(dout: Any, z: Any | None, activation: str | None, dbias: Any | None) -> Any:
    """dpre = dout f'(z) (rows, columns), dout itself without an activation; its sum over the rows is added to dbias."""
    if dout.size == 0:
        return dout
    xp, (rows, columns), name = array_module(dout), dout.shape, type_name(dout.dtype)
    dout, *z_ = contiguous(dout) if z is None else contiguous(dout, z)
    dpre = None if z is None else xp.empty_like(dout)
    row_blocks, across = -(-rows // ROWS), -(-packs(columns, dout) // LANES)
    if row_blocks * across >= 2**31:
        raise ValueError(f"linear_backward: {rows} x {columns} numbers are too many for one launch; split the batch")
    sums = None if dbias is None else xp.empty((row_blocks, columns), xp.float32)
    kernel(SOURCE, "linear_slopes", dout, TYPE=name)(
        (row_blocks * across,),
        (THREADS,),
        (dout, z_[0] if z_ else None, dpre, sums, np.uint64(rows), np.int32(columns),
         _whole_rows(columns, dout, *z_, dpre), np.int32(CODES[activation])),
    )  # fmt: skip
    if dbias is not None:
        into = contiguous(dbias)[0]
        kernel(SOURCE, "linear_bias", dout, TYPE=name)(
            (-(-columns // LANES),), (THREADS,), (sums, into, np.uint64(row_blocks), np.int32(columns))
        )
        if into is not dbias:
            dbias[...] = into
    return dout if dpre is None else dpre
