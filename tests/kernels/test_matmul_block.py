"""`product_block`, the product on one thread that other kernels call: the same bits as kernels.matmul."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import has_bf16, matmul, matmul_bf16, simd
from kernels.matmul.block import product_block
from kernels.matmul.sizes import workspace
from kernels.numba_setup import njit


@njit
def block(a, a_row, a_step, b, b_step, b_column, c, c_row, rows, columns, depth, accumulate, work, tile_work):
    product_block(
        simd.pointer(a), a_row, a_step, simd.pointer(b), b_step, b_column, simd.pointer(c), c_row,
        rows, columns, depth, accumulate, simd.pointer(work), simd.pointer(tile_work),
    )  # fmt: skip


@pytest.mark.parametrize("f", [matmul] + [matmul_bf16] * has_bf16())
def test_product_block(f):
    rng = np.random.default_rng(0)
    words = np.dtype(np.float32 if f is matmul else np.int32)
    work, tile_work, _ = workspace(np.dtype(np.float32), words)
    for M, N, K in [(1, 1, 1), (7, 50, 33), (19, 130, 800)]:
        a, b = rng.normal(size=(M, K)).astype(np.float32), rng.normal(size=(K, N)).astype(np.float32)
        wide = np.full((M, N + 3), 5, np.float32)
        block(a, K, 1, b, N, 1, wide, N + 3, M, N, K, False, work[0], tile_work[0])
        np.testing.assert_array_equal(wide[:, :N], f(a, b))
        b_t = np.ascontiguousarray(b.T)  # B by columns
        block(a, K, 1, b_t, 1, K, wide, N + 3, M, N, K, True, work[0], tile_work[0])
        np.testing.assert_allclose(wide[:, :N], 2 * f(a, b), rtol=1e-5, atol=1e-4)
        assert (wide[:, N:] == 5).all()
