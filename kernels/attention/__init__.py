"""Scaled dot-product attention, forward and backward, on plain arrays.

    out = softmax(scale * q k^T + bias) v        softmax over the keys that a query sees

Shapes, checked here once for every implementation:

    q            (B, H, T, D)       T queries, D <= 256 channels; float32, float64, float16 or bfloat16
    k, v         (B, H_kv, S, D)    S keys; H_kv divides H, and query head h reads kv head h // (H // H_kv)
    bias         None, or broadcastable to (B, H, T, S): bool (True = takes part) or float (added to the scaled
                 scores; -inf = takes no part). A constant: it gets no gradient.
    out, lse     (B, H, T, D), (B, H, T)   lse = log-sum-exp of a query's scores; what the backward pass needs

All arrays have the dtype of q, but for float16 and bfloat16, which are computed in float32 and rounded: their lse is
float32.

Which keys query i sees (all three must hold):

    causal       j <= i + offset             offset 0 aligns the first query with the first key, as PyTorch does;
                                             a KV cache, whose queries are the newest tokens, passes S - T
    window = w   j > i + offset - w          w >= 1; with causal: the w newest keys, itself included
    bias         True, or not -inf

Two more options:

    dropout_p    each weight is dropped (0) with this probability, or divided by 1 - dropout_p. Kept is what
                 `philox_uniform((B, H, T, S), seed, position)` >= dropout_p keeps; no mask is stored. With the seed and
                 position of the forward call the backward pass drops the same
    bf16         products of operands rounded to bfloat16 with float32 sums; softmax, inputs and results stay float32.
                 Twice as fast where the CPU multiplies bfloat16 (AVX512_BF16), an error where it does not. On a GPU
                 the tensor cores' way: results are float32, but were rounded to bfloat16, too

What a query does not see has no part in its result, not even as 0 * NaN: NaN or 1e30 in a masked key stays there. A
query that sees nothing gives out = 0, lse = -inf and zero gradients.

Sources: Vaswani et al. 2017, "Attention Is All You Need" (the formula); Milakov and Gimelshein 2018 (online softmax);
Dao et al. 2022, "FlashAttention" (no T x S array, backward from lse); Ainslie et al. 2023 (grouped heads).
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..arrays import array_module, is_array
from ..checks import check_arrays, check_shape
from ..dispatch import implementation
from ..random import check_key

MAX_HEAD_DIM = 256
_DTYPES = ("float32", "float64", "float16", "bfloat16")


def attention_forward(
    q: Any,
    k: Any,
    v: Any,
    *,
    causal: bool = False,
    offset: int = 0,
    window: int | None = None,
    bias: Any = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int = 0,
    position: int = 0,
    bf16: bool = False,
    impl: str | None = None,
) -> tuple[Any, Any]:
    """Attention of queries q (B, H, T, D) over keys and values k, v (B, H_kv, S, D): (out, lse).

    out (B, H, T, D) has the dtype of q; lse (B, H, T), too, or float32. scale None means 1 / sqrt(D); impl: see
    `kernels.dispatch`.

    >>> import numpy as np
    >>> q, k, v = np.zeros((3, 1, 1, 2, 4), np.float32); v[0, 0, 1] = 1    # equal scores: the mean of what is seen
    >>> attention_forward(q, k, v)[0][0, 0, :, 0].tolist()
    [0.5, 0.5]
    >>> attention_forward(q, k, v, causal=True)[0][0, 0, :, 0].tolist()
    [0.0, 0.5]
    """
    bias, options = _check(q, k, v, causal, offset, window, bias, scale)
    options |= _check_extras(q, dropout_p, seed, position, bf16)
    module = implementation("attention", impl, q)
    if q.size == 0 or k.size == 0:  # nobody asks, or nothing to see
        xp = array_module(q)
        return xp.zeros(q.shape, q.dtype), xp.full(q.shape[:3], -xp.inf, _lse_dtype(q))
    return module.attention_forward(q, k, v, bias, **options)


def attention_backward(
    dout: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    *,
    causal: bool = False,
    offset: int = 0,
    window: int | None = None,
    bias: Any = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int = 0,
    position: int = 0,
    bf16: bool = False,
    impl: str | None = None,
) -> tuple[Any, Any, Any]:
    """Gradients (dq, dk, dv), in the shapes of q, k, v, from dout (B, H, T, D) and what `attention_forward` returned.

    The options must be those of the forward call.
    """
    bias, options = _check(q, k, v, causal, offset, window, bias, scale)
    options |= _check_extras(q, dropout_p, seed, position, bf16)
    check_arrays("attention", q=q, dout=dout, out=out)
    check_arrays("attention", lse=lse)
    if array_module(lse) is not array_module(q) or lse.dtype != _lse_dtype(q):
        raise TypeError(f"attention: lse is {lse.dtype}, but next to q of {q.dtype} it must be {_lse_dtype(q)}")
    check_shape("attention", "dout", dout, q.shape, "the shape of q")
    check_shape("attention", "out", out, q.shape, "the shape of q")
    check_shape("attention", "lse", lse, q.shape[:3], "one for each query")
    module = implementation("attention", impl, q)
    if q.size == 0 or k.size == 0:
        xp = array_module(q)
        return xp.zeros(q.shape, q.dtype), xp.zeros(k.shape, k.dtype), xp.zeros(v.shape, v.dtype)
    return module.attention_backward(dout, q, k, v, out, lse, bias, **options)


def _check(
    q: Any, k: Any, v: Any, causal: bool, offset: int, window: int | None, bias: Any, scale: float | None
) -> tuple[Any, dict[str, Any]]:
    """The bias with four axes (each 1 or full length), and the other options, or an error that says what is wrong."""
    check_arrays("attention", q=q, k=k, v=v)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4:
            raise ValueError(f"attention: {name} must have 4 axes (batch, heads, length, head dim), got {x.shape}")
    if q.dtype.name not in _DTYPES:
        raise TypeError(f"attention: q is {q.dtype}; {', '.join(_DTYPES)} are supported")
    if k.shape != v.shape:
        raise ValueError(f"attention: k and v must have the same shape, got k {k.shape} and v {v.shape}")
    B, H, T, D = q.shape
    heads_kv, S = k.shape[1:3]
    if k.shape[0] != B or k.shape[3] != D:
        raise ValueError(f"attention: batch and head dim of q {q.shape} and k {k.shape} differ; both must match")
    if not 1 <= D <= MAX_HEAD_DIM:
        raise ValueError(f"attention: head dim {D} (last axis of q {q.shape}) is outside 1..{MAX_HEAD_DIM}")
    if H and (not heads_kv or H % heads_kv):
        raise ValueError(f"attention: {H} query heads cannot share {heads_kv} key/value heads; H_kv must divide H")
    if window is not None and operator.index(window) < 1:
        raise ValueError(f"attention: window must be at least 1 (a query that sees one key) or None, got {window}")
    if bias is not None:
        bias = _check_bias(bias, q, (B, H, T, S))
    options = {
        "causal": bool(causal),
        "offset": operator.index(offset),
        "window": None if window is None else operator.index(window),
        "scale": D**-0.5 if scale is None else float(scale),
    }
    return bias, options


def _check_extras(q: Any, p: float, seed: int, position: int, bf16: bool) -> dict[str, Any]:
    """dropout and bf16, as far as they were asked for."""
    if not 0 <= p <= 1:
        raise ValueError(f"attention: dropout_p is the probability of a zero, from 0 to 1; got {p}")
    check_key("attention", seed, position)
    if bf16 and q.dtype != "float32":
        raise TypeError(f"attention: bf16=True multiplies rounded float32 numbers; q is {q.dtype}")
    return ({"dropout": (float(p), int(seed), int(position))} if p else {}) | ({"bf16": True} if bf16 else {})


def _lse_dtype(q: Any) -> Any:
    return q.dtype if q.dtype.itemsize > 2 else np.dtype(np.float32)


def _check_bias(bias: Any, q: Any, full: tuple[int, ...]) -> Any:
    if not is_array(bias) or bias.dtype != bool:
        check_arrays("attention", q=q, bias=bias)
    elif array_module(bias) is not array_module(q):
        names = array_module(bias).__name__, array_module(q).__name__
        raise TypeError(f"attention: bias belongs to {names[0]} but q to {names[1]}; move one of them")
    shape = (1,) * (4 - bias.ndim) + bias.shape
    if len(shape) != 4 or any(n not in (1, m) for n, m in zip(shape, full)):
        raise ValueError(f"attention: bias of shape {bias.shape} does not broadcast to (B, H, T, S) = {full}")
    return bias[(None,) * (4 - bias.ndim)]
