"""Matrix product in Numba. Read the files in this order:

    block.py      the loops around a tile, on one thread; `product_block` and `fused_block` are for other kernels too
    tiles.py      the tile: 8 rows x 3 vectors of C, in registers
    few_rows.py   up to 4 rows times a B^T, which is read once: dot products
    pack.py       copies blocks of A and B into the order in which the tile reads them
    parallel.py   parts for the threads, batches            cut.py    where to cut
    sizes.py      sizes of the blocks; the workspace        strides.py    any strides, at one compiled version
    activation.py what `linear` does to a tile

NumPy's BLAS is never called. Its threads and Numba's spin against each other: a product and a kernel in turn, 0.24 ms
of work, take 8 ms on two cores. Ours is as fast where time is spent (see the ladder), costs 3 us more a call for
matrices of up to 32 x 32, and gives the same bits for a row alone and among others, which BLAS does not (1 to 4 rows
times a B^T are the exception).

Why blocks at all: a product of n x n matrices makes n^3 multiplications out of n^2 numbers, but a plain loop loads two
numbers for each. A core of AMD Zen 4 multiplies and adds 16 pairs of float32 a cycle, and loads 16 numbers from L1, 8
from L2, about 1 from memory: so a number has to be used often once it is close. Each block of the loops is loaded once
from a slow level and used many times from a faster one:

         memory               L2, 1 MB            L1, 32 KB          registers, 2 KB
    +--------------+       +-----------+
    |      B       | pack  |  384 x 384| stream   384 x 48
    |              | ----> |   of B    | ------>  of B    ----.
    +--------------+       +-----------+                      |      +--------+
                                                              +--->  |8 x 48  |  += one column of A
    +--------------+       +-----------+                      |      |  of C  |      times one row of B,
    |      A       | pack  |  96 x 384 | stream   8 x 384     |      +--------+      384 times
    |              | ----> |   of A    | ------>  of A    ----'
    +--------------+       +-----------+
"""

from __future__ import annotations

import numpy as np

from .. import simd
from .activation import NONE
from .parallel import products
from .sizes import workspace
from .strides import NO_BATCH, batch_axes, copied_if_needed, first_element, operand

PAIRS = np.dtype(np.int32)  # words of two bfloat16 numbers


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray, accumulate: bool) -> np.ndarray:
    return product_into(a, b, out, accumulate, a.dtype)


def matmul_bf16(a: np.ndarray, b: np.ndarray, out: np.ndarray, accumulate: bool) -> np.ndarray:
    need_bf16("matmul_bf16")
    return product_into(a, b, out, accumulate, PAIRS)


def need_bf16(kernel: str) -> None:
    if not simd.HAS_BF16:
        raise RuntimeError(
            f"{kernel}: this CPU does not multiply bfloat16 numbers (no AVX512_BF16; kernels.has_bf16() is False); "
            "use float32, or impl='reference' for the numbers alone"
        )


def product_into(a: np.ndarray, b: np.ndarray, out: np.ndarray, accumulate: bool, words: np.dtype) -> np.ndarray:
    """out = a @ b, or out += a @ b, for any shapes that fit, out of any strides but apart from a and b."""
    if out.size == 0 or (a.shape[-1] == 0 and accumulate):
        return out
    if a.shape[-1] == 0:
        out[...] = 0
        return out
    row, column = out.strides[-2:]
    if column != out.itemsize and row == out.itemsize:  # C by columns: C^T = B^T A^T by rows
        product_into(np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2), np.swapaxes(out, -1, -2), accumulate, words)
        return out
    direct = (column == out.itemsize or out.shape[-1] == 1) and out.flags.aligned
    if not direct:
        made = np.array(out, order="C") if accumulate else np.empty(out.shape, out.dtype)
        out[...] = product_into(a, b, made, accumulate, words)
        return out
    product(a, b, out, accumulate=accumulate, words=words)
    return out


def product(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    accumulate: bool = False,
    out: np.ndarray | None = None,
    activation: int = NONE,
    words: np.dtype | None = None,
) -> None:
    """c = a @ b, + bias (N,) or + c itself; out = activation(c). Arrays of one dtype, fitting shapes, no size of 0.

    c and out lie alike, with unit stride along the last dim, and share no memory with a and b; bias is contiguous.
    words: int32 for products of bfloat16.
    """
    if c.ndim > 2 and b.ndim == 2 and c.flags.c_contiguous and a.flags.c_contiguous:  # one large product
        a, c = a.reshape(-1, a.shape[-1]), c.reshape(-1, c.shape[-1])
        out = None if out is None else out.reshape(c.shape)
    batch = NO_BATCH
    if c.ndim > 2:
        a, b = copied_if_needed(a), copied_if_needed(b)
        batch = batch_axes(a, b, c)
    rows, depth = a.shape[-2:]
    columns = b.shape[-1]
    a_at, a_row, a_step = operand(a)
    b_at, b_step, b_column = operand(b)
    c_at, c_row = (c, columns) if c.flags.carray and c.ndim == 2 else (first_element(c), c.strides[-2] // c.itemsize)
    work, tile_work, zeros = workspace(c.dtype, words or c.dtype)
    if accumulate:
        d, d_row, d_column = c_at, c_row, 1
    elif bias is not None:
        d, d_row, d_column = bias.reshape(1, -1), 0, 1
    else:
        d, d_row, d_column = zeros, 0, 0
    out_at, out_row = c_at, c_row
    if out is not None:
        out_at, out_row = first_element(out), out.strides[-2] // out.itemsize
    products(a_at, a_row, a_step, b_at, b_step, b_column, c_at, c_row, d, d_row, d_column, accumulate, out_at, out_row,
             activation, rows, columns, depth, batch, work, tile_work)  # fmt: skip
