"""The block of a decoder-only language model, in all the variants of GPT-2, Llama and those between."""

from __future__ import annotations

from typing import Any

import numpy as np

import kernels

from .. import functional as F
from ..device import array_module
from ..tensor import Tensor
from . import init
from .dropout import Dropout
from .kv_cache import KVCache
from .linear import Linear
from .module import Module
from .norm import RMSNorm
from .parameter import Parameter
from .plan import Plan
from .stochastic_depth import StochasticDepth


class CausalSelfAttention(Module):
    """Token t's mean of the values of tokens <= t: x (B, T, width) -> (B, T, width).

        q, k, v = x Wq^T, x Wk^T, x Wv^T        cut into heads of D numbers; the heads of q share those of k and v
        q, k    = rms_norm(q), rms_norm(k)      if qk_norm: scores cannot grow without bound
        q, k    = rotary(q), rotary(k)          if the plan has angles
        y       = concat(softmax(q k^T / sqrt(D) + mask) v) Wo^T

    window  w: a token sees itself and the w - 1 before it only
    Parameters: in_proj_weight ((heads + 2 kv_heads) * D, width), the rows of Wq, Wk, Wv; in_proj_bias; out_proj; and
    q_norm, k_norm, (D,) each, shared by the heads.
    Sources: Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023 (grouped heads), arXiv:2305.13245; Henry et al.
    2020 (norm of queries and keys), arXiv:2010.04245; Beltagy et al. 2020 (window), arXiv:2004.05150.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        window: int | None = None,
        qk_norm: bool = False,
        norm_eps: float = 1e-5,
    ):
        self.heads, self.kv_heads = heads, heads if kv_heads is None else kv_heads
        self.head_dim = width // heads if head_dim is None else head_dim
        self.dropout, self.window = dropout, window
        self.sections = [n * self.head_dim for n in (heads, self.kv_heads, self.kv_heads)]  # rows of Wq, Wk, Wv
        rows = sum(self.sections)
        self.in_proj_weight = Parameter(np.empty((rows, width), np.float32))
        self.in_proj_bias = Parameter(np.zeros(rows, np.float32)) if bias else None
        self.out_proj = Linear(heads * self.head_dim, width, bias)
        init.xavier_uniform_(self.in_proj_weight)
        self.q_norm = RMSNorm(self.head_dim, norm_eps) if qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, norm_eps) if qk_norm else None

    def forward(
        self, x: Any, plan: Plan, cache: KVCache | None = None, layer: int = 0, need_weights: bool = False
    ) -> tuple[Any, Any]:
        """(y, weights): weights (B, heads, T, offset + T) if need_weights, else None; layer: its place in the cache."""
        B, T, _ = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, T, (H + 2 H_kv) * D)
        drop = self.dropout if self.training else 0.0
        if cache is not None:
            return self.out_proj(self._cached(qkv, plan, cache, layer)), None
        if plan.rotary is None and self.q_norm is None and not need_weights:  # one op reads the heads where they lie
            y = F.self_attention(qkv, self.heads, self.kv_heads, plan.mask, drop, True, window=self.window)
            return self.out_proj(y), None
        q, k, v = self._heads(qkv, plan)  # (B, H, T, D), (B, H_kv, T, D), (B, H_kv, T, D)
        sees: dict[str, Any] = {"is_causal": True, "offset": plan.offset, "window": self.window}
        y = F.scaled_dot_product_attention(q, k, v, plan.mask, drop, enable_gqa=True, **sees)  # (B, H, T, D)
        y = self.out_proj(F.reshape(F.transpose(y, 1, 2), (B, T, self.heads * self.head_dim)))
        return y, F.attention_weights(q, k, plan.mask, **sees) if need_weights else None

    def _cached(self, qkv: Any, plan: Plan, cache: KVCache, layer: int) -> Tensor:
        """The heads' means (B, T, H * D) for tokens behind those of the cache. Heads are cut and turned as arrays: one
        token is so little work that a dozen ops would take as long."""
        B, T, _ = qkv.shape
        x = qkv.data.reshape(B, T, -1, self.head_dim).transpose(0, 2, 1, 3)  # (B, H + 2 H_kv, T, D)
        q, k, v = x[:, : self.heads], x[:, self.heads : -self.kv_heads], x[:, -self.kv_heads :]
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(Tensor(q)).data, self.k_norm(Tensor(k)).data
        if plan.rotary is not None:
            q, k = kernels.rotary_forward(q, *plan.rotary), kernels.rotary_forward(k, *plan.rotary)
        k, v = cache.append(layer, k, v)  # (B, H_kv, offset + T, D)
        if plan.offset is None:
            return Tensor(_one_token(q, k, v, plan.mask).reshape(B, T, self.heads * self.head_dim))
        out = F.scaled_dot_product_attention(
            Tensor(q), Tensor(k), Tensor(v), plan.mask, is_causal=True, enable_gqa=True, offset=plan.offset,
            window=self.window,
        ).data  # (B, H, T, D)  # fmt: skip
        return Tensor(out.transpose(0, 2, 1, 3).reshape(B, T, self.heads * self.head_dim))

    def _heads(self, qkv: Any, plan: Plan) -> tuple[Any, Any, Any]:
        B, T, _ = qkv.shape
        x = F.reshape(qkv, (B, T, -1, self.head_dim))
        q, k, v = F.split(x, [self.heads, self.kv_heads, self.kv_heads], dim=2)  # (B, T, heads, D)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = F.transpose(q, 1, 2), F.transpose(k, 1, 2), F.transpose(v, 1, 2)
        if plan.rotary is not None:
            q, k = F.rotary(q, *plan.rotary), F.rotary(k, *plan.rotary)
        return q, k, v

    def extra_repr(self) -> str:
        grouped = "" if self.kv_heads == self.heads else f", kv_heads={self.kv_heads}"
        window = "" if self.window is None else f", window={self.window}"
        return f"heads={self.heads}{grouped}, head_dim={self.head_dim}{window}, dropout={self.dropout}"


def _one_token(q: Any, k: Any, v: Any, seen: Any) -> Any:
    """Attention of one query for each head, q (B, H, 1, D) -> the same shape, over a cache k, v (B, H_kv, S, D) of
    which it sees `seen` (B or 1, 1, 1, S). Two products and a softmax: the same launches whatever the cache holds."""
    B, H, _, D = q.shape
    xp, heads = array_module(q), q.reshape(B, k.shape[1], -1, D)  # (B, H_kv, H / H_kv, D): those that share a head
    scores = F.matmul(heads, k.swapaxes(-1, -2)) * D**-0.5  # (B, H_kv, H / H_kv, S)
    weights = F.softmax(xp.where(seen, scores, -np.inf).astype(q.dtype, copy=False))
    return F.matmul(weights, v).reshape(B, H, 1, D)


class DecoderBlock(Module):
    """x = x + drop(attention(norm1(x)));  x = x + drop(mlp(norm2(x)))        x (B, T, width)

    The norm stands before each branch, so that the sum itself passes from the last block to the first unchanged (Xiong
    et al. 2020, arXiv:2002.04745). norm1, attention, norm2, mlp: modules; drop: dropout, then stochastic depth.
    """

    def __init__(
        self,
        norm1: Module,
        attention: CausalSelfAttention,
        norm2: Module,
        mlp: Module,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ):
        self.norm1, self.attention, self.norm2, self.mlp = norm1, attention, norm2, mlp
        self.dropout, self.skip = Dropout(dropout), StochasticDepth(stochastic_depth)

    def forward(
        self, x: Any, plan: Plan, cache: KVCache | None = None, layer: int = 0, need_weights: bool = False
    ) -> Any:
        """The same shape; need_weights: (x, attention weights)."""
        y, weights = self.attention(self.norm1(x), plan, cache, layer, need_weights)
        y, x = self.norm2(self.skip(self.dropout(y)), x)  # the norm of the sum, and the sum
        x = x + self.skip(self.dropout(self.mlp(y)))
        return (x, weights) if need_weights else x
