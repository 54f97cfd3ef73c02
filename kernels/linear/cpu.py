"""Linear layer in Numba: the product of ../matmul, with what belongs to it done where the numbers are at hand.

    forward     the bias is the value that a tile of pre begins with; the activation is applied to the tile while it is
                in L1: both cost next to nothing (gelu of 4096 x 1536 numbers, alone: another pass over 50 MB)
    backward    dpre and dbias in one pass over dout and pre; then two products. dweight is added to in the tiles
"""

from __future__ import annotations

import math

import numpy as np

from .. import simd
from ..checks import contiguous
from ..matmul.activation import (
    CODES,
    GELU,
    GELU_TANH,
    NONE,
    RELU,
    RELU2,
    gelu_slope,
    gelu_tanh_slope,
    relu,
    silu_slope,
)
from ..matmul.cpu import PAIRS, need_bf16, product, product_into
from ..numba_setup import njit, prange


def linear_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, activation: str | None, bf16: bool, keep_pre: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    code = CODES[activation]
    out = np.empty((*x.shape[:-1], weight.shape[0]), x.dtype)
    pre = np.empty_like(out) if keep_pre and code not in (NONE, RELU) else None
    if out.size:
        product(
            _rows(x), weight.T, _rows(out if pre is None else pre), bias=None if bias is None else contiguous(bias),
            out=_rows(out), activation=code, words=_words(x, bf16),
        )  # fmt: skip
    return out, pre


def linear_backward(
    dout: np.ndarray, x: np.ndarray, weight: np.ndarray, pre: np.ndarray | None, out: np.ndarray | None,
    activation: str | None, needs: tuple[bool, bool, bool], dweight: np.ndarray | None, dbias: np.ndarray | None,
    bf16: bool,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:  # fmt: skip
    code, words = CODES[activation], _words(x, bf16)
    dpre, x_rows = _rows(dout), _rows(x)
    dx = None
    if needs[2] and dbias is None:
        dbias = np.zeros(weight.shape[0], x.dtype)
    if code != NONE or needs[2]:
        kept = {NONE: dout, RELU: out}.get(code, pre)
        assert kept is not None
        z = _rows(kept)
        dpre = _through_activation(dpre, z, code, dbias if needs[2] else None)
    if needs[0]:
        dx = np.empty(x.shape, x.dtype)
        product_into(dpre, weight, _rows(dx), False, words)
    if needs[1]:
        accumulate = dweight is not None
        dweight = np.empty(weight.shape, x.dtype) if dweight is None else dweight
        product_into(dpre.T, x_rows, dweight, accumulate, words)
    return dx, dweight if needs[1] else None, dbias if needs[2] else None


def _rows(x: np.ndarray) -> np.ndarray:
    """All axes but the last folded into one, without a copy where the strides allow it."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _words(x: np.ndarray, bf16: bool) -> np.dtype:
    if bf16:
        need_bf16("linear")
    return PAIRS if bf16 else x.dtype


# -------------------------------------------------------------------- backward through the activation


def _through_activation(dout: np.ndarray, z: np.ndarray, code: int, dbias: np.ndarray | None) -> np.ndarray:
    """dpre = dout * f'(z), or dout itself for no activation; its sum over the rows is added to dbias, if given."""
    dout, z = contiguous(dout), contiguous(z)
    dpre = dout if code == NONE else np.empty_like(dout)
    sums = np.zeros((-(-dout.shape[0] // BLOCK), dout.shape[1]), dout.dtype)
    total = np.zeros(dout.shape[1])
    _slopes(dout, z, code, dpre, sums, total)
    if dbias is not None:
        dbias += total  # rounded once
    return dpre


BLOCK = 64  # rows that are summed in the dtype of x; the sums of the blocks are added in float64
SERIAL = 16_384  # numbers that one thread is through with before others have started


@njit(parallel=True)
def _slopes(dout, z, code, dpre, sums, total):
    if dout.size <= SERIAL:
        for b in range(sums.shape[0]):
            _slopes_of_block(b, dout, z, code, dpre, sums)
    else:
        for block in prange(sums.shape[0]):
            _slopes_of_block(block, dout, z, code, dpre, sums)
    for b in range(sums.shape[0]):
        for j in range(total.size):
            total[j] += sums[b, j]


@njit
def _slopes_of_block(block, dout, z, code, dpre, sums):
    lanes = simd.lanes(dout)
    columns = dout.shape[1]
    total = sums[block]
    for i in range(block * BLOCK, min((block + 1) * BLOCK, dout.shape[0])):
        row = i * columns
        for j in range(0, columns, lanes):
            d = simd.load_tail(dout, row + j, columns - j)
            if code != NONE:
                x = simd.load_tail(z, row + j, columns - j)
                if code == RELU:
                    d = simd.select(x > 0.0, d, 0.0)
                elif code == RELU2:
                    d = d * (relu(x) * 2.0)
                elif code == GELU:
                    d = d * gelu_slope(x)
                elif code == GELU_TANH:
                    d = d * gelu_tanh_slope(x)
                else:
                    d = d * silu_slope(x)
                simd.store_tail(dpre, row + j, d, columns - j)
            simd.store_tail(total, j, simd.load_tail(total, j, columns - j) + d, columns - j)
