"""Linear layer and cross-entropy on a GPU, in chunks of tokens. Formulas in reference.py.

A chunk: logits u = x weight^T (cuBLAS, tensor cores for 16 bits); then ../cross_entropy/cross_entropy.cu reads each
row of u once, gives the loss and writes du in its place; then dx = du weight, and du^T x is added to dweight. So the
largest array is one chunk of logits: CHUNK_BYTES, or LEAST tokens, where all tokens would be N V numbers (16384 x 50304
in bfloat16: 1.6 GB, and as much again for its gradient).

Why this is fast: nothing but the three products, 6 N V D operations, takes time that grows with D, and the logits are
not formed again for the backward pass. Each chunk reads and adds to all of dweight, so it should not be small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import array_module, is_array
from ..cross_entropy.cuda import rows
from ..gpu.rows import check_writeable
from ..matmul.cuda import product_into

VARIANTS: list = []  # of CUDA sources to compile: its kernel is that of cross_entropy

CHUNK_BYTES, LEAST = 256 << 20, 1024  # logits of a chunk; but tokens enough for the products


def linear_cross_entropy(
    x: Any,
    weight: Any,
    targets: Any,
    factor: Any,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
    z_loss: float,
    needs_grad: bool,
    dweight: Any | None,
) -> tuple[Any, Any, Any]:
    """As the reference; sums over tokens are float32, also where x and weight have 16 bits."""
    check_writeable("linear_cross_entropy", "dweight", dweight)
    xp, N, V = array_module(x), x.shape[0], weight.shape[0]
    x = _zeros_where(targets == ignore_index, x)  # whatever ignored tokens hold
    loss, lse = xp.empty(N, np.float32), xp.empty(N, np.float32)
    dx = xp.empty(x.shape, x.dtype) if needs_grad else None
    sums: Any = _sums(weight, dweight) if needs_grad else None
    chunk = chunk_tokens(N, V, x.itemsize)
    logits = xp.empty((chunk, V), x.dtype)
    for first in range(0, N, chunk):
        tokens = slice(first, min(first + chunk, N))
        u = product_into(x[tokens], weight.T, logits[: tokens.stop - first])  # (C, V)
        each = factor[tokens] if is_array(factor) and factor.ndim else factor
        into = u if needs_grad else None
        rows(
            u.reshape(-1), targets[tokens], each, ignore_index, label_smoothing, None, loss[tokens], lse[tokens], into,
            softcap, z_loss,
        )  # fmt: skip
        if dx is not None:
            product_into(u, weight, dx[tokens])
            product_into(u.T, x[tokens], sums, accumulate=True)
    if not needs_grad:
        return loss, None, None
    if dweight is None:
        return loss, dx, sums.astype(x.dtype, copy=False)
    if sums is not dweight:
        dweight[...] = sums.astype(x.dtype, copy=False)
    return loss, dx, dweight


def _sums(weight: Any, dweight: Any | None) -> Any:
    """Where the gradient of weight is added up, (V, D) float32: what dweight holds, or zeros; itself if it can."""
    xp = array_module(weight)
    if dweight is None:
        return xp.zeros(weight.shape, np.float32)
    if dweight.dtype == np.float32 and dweight.flags.c_contiguous:
        return dweight
    return xp.ascontiguousarray(dweight).astype(np.float32)


def _zeros_where(ignored: Any, x: Any) -> Any:
    """x (N, D) with zeros in the rows that are ignored (N,); as bits, since not all libraries select bfloat16."""
    bits = x.view(f"u{x.itemsize}")
    return array_module(x).where(ignored[:, None], bits.dtype.type(0), bits).view(x.dtype)


def chunk_tokens(N: int, V: int, itemsize: int) -> int:
    """Tokens of a chunk, all of one size but the last."""
    most = max(LEAST, CHUNK_BYTES // (V * itemsize))
    chunks = max(1, -(-N // most))
    return max(1, -(-N // chunks))
