"""Attention on the CPU: the arrays made ready for the kernels. Formulas: reference.py; then read, in this order,

    tiles.py        products of ROWS rows, in registers
    pack.py         rows and turned keys, as tiles read them
    softmax.py      a row of scores between the products: masks, exp2, the online softmax
    forward.py      one task for each block of queries
    backward.py     one task for some blocks of keys
    decode.py       few queries and many keys: one task for some keys
    words.py        operands of bfloat16
    dropout.py      the mask, drawn again wherever it is needed
    rooms.py        sizes of blocks, and where in a task's workspace they lie
    apart.py, signatures.py     what keeps compilation short

One core of AMD Zen 4 (116 GFLOP/s of float32 multiply-adds, 232 of bfloat16), lengths of 1024 to 4096, head dims 64 and
128, causal counted as half the work: forward and backward reach 78 to 88 % of that, 62 to 75 % with bfloat16. Few
queries read their keys and values at 12 GB/s from memory, at 30 GB/s from L3.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np

from .. import simd
from ..checks import contiguous
from . import signatures
from .backward import backward, pair, part
from .decode import CUT, QUERIES, cut, decode, decode_words
from .dropout import drop_options
from .forward import block, forward
from .limits import small
from .rooms import backward_bf16_words, backward_parts, backward_words, forward_bf16_words, forward_words
from .tiles import ROWS


def attention_forward(
    q: Any,
    k: Any,
    v: Any,
    bias: Any,
    *,
    causal: bool,
    offset: int,
    window: int | None,
    scale: float,
    dropout: tuple[float, int, int] | None = None,
    bf16: bool = False,
) -> tuple[Any, Any]:
    """See `kernels.attention`, which checks the arguments. (out (B, H, T, D), lse (B, H, T))."""
    (B, H, T, D), S = q.shape, k.shape[2]
    width = _width(D, q.dtype)
    word = _word(q.dtype, bf16)
    q, k, v = (_rows(x) for x in (q, k, v))
    out, lse = _like(q), np.empty((B, H, T), q.dtype)
    arguments = q, k, v, *_plain_bias(bias, q), _rule(T, S, causal, offset, window), scale, *_dropout(q.dtype, dropout)
    if T <= QUERIES and width == D:  # in float32 with bf16 too: it waits for memory, not for products
        parts = np.empty((-(-S // CUT), B, H, T, D + 2 * _lanes(q.dtype)), q.dtype)
        _compiled(decode, q.dtype, q.dtype)(*arguments, _workspace(q.dtype, decode_words(D)), parts, out, lse)
    else:
        work = _workspace(q.dtype, forward_words(T, S, width))
        words = _workspace(word, forward_bf16_words(T, S, width)) if bf16 else _room(q.dtype, len(work))[1]
        _compiled(forward, q.dtype, word)(*arguments, work, words, out, lse)
    return out, lse


def attention_backward(
    dout: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    bias: Any,
    *,
    causal: bool,
    offset: int,
    window: int | None,
    scale: float,
    dropout: tuple[float, int, int] | None = None,
    bf16: bool = False,
) -> tuple[Any, Any, Any]:
    """See `kernels.attention`. (dq (B, H, T, D), dk (B, H_kv, S, D), dv (B, H_kv, S, D))."""
    (B, H, T, D), (heads_kv, S) = q.shape, k.shape[1:3]
    width = _width(D, q.dtype)
    word = _word(q.dtype, bf16)
    dout, q, k, v, out = (_rows(x) for x in (dout, q, k, v, out))
    dq, dk, dv = _like(q), _like(k), _like(v)
    work = _workspace(q.dtype, backward_words(S, width))
    words = _workspace(word, backward_bf16_words(S, width)) if bf16 else _room(q.dtype, len(work))[1]
    partial = np.empty((backward_parts(B * heads_kv, S, width), B, H, -(-T // ROWS) * ROWS, width), q.dtype)
    rule = _rule(T, S, causal, offset, window)
    arguments = dout, q, k, v, out, contiguous(lse), *_plain_bias(bias, q), rule, scale
    drop = _dropout(q.dtype, dropout)
    _compiled(backward, q.dtype, word)(*arguments, *drop, work, words, partial, dq, dk, dv)
    return dq, dk, dv


def _lanes(dtype: np.dtype) -> int:
    return simd.LANES32 * 4 // dtype.itemsize


def _width(D: int, dtype: np.dtype) -> int:
    """D up to whole vectors."""
    lanes = _lanes(dtype)
    return -(-D // lanes) * lanes


def _rows(x: np.ndarray) -> np.ndarray:
    """x itself if each row of D numbers lies together, as in (B, T, H, D) seen as (B, H, T, D); else a copy."""
    rows = x.strides[3] == x.itemsize or x.shape[3] == 1
    whole = all(stride % x.itemsize == 0 for stride in x.strides)
    return x if rows and whole and x.flags.aligned else np.array(x, order="C")


def _like(x: np.ndarray) -> np.ndarray:
    """An empty array in the layout of x, so that heads that were split from one axis join again without a copy."""
    y = np.empty_like(x)
    return y if y.strides[3] == y.itemsize else np.empty(x.shape, x.dtype)


def _rule(T: int, S: int, causal: bool, offset: int, window: int | None) -> tuple[bool, int, int]:
    """Offset and window as small integers; None is a window over everything."""
    offset, window = small(T, S, offset, window)
    return causal, offset, offset + T + S + 2 if window is None else window


@cache
def _no_bias(dtype: np.dtype) -> np.ndarray:
    return np.zeros((1, 1, 1, 1), dtype)


def _plain_bias(bias: Any, q: Any) -> tuple[Any, bool]:
    """Bias as a C-ordered float array, so that Numba sees one type; axes along which it is the same get length 1."""
    if bias is None:
        return _no_bias(q.dtype), False
    bias = bias[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in bias.strides)]
    if bias.dtype == bool:
        bias = np.where(bias, 0, -np.inf).astype(q.dtype)
    return contiguous(bias), True


_kept: dict[np.dtype, np.ndarray] = {}


def _workspace(dtype: np.dtype, words: int) -> np.ndarray:
    """(threads, at least `words`) numbers, uninitialised, each thread's at a cache line; kept for the next call,
    because fresh memory costs a page fault for every 4 KB."""
    threads = numba.get_num_threads()
    kept = _kept.get(dtype)
    if kept is None or kept.shape[0] < threads or kept.shape[1] < words:
        words = -(-words // 1024) * 1024 + 16  # and not a power of two apart
        raw = np.empty(threads * words * dtype.itemsize + 64, np.uint8)
        start = -raw.ctypes.data % 64
        kept = raw[start : start + threads * words * dtype.itemsize].view(dtype).reshape(threads, words)
        _kept[dtype] = kept
    return kept


def _dropout(dtype: np.dtype, dropout: tuple[float, int, int] | None) -> tuple[Any, np.ndarray, np.ndarray]:
    """The options, and for each thread room for the words and factors of a row of scores."""
    return drop_options(dropout), *_room(dtype, numba.get_num_threads())


@cache
def _room(dtype: np.dtype, threads: int) -> tuple[np.ndarray, np.ndarray]:
    return np.empty((threads, CUT // 2 + 8), np.uint64), np.empty((threads, CUT), dtype)


def _word(dtype: np.dtype, bf16: bool) -> np.dtype:
    """What operands of products are packed into: numbers, or words of two bfloat16."""
    if bf16 and not simd.HAS_BF16:
        raise NotImplementedError(
            "attention: bf16=True needs a CPU with AVX512_BF16 (kernels.simd.HAS_BF16), which this one is not; "
            "leave it out, or pass impl='reference' to see what rounding to bfloat16 does"
        )
    return np.dtype(np.int32) if bf16 else dtype


@cache
def _compiled(kernel: Any, dtype: np.dtype, word: np.dtype) -> Any:
    """`forward`, `decode` or `backward`, compiled for these dtypes. Calls take what there is; see signatures.py."""
    number, packed = numba.from_dtype(dtype), numba.from_dtype(word)
    inner, signature = {
        forward: ((block,), signatures.forward),
        decode: ((cut,), signatures.decode),
        backward: ((pair, part), signatures.backward),
    }[kernel]
    for function in inner:
        function.link(number, packed)
    kernel.disable_compile(False)
    kernel.compile(signature(number, packed))
    kernel.disable_compile()
    return kernel
