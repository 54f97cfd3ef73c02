"""Scaled dot-product attention: the fused kernel as an op, and the same written out with ops.

    out = softmax(scale * q k^T + mask) v

Sources: Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023 (query heads that share kv heads), arXiv:2305.13245.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kernels

from ..device import array_module
from ..dtypes import is_floating
from ..engine import op
from ..precision import in_bf16
from ..random import Generator, default_generator
from .arrays import array_of, by_kernel
from .dropout import dropout_at
from .elementwise import masked_fill, to_dtype
from .linalg import matmul
from .softmax import softmax
from .views import expand, reshape, transpose, unsqueeze

__all__ = ["attention_weights", "scaled_dot_product_attention"]

MAX_HEAD_DIM = 256  # of the kernel


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    offset: int = 0,
    window: int | None = None,
    generator: Generator | None = None,
) -> Any:
    """Each query's mean of the values, weighted by softmax(scale * query . key + mask).

    query (..., H, T, E); key (..., H_kv, S, E); value (..., H_kv, S, E_v); the result is (..., H, T, E_v). Any number
    of leading axes, none included: (T, E) works.

    attn_mask   broadcastable to (..., H, T, S): bool, True takes part; or float, added to the scores, -inf excludes
    is_causal   query i sees keys j <= i + offset; with attn_mask both must allow a key (PyTorch forbids the pair)
    offset      0 aligns the first query with the first key, as PyTorch does; behind a cache of keys pass S - T
    window      query i sees keys j > i + offset - window: with is_causal, the newest `window` keys
    scale       None: 1 / sqrt(E)
    enable_gqa  H may be a multiple of H_kv: query head h reads kv head h // (H // H_kv)
    dropout_p   applied to the weights on every call, so pass 0.0 in evaluation

    What a query does not see has no part in its result, not even as 0 * NaN. A query that sees nothing gives zeros.
    The fused kernel runs unless it needs the weights as an array (a mask with a gradient, E_v != E) or float16.

    >>> import numpy as np
    >>> q = k = np.zeros((2, 1)); v = np.array([[0.0], [1.0]])        # equal scores: the mean of what is seen
    >>> scaled_dot_product_attention(q, k, v, is_causal=True)
    array([[0. ],
           [0.5]])
    """
    _check(query, key, value, attn_mask, enable_gqa, window)
    q, k, v = _four(query), _four(key), _four(value)
    mask = None if attn_mask is None else _fold_mask(attn_mask, q.dtype, query.shape[:-3])
    settings = (bool(is_causal), offset, window, scale)
    drop = reserve_dropout(dropout_p, (*q.shape[:3], k.shape[2]), generator)
    differentiable_mask = getattr(mask, "requires_grad", False)
    if not differentiable_mask and key.shape == value.shape and fits_kernel(q, q.shape[-1]):
        out = _scaled_dot_product_attention(q, k, v, mask, *settings, drop)
    else:
        out = attention_composite(q, k, v, mask, *settings, drop)
    return out if query.ndim == 4 else reshape(out, (*query.shape[:-1], value.shape[-1]))


def attention_weights(
    q: Any,
    k: Any,
    attn_mask: Any = None,
    is_causal: bool = False,
    offset: int = 0,
    window: int | None = None,
    scale: float | None = None,
) -> Any:
    """softmax(scale * q k^T + mask) of q (B, H, T, D) and k (B, H_kv, S, D): (B, H, T, S), rows that sum to 1.

    Arguments as in `scaled_dot_product_attention`. A query that sees nothing has a row of zeros.
    """
    _check(q, k, k, attn_mask, True, window)
    k = _repeat_heads(k, q.shape[1])  # (B, H, S, D)
    seen = _seen(q, k, attn_mask, is_causal, offset, window)  # (B, H, T, S), bool
    k, poisoned = _without_nan(k, seen)
    scores = matmul(q, transpose(k, -2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)  # (B, H, T, S)
    if attn_mask is not None and attn_mask.dtype != np.bool_:
        scores = scores + attn_mask
    blind = ~seen.any(axis=-1, keepdims=True)  # (B, H, T, 1): sees nothing, and softmax of nothing is NaN
    scores = masked_fill(scores, ~seen, -math.inf)
    scores = masked_fill(scores, blind, 0.0)
    weights = masked_fill(softmax(scores, -1), blind, 0.0)
    return weights if poisoned is None else masked_fill(weights, poisoned, math.nan)


def fits_kernel(x: Any, head_dim: int) -> bool:
    """Whether the kernel takes queries of the dtype of x and this head dim; 16 bits on a GPU only."""
    if head_dim > MAX_HEAD_DIM or x.dtype.itemsize >= 4:
        return head_dim <= MAX_HEAD_DIM
    return type(array_of(x)) is not np.ndarray and by_kernel("attention", array_of(x))


def reserve_dropout(p: float, shape: tuple[int, ...], generator: Generator | None) -> tuple[float, int, int] | None:
    """(p, seed, position) of the numbers that decide which weights of `shape` are dropped; None for p = 0."""
    if not 0 <= p <= 1:
        raise ValueError(f"attention: dropout_p is the probability of a zero, from 0 to 1; got {p}")
    if p == 0:
        return None
    return (p, *(default_generator if generator is None else generator).reserve(math.prod(shape)))


def attention_composite(q, k, v, mask=None, is_causal=False, offset=0, window=None, scale=None, drop=None):
    """Attention of q (B, H, T, D), k (B, H_kv, S, D), v (B, H_kv, S, Dv) as its formula; the weights are an array."""
    weights = attention_weights(q, k, mask, is_causal, offset, window, scale)  # (B, H, T, S)
    v, poisoned = _without_nan(_repeat_heads(v, q.shape[1]), _seen(q, k, mask, is_causal, offset, window))
    if poisoned is not None:
        weights = masked_fill(weights, poisoned, math.nan)
    if drop is not None:
        weights = dropout_at(weights, drop[0], drop[1:])
    return matmul(weights, v)  # (B, H, T, Dv)


@op(composite=attention_composite)
def _scaled_dot_product_attention(q, k, v, mask, is_causal, offset, window, scale, drop):
    """Attention without its (T, S) array; q (B, H, T, D), k and v (B, H_kv, S, D), mask a constant."""
    options = options_of(is_causal, offset, window, scale, drop, in_bf16(q))
    out, lse = kernels.attention_forward(q, k, v, bias=mask, **options)
    return out, {"lse": lse, "bf16": in_bf16(q)}


@_scaled_dot_product_attention.vjp
def _(dout, q, k, v, mask, is_causal, offset, window, scale, drop, out, lse, bf16):
    options = options_of(is_causal, offset, window, scale, drop, bf16)
    return kernels.attention_backward(dout, q, k, v, out, lse, bias=mask, **options)


def options_of(is_causal, offset, window, scale, drop, bf16):
    """The kernel's options."""
    options = {"causal": is_causal, "offset": offset, "window": window, "scale": scale}
    if drop is not None:
        options |= dict(zip(("dropout_p", "seed", "position"), drop))
    if bf16:
        options["bf16"] = True
    return options


def _seen(q, k, mask, is_causal, offset, window):
    """Which query sees which key: bool (B, H, T, S)."""
    xp = array_module(array_of(q))
    i, j = xp.arange(q.shape[-2])[:, None], xp.arange(k.shape[-2])[None, :]
    seen = xp.ones((i.shape[0], j.shape[1]), dtype=bool)  # (T, S)
    if is_causal:
        seen = seen & (j <= i + offset)
    if window is not None:
        seen = seen & (j > i + offset - window)
    if mask is not None:
        mask = array_of(mask)
        seen = seen & (mask if mask.dtype == np.bool_ else mask != -math.inf)
    return xp.broadcast_to(seen, (*q.shape[:-1], k.shape[-2]))


def _without_nan(x, seen):
    """x (B, H, S, D) with zeros in the rows that hold NaN or inf; where a query sees such a row (None: there is none).

    A weight of 0 does not keep a NaN out of a product: 0 * NaN is NaN.
    """
    bad = ~array_module(array_of(x)).isfinite(array_of(x)).all(axis=-1)  # (B, H, S)
    if not bad.any():
        return x, None
    return masked_fill(x, bad[..., None], 0.0), seen & bad[..., None, :]


def _repeat_heads(x, heads):
    """(B, H_kv, S, D) -> (B, H, S, D): each kv head once per query head that reads it."""
    B, kv, S, D = x.shape
    if kv == heads:
        return x
    return reshape(expand(unsqueeze(x, 2), (B, kv, heads // kv, S, D)), (B, heads, S, D))


def _four(x):
    """(..., H, T, D) -> (B, H, T, D)"""
    if x.ndim == 4:
        return x
    *lead, H, T, D = x.shape if x.ndim > 2 else (1, *x.shape)
    return reshape(x, (math.prod(lead), H, T, D))


def _fold_mask(mask, dtype, lead):
    """The mask in the scores' dtype, its axes before the heads folded into one as the query's are."""
    if mask.dtype != np.bool_ and mask.dtype != dtype:
        mask = to_dtype(mask, dtype)
    if mask.ndim <= 3 or len(lead) <= 1:
        return mask
    mask = expand(mask, (*lead, *mask.shape[-3:]))
    return reshape(mask, (math.prod(lead), *mask.shape[-3:]))


def _check(query, key, value, mask, enable_gqa, window):
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    name = "scaled_dot_product_attention"
    if not 2 <= query.ndim == key.ndim == value.ndim:
        raise ValueError(f"{name}: query, key and value need the same number of axes, two or more; got {shapes}")
    if not query.dtype == key.dtype == value.dtype:
        raise TypeError(f"{name}: query is {query.dtype}, key {key.dtype}, value {value.dtype}; they must be equal")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"{name}: query and key differ in their last axis, the head dim; got {shapes}")
    if key.shape[:-1] != value.shape[:-1] or query.shape[:-3] != key.shape[:-3]:
        raise ValueError(f"{name}: key and value must agree but for the head dim, all three in the batch; got {shapes}")
    heads, kv = (1, 1) if query.ndim == 2 else (query.shape[-3], key.shape[-3])
    if heads != kv and not (enable_gqa and kv and heads % kv == 0):
        raise ValueError(
            f"{name}: {heads} query heads and {kv} key/value heads; they must be equal, or the first a "
            f"multiple of the second with enable_gqa=True; got {shapes}"
        )
    if window is not None and window < 1:
        raise ValueError(f"{name}: window is the number of keys that a query sees, 1 or more, or None; got {window}")
    if mask is not None:
        check_mask(name, mask, (*query.shape[:-1], key.shape[-2]))


def check_mask(name, mask, scores):
    if mask.dtype != np.bool_ and not is_floating(mask.dtype):
        raise TypeError(f"{name}: attn_mask is bool (True takes part) or float (added to the scores); got {mask.dtype}")
    shape = tuple(mask.shape)
    if len(shape) > len(scores) or any(m not in (1, n) for m, n in zip(shape[::-1], scores[::-1])):
        raise ValueError(f"{name}: attn_mask of shape {shape} does not broadcast to the scores' shape {tuple(scores)}")
