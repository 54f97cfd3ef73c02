"""Attention of a sequence to itself, from queries, keys and values side by side, as one product makes them."""

from __future__ import annotations

from typing import Any

import kernels

from ..device import array_module
from ..dtypes import is_floating
from ..engine import op
from ..precision import in_bf16
from ..random import Generator
from .attention import attention_composite, check_mask, fits_kernel, options_of, reserve_dropout
from .elementwise import to_dtype
from .index import narrow
from .views import reshape, transpose

__all__ = ["self_attention"]


def self_attention(
    qkv: Any,
    heads: int,
    kv_heads: int | None = None,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    offset: int = 0,
    window: int | None = None,
    generator: Generator | None = None,
) -> Any:
    """scaled_dot_product_attention of heads that lie side by side: qkv (B, T, (heads + 2 kv_heads) * D).

    The last dim holds the heads of the queries, then those of the keys, then of the values (kv_heads each, by default
    as many as the queries have). The result is (B, T, heads * D), the heads side by side again. One op, without a copy
    of the heads: the kernel reads and writes them where they lie. attn_mask and the rest as there.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    if qkv.ndim != 3 or heads < 1 or kv_heads < 1 or heads % kv_heads or qkv.shape[2] % (heads + 2 * kv_heads):
        raise ValueError(
            f"self_attention: qkv has shape {tuple(qkv.shape)}; expected (B, T, ({heads} + 2 * {kv_heads}) * D) for "
            f"{heads} query heads that share {kv_heads} key/value heads"
        )
    B, T, width = qkv.shape
    if attn_mask is not None:
        check_mask("self_attention", attn_mask, (B, heads, T, T))
        attn_mask = to_dtype(attn_mask, qkv.dtype) if is_floating(attn_mask.dtype) else attn_mask
    drop = reserve_dropout(dropout_p, (B, heads, T, T), generator)
    settings = (heads, kv_heads, attn_mask, bool(is_causal), offset, window, scale, drop)
    differentiable_mask = getattr(attn_mask, "requires_grad", False)
    if differentiable_mask or not fits_kernel(qkv, width // (heads + 2 * kv_heads)):
        return self_attention_composite(qkv, *settings)
    return _self_attention(qkv, *settings)


def self_attention_composite(qkv, heads, kv_heads, mask, is_causal, offset, window, scale, drop):
    """`self_attention` as its formula."""
    B, T, width = qkv.shape
    D = width // (heads + 2 * kv_heads)
    x = transpose(reshape(qkv, (B, T, heads + 2 * kv_heads, D)), 1, 2)  # (B, H + 2 H_kv, T, D)
    q, k, v = narrow(x, 1, 0, heads), narrow(x, 1, heads, kv_heads), narrow(x, 1, heads + kv_heads, kv_heads)
    out = attention_composite(q, k, v, mask, is_causal, offset, window, scale, drop)  # (B, H, T, D)
    return reshape(transpose(out, 1, 2), (B, T, heads * D))


@op(composite=self_attention_composite)
def _self_attention(qkv, heads, kv_heads, mask, is_causal, offset, window, scale, drop):
    q, k, v = _cut(qkv, heads, kv_heads)
    options = options_of(is_causal, offset, window, scale, drop, in_bf16(qkv))
    out, lse = kernels.attention_forward(q, k, v, bias=mask, **options)
    return _join(out), {"lse": lse, "bf16": in_bf16(qkv)}


_self_attention.__name__ = "self_attention"  # what errors and pictures of the graph show


@_self_attention.vjp
def _(dout, qkv, heads, kv_heads, mask, is_causal, offset, window, scale, drop, out, lse, bf16):
    q, k, v = _cut(qkv, heads, kv_heads)
    options = options_of(is_causal, offset, window, scale, drop, bf16)
    douts, outs = _heads(dout, heads), _heads(out, heads)
    gradients = kernels.attention_backward(douts, q, k, v, outs, lse, bias=mask, **options)
    return array_module(qkv).concatenate([_join(g) for g in gradients], axis=2)


def _cut(qkv, heads, kv_heads):
    """(B, T, (H + 2 H_kv) * D) -> (B, H, T, D), (B, H_kv, T, D), (B, H_kv, T, D): views."""
    x = _heads(qkv, heads + 2 * kv_heads)
    return x[:, :heads], x[:, heads : heads + kv_heads], x[:, heads + kv_heads :]


def _heads(x, heads):
    """(B, T, heads * D) -> (B, heads, T, D), a view."""
    B, T, width = x.shape
    return x.reshape(B, T, heads, width // heads).transpose(0, 2, 1, 3)


def _join(x):
    """(B, H, T, D) -> (B, T, H * D): a view where heads of a position lie side by side."""
    B, H, T, D = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)
