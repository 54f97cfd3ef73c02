"""Attention: layouts, masks, grouped heads, and the composite that runs where the kernel does not fit."""

from __future__ import annotations

import math

import numpy as np

from ... import functional as F
from ... import random
from .case import Case, case, normal

_BOOL = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0]], bool)  # (T, S) = (3, 4)
_BOOL_HEADS = np.stack([_BOOL, _BOOL[::-1]])  # (H, T, S)
_FLOAT = np.where(_BOOL, [[0.5, -1.0, 0.0, 2.0]], -math.inf)


def _torch(mask=None, **settings):
    """PyTorch's function with this mask, a float one in the inputs' dtype."""

    def function(torch, q, k, v):
        m = None if mask is None else torch.tensor(mask)
        m = m.to(q.dtype) if m is not None and m.is_floating_point() else m
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, m, **settings)

    return function


def _ours(mask=None, **settings):
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask, **settings)


def _row(label, q, k, v, mask=None, ours=(), **settings):
    """A row where both take the same arguments, but for those in `ours`."""
    ours = _ours(mask, **settings, **dict(ours))
    return case("scaled_dot_product_attention", ours, q, k, v, torch=_torch(mask, **settings), label=label)


def _dropped(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, dropout_p=0.4, generator=random.Generator(5))


def _packed(label, qkv, heads, kv_heads, mask=None, **settings):
    """self_attention, against PyTorch's function on the heads cut apart."""

    def theirs(torch, x):
        B, T, _ = x.shape
        parts = x.reshape(B, T, heads + 2 * kv_heads, -1).transpose(1, 2).split([heads, kv_heads, kv_heads], 1)
        y = _torch(mask, is_causal=settings.get("is_causal", False), enable_gqa=True)(torch, *parts)
        return y.transpose(1, 2).reshape(B, T, -1)

    return case(
        "self_attention", lambda x: F.self_attention(x, heads, kv_heads, mask, **settings), qkv, label=label,
        torch=theirs,
    )  # fmt: skip


def _packed_dropped(x):
    return F.self_attention(x, 2, dropout_p=0.4, is_causal=True, generator=random.Generator(5))


_Q, _K, _V = normal(1, 2, 3, 2), normal(1, 2, 4, 2), normal(1, 2, 4, 2)

CASES: list[Case] = [
    _row("", _Q, _K, _V),
    _row("causal", _Q, _K, _V, is_causal=True),
    _row("scale", _Q, _K, _V, scale=1.5),
    _row("bool mask", _Q, _K, _V, _BOOL),
    _row("bool mask per head", _Q, _K, _V, _BOOL_HEADS),
    _row("float mask with -inf", _Q, _K, _V, _FLOAT),
    _row("row masked out", _Q, _K, _V, _BOOL & np.array([[True], [False], [True]])),
    _row("(T, E)", normal(3, 2), normal(4, 2), normal(4, 2), _BOOL),
    _row("(N, T, E)", normal(2, 3, 2), normal(2, 4, 2), normal(2, 4, 2), _BOOL_HEADS),
    _row(
        "five axes", normal(2, 1, 2, 3, 2), normal(2, 1, 2, 4, 2), normal(2, 1, 2, 4, 2),
        np.stack([_BOOL_HEADS, ~_BOOL_HEADS])[:, None],
    ),
    _row("grouped heads", normal(1, 4, 2, 2), normal(1, 2, 3, 2), normal(1, 2, 3, 2), enable_gqa=True),
    _row("wide values", _Q, _K, normal(1, 2, 4, 3), is_causal=True),
    _row("grouped heads, wide values", normal(1, 4, 2, 2), normal(1, 2, 3, 2), normal(1, 2, 3, 3), enable_gqa=True),
    case(
        "scaled_dot_product_attention", _ours(_BOOL, is_causal=True), _Q, _K, _V,
        torch=_torch(_BOOL & np.tri(3, 4, dtype=bool)), label="causal and mask",
    ),
    case(
        "scaled_dot_product_attention", _ours(is_causal=True, offset=1), _Q, _K, _V,
        torch=_torch(np.tri(3, 4, 1, dtype=bool)), label="causal, offset=1",
    ),
    case(
        "scaled_dot_product_attention", _ours(is_causal=True, offset=1, window=2), _Q, _K, _V,
        torch=_torch(np.tri(3, 4, 1, dtype=bool) & ~np.tri(3, 4, -1, dtype=bool)), label="window=2",
    ),
    case(
        "scaled_dot_product_attention", lambda x: _ours(is_causal=True)(x, x, x), normal(1, 1, 3, 2),
        torch=lambda torch, x: _torch(is_causal=True)(torch, x, x, x), label="q = k = v",
    ),
    case(
        "scaled_dot_product_attention", F.scaled_dot_product_attention, _Q, _K, _V, normal(2, 3, 4),
        torch=lambda torch, q, k, v, m: torch.nn.functional.scaled_dot_product_attention(q, k, v, m),
        label="mask with a gradient",
    ),
    _packed("", normal(2, 3, 12), 2, 2),
    _packed("causal, grouped heads", normal(2, 3, 8), 2, 1, is_causal=True),
    _packed("mask", normal(1, 3, 12), 2, 2, _FLOAT[:, :3]),
    _packed("mask per head", normal(1, 3, 6), 1, 1, _BOOL_HEADS[:1, :, :3]),
    case("self_attention", _packed_dropped, normal(1, 4, 12), label="dropout"),
    case("scaled_dot_product_attention", _dropped, _Q, _K, _V, label="dropout"),
    case(
        "attention_weights", F.attention_weights, _Q, _K,
        torch=lambda torch, q, k: torch.softmax(q @ k.mT / math.sqrt(2), -1),
    ),
]  # fmt: skip
