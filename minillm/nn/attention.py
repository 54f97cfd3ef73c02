"""Attention layers: who looks where, as learned weights that sum to 1 over the keys.

    weights = softmax(score(query, key)) over the keys        context = weights @ value

    additive            v^T tanh(W q + U k)      Bahdanau, Cho, Bengio 2015, arXiv:1409.0473
    dot product         q . k                    Luong, Pham, Manning 2015, arXiv:1508.04025
    scaled dot product  q . k / sqrt(D)          Vaswani et al. 2017, arXiv:1706.03762

Masks say who takes part, everywhere in minillm: bool, True takes part; or float, added to the scores, -inf takes no
part. (torch.nn.MultiheadAttention reads a bool mask the other way round.) A query that sees nothing gets zeros.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional as F
from ..dtypes import is_floating
from . import init
from .linear import Linear
from .module import Module
from .parameter import Parameter


class _SingleHead(Module):
    """forward(query, key, value, mask) -> (context, weights), for a `score` that a subclass defines."""

    def score(self, query: Any, key: Any) -> Any:
        """(B, Q, D), (B, S, D) -> (B, Q, S)"""
        raise NotImplementedError(
            f"{type(self).__name__} has no score(query, key): write one, it is what sets it apart"
        )

    def forward(self, query: Any, key: Any, value: Any, mask: Any = None) -> tuple[Any, Any]:
        """Each query's weighted mean of the values, and the weights.

        query (B, Q, D), key (B, S, D), value (B, S, Dv), mask with three axes, broadcastable to (B, Q, S), or None
        -> context (B, Q, Dv), weights (B, Q, S), which sum to 1 over the last axis
        """
        shapes = f"query {query.shape}, key {key.shape}, value {value.shape}"
        if not query.ndim == key.ndim == value.ndim == 3:
            raise ValueError(f"{type(self).__name__}: expected (B, Q, D), (B, S, D), (B, S, Dv); got {shapes}")
        if not (query.shape[0] == key.shape[0] and key.shape[:2] == value.shape[:2]):
            raise ValueError(f"{type(self).__name__}: batches, or lengths of key and value, differ: {shapes}")
        scores = self.score(query, key)  # (B, Q, S)
        weights = masked_softmax(scores, mask)  # (B, Q, S)
        return F.matmul(weights, value), weights  # (B, Q, Dv), (B, Q, S)


class AdditiveAttention(_SingleHead):
    """score(q, k) = v^T tanh(W q + U k): a small network with one hidden layer. Queries and keys may differ in width.

    W (hidden, query_dim), U (hidden, key_dim), v (1, hidden), without biases as in the paper; initialised as Linear.
    Memory: the hidden layer is (B, Q, S, hidden).
    """

    def __init__(self, query_dim: int, key_dim: int, hidden_dim: int):
        self.query_layer = Linear(query_dim, hidden_dim, bias=False)
        self.key_layer = Linear(key_dim, hidden_dim, bias=False)
        self.score_layer = Linear(hidden_dim, 1, bias=False)

    def score(self, query: Any, key: Any) -> Any:
        q = F.unsqueeze(self.query_layer(query), 2)  # (B, Q, 1, hidden)
        k = F.unsqueeze(self.key_layer(key), 1)  # (B, 1, S, hidden)
        return F.squeeze(self.score_layer(F.tanh(q + k)), -1)  # (B, Q, S)


class DotProductAttention(_SingleHead):
    """score(q, k) = q . k (Luong's "dot"). No parameters; queries and keys have one width D."""

    def score(self, query: Any, key: Any) -> Any:
        if query.shape[-1] != key.shape[-1]:
            raise ValueError(
                f"{type(self).__name__}: query {query.shape} and key {key.shape} differ in their last axis: project "
                "one of them with Linear first, or use AdditiveAttention"
            )
        return F.matmul(query, F.transpose(key, -2, -1))  # (B, Q, S)


class ScaledDotProductAttention(DotProductAttention):
    """score(q, k) = q . k / sqrt(D): scores of size 1 at any width D, where a softmax still learns."""

    def score(self, query: Any, key: Any) -> Any:
        return super().score(query, key) * (1 / math.sqrt(query.shape[-1]))  # (B, Q, S)


def masked_softmax(scores: Any, mask: Any = None) -> Any:
    """softmax over the last axis of the scores (B, Q, S), of the keys that take part; 0 for all others."""
    if mask is None:
        return F.softmax(scores, dim=-1)
    if mask.ndim != 3:
        raise ValueError(
            f"mask has shape {mask.shape}; expected three axes, each 1 or as in the scores (B, Q, S) = {scores.shape}: "
            "a mask of keys (B, S) is given as mask[:, None, :]"
        )
    seen = mask != -math.inf if is_floating(mask.dtype) else mask  # (B or 1, Q or 1, S or 1)
    if is_floating(mask.dtype):
        scores = scores + F.to_dtype(F.where(seen, mask, 0.0), scores.dtype)
    lowest = float(np.finfo(scores.dtype).min) / 2  # not -inf: a row of nothing but -inf would be 0 / 0
    weights = F.softmax(F.where(seen, scores, lowest), dim=-1)
    return F.where(seen, weights, 0.0)


class MultiheadAttention(Module):
    """num_heads scaled dot-product attentions side by side, on the fused kernel; batch first.

        q, k, v = query Wq^T + bq, key Wk^T + bk, value Wv^T + bv       each cut into heads of width D = E / num_heads
        y       = concat(heads) Wo^T + bo

    num_kv_heads  fewer heads for keys and values than for queries: num_heads / num_kv_heads query heads share one
                  (Ainslie et al. 2023, arXiv:2305.13245)
    dropout       of the attention weights, while training

    Parameters, with PyTorch's names and initial values: in_proj_weight (E + 2 * num_kv_heads * D, E), the rows of Wq,
    Wk, Wv, Xavier uniform; in_proj_bias 0; out_proj, a Linear with bias 0.
    Source: Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, num_kv_heads: int | None = None
    ):
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: num_heads {num_heads} must divide embed_dim {embed_dim}")
        if num_kv_heads < 1 or num_heads % num_kv_heads:
            raise ValueError(f"MultiheadAttention: num_kv_heads {num_kv_heads} must divide num_heads {num_heads}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"MultiheadAttention: dropout is a probability; got {dropout}")
        self.embed_dim, self.num_heads, self.num_kv_heads, self.dropout = embed_dim, num_heads, num_kv_heads, dropout
        self.head_dim = embed_dim // num_heads
        kv = num_kv_heads * self.head_dim
        self.sections = [embed_dim, kv, kv]  # rows of Wq, Wk, Wv
        self.in_proj_weight = Parameter(np.empty((embed_dim + 2 * kv, embed_dim), np.float32))
        self.in_proj_bias = Parameter(np.zeros(embed_dim + 2 * kv, np.float32)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias)
        init.xavier_uniform_(self.in_proj_weight)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        attn_mask: Any = None,
        is_causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Any, Any]:
        """(y, weights): y (B, T, E); weights (B, H, T, S) if need_weights, else None, as PyTorch's returns a pair.

        query (B, T, E); key (B, S, E), by default the query (self-attention); value (B, S, E), by default the key.
        attn_mask  (T, S) or (B or 1, H or 1, T, S): bool, True takes part, or float; of keys: mask[:, None, None, :]
        is_causal  query i sees keys j <= i only (and what attn_mask allows)
        The weights are computed beside the kernel, without dropout: rows sum to 1, and y is the same bits either way.
        """
        key = query if key is None else key
        value = key if value is None else value
        self._check(query, key, value, attn_mask)
        drop = self.dropout if self.training else 0.0
        itself = query is key is value
        if itself:  # one product for all three
            qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)  # (B, T, (H + 2 H_kv) * D)
            y = F.self_attention(qkv, self.num_heads, self.num_kv_heads, attn_mask, drop, is_causal)  # (B, T, E)
        else:
            q, k, v = self._heads(query, key, value)  # (B, H, T, D), (B, H_kv, S, D), (B, H_kv, S, D)
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=attn_mask, dropout_p=drop, is_causal=is_causal, enable_gqa=True
            )  # (B, H, T, D)
            y = F.reshape(F.transpose(y, 1, 2), query.shape)
        y = self.out_proj(y)  # (B, T, E)
        if not need_weights:
            return y, None
        if itself:
            q, k, _ = F.split(self._cut(qkv), [self.num_heads, self.num_kv_heads, self.num_kv_heads], dim=1)
        return y, F.attention_weights(q, k, attn_mask, is_causal)

    def _heads(self, query: Any, key: Any, value: Any) -> tuple[Any, ...]:
        weights = F.split(self.in_proj_weight, self.sections, dim=0)  # (E, E), (E_kv, E), (E_kv, E)
        biases = [None] * 3 if self.in_proj_bias is None else F.split(self.in_proj_bias, self.sections, dim=0)
        return tuple([self._cut(F.linear(x, w, b)) for x, w, b in zip((query, key, value), weights, biases)])

    def _cut(self, x: Any) -> Any:
        """(B, T, H * D) -> (B, H, T, D)"""
        B, T, _ = x.shape
        return F.transpose(F.reshape(x, (B, T, -1, self.head_dim)), 1, 2)

    def _check(self, query: Any, key: Any, value: Any, mask: Any) -> None:
        for name, x in (("query", query), ("key", key), ("value", value)):
            if x.ndim != 3 or x.shape[-1] != self.embed_dim:
                raise ValueError(
                    f"MultiheadAttention: {name} must be (batch, length, embed_dim = {self.embed_dim}); got {x.shape}"
                )
        if mask is not None and mask.ndim not in (2, 4):
            raise ValueError(
                f"MultiheadAttention: attn_mask has shape {mask.shape}; give (T, S), or four axes (B or 1, H or 1, T, "
                "S): mask[:, None] for one mask a sequence, mask[:, None, None, :] for padding (B, S)"
            )

    def extra_repr(self) -> str:
        grouped = "" if self.num_kv_heads == self.num_heads else f", num_kv_heads={self.num_kv_heads}"
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}{grouped}, dropout={self.dropout}"
