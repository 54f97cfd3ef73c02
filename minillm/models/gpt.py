"""A language model: a decoder-only transformer (Vaswani et al. 2017), from GPT-2 to Llama by its settings.

    x      = token[ids] (+ position[0 .. T-1])                  (B, T, width)
    x      = x + attention(norm(x));  x = x + mlp(norm(x))      once a layer, causal
    logits = norm(x) @ head^T                                   (B, T, vocab); head = token (Press & Wolf 2017)
    logits = c tanh(logits / c)                                 if softcap = c (Gemma 2, arXiv:2408.00118)
    loss   = mean of -log softmax(logits)[next id]              in nats a token

Initialisation, as GPT-2's (Radford et al. 2019):

| weights | start from |
|---|---|
| embeddings, head, linear layers | N(0, 0.02) |
| the two projections back into the residual stream | N(0, 0.02 / sqrt(2 layers)); zero_init: 0 |
| biases | 0 |
| norms | 1, bias 0 |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..checkpoint import checkpoint
from ..creation import as_tensor
from ..device import to_device, to_numpy
from ..nn.decoder import CausalSelfAttention, DecoderBlock
from ..nn.feed_forward import KINDS, feed_forward
from ..nn.kv_cache import KVCache
from ..nn.modes import evaluation
from ..nn.moe import MixtureOfExperts
from ..nn.plan import Plan, alibi_bias, document_mask, document_positions, either
from ..ops.rotary import rotary_tables
from ..random import Generator
from ..recording import is_grad_enabled, no_grad
from ..tensor import Tensor
from .common import check_sizes, from_dict

POSITIONS = ("learned", "rotary", "alibi", "none")
NORMS = ("layer", "rms")


@dataclass(frozen=True)
class GPTConfig:
    vocab_size: int = 256
    context: int = 64  # longest sequence, in tokens
    layers: int = 4
    heads: int = 4
    width: int = 128  # of the residual stream
    dropout: float = 0.0  # of embeddings, attention weights and branches
    bias: bool = True  # in linear layers and layer norms
    kv_heads: int | None = None  # that the query heads share (grouped-query attention); None: heads
    head_dim: int | None = None  # None: width / heads
    position: str = "learned"  # one of POSITIONS
    rotary_base: float = 10000.0
    rotary_scaling: tuple[float, float, float, int] | None = None  # Llama 3's, see ops/rotary.py
    norm: str = "layer"  # one of NORMS
    norm_eps: float = 1e-5
    mlp: str = "gelu"  # or "gelu_tanh", "relu2", "swiglu": see nn/feed_forward.py
    mlp_width: int | None = None  # None: 4 width; swiglu: 8/3 width
    window: int | None = None  # tokens that a token sees, itself included; None: all before it
    qk_norm: bool = False  # RMSNorm of queries and keys
    softcap: float | None = None  # the largest logit
    tie: bool = True  # head = token embedding
    stochastic_depth: float = 0.0  # of the last block; the others' grows from 0 in proportion to their depth
    experts: int = 0  # 0: an ordinary mlp; else a mixture of so many
    experts_per_token: int = 2
    capacity_factor: float | None = None  # of an expert, see nn/moe.py
    balance_loss: float = 0.01  # weight of the experts' balance loss while training
    zero_init: bool = False  # blocks begin as the identity

    def __post_init__(self) -> None:
        if self.rotary_scaling is not None:
            object.__setattr__(self, "rotary_scaling", tuple(self.rotary_scaling))


class GPT(nn.Module):
    """GPT(vocab_size=256, context=64, layers=4, heads=4, width=128); all settings: GPTConfig.

    checkpoint_blocks  set it to True: blocks are computed again for their gradient, for less memory while training
    """

    def __init__(self, vocab_size: int = 256, **settings: Any):
        super().__init__()
        self.config = c = from_dict(GPTConfig, {"vocab_size": vocab_size, **settings})
        _check(c)
        self.checkpoint_blocks = False
        self.token = nn.Embedding(c.vocab_size, c.width)
        self.position = nn.Embedding(c.context, c.width) if c.position == "learned" else None
        self.dropout = nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList([self._block(i) for i in range(c.layers)])
        self.norm = self._norm()
        self.head = None if c.tie else nn.Linear(c.width, c.vocab_size, bias=False)
        self._angles: Any = None  # (cos, sin), made when first needed
        self._initialise()

    @classmethod
    def from_config(cls, config: GPTConfig | dict) -> GPT:
        config = from_dict(GPTConfig, config)
        return cls(**{f: getattr(config, f) for f in config.__dataclass_fields__})

    @classmethod
    def preset(cls, name: str, **changes: Any) -> GPT:
        """The model of a name in presets.py, for instance "gpt2", with some settings changed."""
        from .presets import preset

        return cls(**{**preset(name), **changes})

    # ------------------------------------------------------------------------------------------- parts

    def _norm(self) -> nn.Module:
        c = self.config
        return nn.LayerNorm(c.width, c.norm_eps, bias=c.bias) if c.norm == "layer" else nn.RMSNorm(c.width, c.norm_eps)

    def _block(self, i: int) -> DecoderBlock:
        c = self.config
        attention = CausalSelfAttention(
            c.width, c.heads, c.kv_heads, c.head_dim, c.dropout, c.bias, c.window, c.qk_norm, c.norm_eps
        )
        make = partial(feed_forward, c.mlp, c.width, c.mlp_width, c.bias)
        if c.experts:
            mlp: nn.Module = MixtureOfExperts(c.width, c.experts, c.experts_per_token, make, c.capacity_factor)
        else:
            mlp = make()
        depth = c.stochastic_depth * i / max(1, c.layers - 1)
        return DecoderBlock(self._norm(), attention, self._norm(), mlp, c.dropout, depth)

    def _initialise(self) -> None:
        c = self.config
        residual = 0.0 if c.zero_init else 0.02 / math.sqrt(2 * c.layers)
        back = ("out_proj.weight", ".2.weight", "down.weight")  # .2: the second layer of a feed-forward Sequential
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=residual if name.endswith(back) else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    # --------------------------------------------------------------------------------- what it computes

    def hidden(self, ids: Any, cache: KVCache | None = None, documents: Any = None) -> Tensor:
        """The last hidden states: ids (B, T) -> (B, T, width).

        cache      of `new_cache`: ids go on from what it holds, and are added to it; without gradient
        documents  (B, T) an id for each token: tokens see their own document only, see nn/plan.py
        """
        if cache is not None:
            with no_grad():
                return self._hidden(ids, cache, documents)
        return self._hidden(ids, None, documents)

    def _hidden(self, ids: Any, cache: KVCache | None, documents: Any) -> Tensor:
        ids, plan, x = self._begin(ids, cache, documents)
        again = self.checkpoint_blocks and is_grad_enabled()
        if again and self.training and self.config.experts and self.config.balance_loss:
            raise ValueError(
                "GPT: with checkpoint_blocks the experts' balance loss would get no gradient; set balance_loss=0"
            )
        for i, block in enumerate(self.blocks):
            x = checkpoint(partial(block, plan=plan), x) if again else block(x, plan, cache, i)
        if cache is not None:
            cache.advance(ids.shape[1])
        return self.norm(x)

    def _begin(self, ids: Any, cache: KVCache | None, documents: Any) -> tuple[Tensor, Plan, Tensor]:
        """ids as a Tensor, the plan of the pass, and the embedded tokens (B, T, width)."""
        ids, c = as_tensor(ids), self.config
        most = c.context if cache is None else cache.capacity
        if ids.ndim != 2 or not 1 <= ids.shape[1] <= most:
            raise ValueError(f"GPT: expected ids of shape (batch, 1 to {most} tokens), got {ids.shape}")
        B, T = ids.shape
        if documents is not None:
            documents = to_numpy(as_tensor(documents).data)
            if cache is not None or documents.shape != (B, T):
                raise ValueError(
                    f"GPT: documents are ids of the shape of the tokens, {(B, T)}, got {documents.shape}, and go "
                    "without a cache"
                )
        if cache is not None:
            cache.check(B, T)
        if cache is not None and cache.place is not None:
            return ids, *self._begin_steady(ids, cache)
        before = 0 if cache is None else cache.length
        start = None if cache is None or cache.start is None or not cache.start.any() else cache.start
        x = self.token(ids)
        if self.position is not None:
            if documents is None and start is None:
                x = x + self.position.weight[before : before + T]
            else:
                places = np.arange(before, before + T)
                at = np.maximum(places - start[:, None], 0) if start is not None else document_positions(documents)
                x = x + self.position(to_device(at, x.device))  # (B, T, width)
        return ids, self._plan(T, before, start, documents, x), self.dropout(x)

    def _begin_steady(self, ids: Tensor, cache: KVCache) -> tuple[Plan, Tensor]:
        """`_begin` for one token of each row, behind a cache whose length only the device knows."""
        if ids.shape[1] != 1 or self.config.position == "alibi":
            raise ValueError(
                f"GPT: a steady cache takes one token of each row, and no ALiBi; got {ids.shape[1]} tokens, "
                f"position={self.config.position!r}"
            )
        x, rotary = self.token(ids), None  # (B, 1, width)
        if self.position is not None:
            x = x + Tensor(self.position.weight.data[cache.places()])
        if self.config.position == "rotary":
            cos, sin = self._rotary(0, cache.capacity, x)
            rotary = cos[cache.place], sin[cache.place]  # (1, D/2)
        return Plan(None, rotary, cache.seen(self.config.window)), x

    def _plan(self, T: int, before: int, start: Any, documents: Any, x: Tensor) -> Plan:
        c, mask, bias = self.config, None, None
        if start is not None:  # padding on the left
            mask = (np.arange(before + T) >= start[:, None])[:, None, None]  # (B, 1, 1, S)
        elif documents is not None:
            mask = document_mask(documents)  # (B, 1, T, T)
        if c.position == "alibi":
            bias = alibi_bias(c.heads, T, before, x.dtype)  # (1, H, T, S)
        mask = either(mask, bias)
        return Plan(
            before,
            self._rotary(before, before + T, x) if c.position == "rotary" else None,
            None if mask is None else to_device(mask, x.device),
        )

    def _rotary(self, start: int, stop: int, like: Tensor) -> tuple[Any, Any]:
        """cos and sin of positions start to stop - 1: (T, D/2) each, from tables that grow as needed."""
        c = self.config
        key = (like.dtype, like.device)
        if self._angles is None or self._angles[0] != key or len(self._angles[1]) < stop:
            made = rotary_tables(max(stop, c.context), head_dim(c), c.rotary_base, c.rotary_scaling, like.dtype)
            self._angles = (key, *[to_device(t, like.device) for t in made])
        return self._angles[1][start:stop], self._angles[2][start:stop]

    @property
    def head_weight(self) -> Tensor:
        """(vocab, width): of the head, or of the embedding that is tied to it."""
        return self.token.weight if self.head is None else self.head.weight

    def forward(self, ids: Any, cache: KVCache | None = None, documents: Any = None) -> Tensor:
        """Logits of the next token at every position: ids (B, T) -> (B, T, vocab); arguments as `hidden`'s."""
        return self.logits(self.hidden(ids, cache, documents))

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden states (..., width) -> (..., vocab)"""
        logits, cap = F.linear(hidden, self.head_weight), self.config.softcap
        return logits if cap is None else F.tanh(logits * (1 / cap)) * cap

    def loss(
        self, ids: Any, targets: Any, *, label_smoothing: float = 0.0, z_loss: float = 0.0, documents: Any = None
    ) -> Tensor:
        """Next-token cross-entropy in nats a token; targets (B, T), -100 where there is none.

        label_smoothing, z_loss  as in F.linear_cross_entropy. While training, the experts' balance loss is added.
        """
        states = self.hidden(ids, documents=documents)
        loss = F.linear_cross_entropy(
            states, self.head_weight, as_tensor(targets), label_smoothing=label_smoothing, softcap=self.config.softcap,
            z_loss=z_loss,
        )  # fmt: skip
        balances = [b.mlp.balance for b in self.blocks] if self.config.experts and self.training else []
        for balance in [b for b in balances if b is not None]:
            loss = loss + balance * (self.config.balance_loss / self.config.layers)
        return loss

    def new_cache(self, batch: int = 1, length: int | None = None, start: Any = None) -> KVCache:
        """An empty KVCache for `batch` sequences of up to `length` tokens (None: the context).

        start (batch,): the first start[b] tokens of row b are padding: never seen, and positions count from there.
        """
        c, weight = self.config, self.token.weight
        length = c.context if length is None else length
        if c.position == "learned" and length > c.context:
            raise ValueError(f"GPT: a cache of {length} tokens, but there are {c.context} learned positions")
        heads = c.heads if c.kv_heads is None else c.kv_heads
        return KVCache(c.layers, batch, heads, length, head_dim(c), weight.dtype, weight.device, start)

    def flops_per_token(self, context: int | None = None) -> float:
        """FLOPs of a training step for each token: 6 for each weight of a product that the token meets, and 12 H D for
        each layer and key that it sees: (context + 1) / 2 keys on average, fewer with a window.

        Source: Kaplan et al. 2020, arXiv:2001.08361; Chowdhery et al. 2022, PaLM, arXiv:2204.02311, appendix B.
        """
        c = self.config
        T = c.context if context is None else context
        w = T if c.window is None else min(c.window, T)
        keys = (w * (w + 1) / 2 + (T - w) * w) / T  # 1, 2, ... w, w, ...
        weights = float(self.head_weight.numel())
        for name, p in self.blocks.named_parameters():
            if p.ndim == 2:
                weights += p.numel() * (c.experts_per_token / c.experts if ".experts." in name else 1)
        return 6.0 * weights + 12.0 * c.layers * c.heads * head_dim(c) * keys

    # ---------------------------------------------------------------------------------------- looking inside

    @no_grad()
    def attention_maps(self, ids: Any) -> np.ndarray:
        """Every head's attention weights on ids (T,): (layers, heads, T, T) in main memory; without dropout."""
        maps = []
        with evaluation(self):
            _, plan, x = self._begin(as_tensor(ids).reshape(1, -1), None, None)
            for block in self.blocks:
                x, weights = block(x, plan, need_weights=True)  # (1, T, width), (1, heads, T, T)
                maps.append(weights.numpy()[0])
        return np.stack(maps)

    def generate(
        self,
        ids: Any,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: Generator | None = None,
    ) -> np.ndarray:
        """ids (T,) followed by max_new_tokens sampled ones, int64 in main memory; see minillm/generation for more.

        temperature  divides the logits; 0 takes the likeliest token
        top_k        sample among the k likeliest tokens only
        generator    of the random numbers; None: the default one, see manual_seed
        """
        from ..generation.generate import generate_ids

        return generate_ids(self, ids, max_new_tokens, temperature, top_k, generator)


def head_dim(config: GPTConfig) -> int:
    return config.width // config.heads if config.head_dim is None else config.head_dim


def _check(c: GPTConfig) -> None:
    check_sizes(c, "vocab_size", "context", "layers", "heads", "width")
    for name in ("kv_heads", "head_dim", "mlp_width", "window"):
        if getattr(c, name) is not None:
            check_sizes(c, name)
    check_sizes(c, "experts", least=0)
    if c.head_dim is None and c.width % c.heads:
        raise ValueError(f"GPT: width={c.width} must be a multiple of heads={c.heads}")
    if c.kv_heads is not None and c.heads % c.kv_heads:
        raise ValueError(f"GPT: heads={c.heads} must be a multiple of kv_heads={c.kv_heads}")
    for name, allowed in (("position", POSITIONS), ("norm", NORMS), ("mlp", KINDS)):
        if getattr(c, name) not in allowed:
            raise ValueError(f"GPT: {name}={getattr(c, name)!r} is none of {', '.join(allowed)}")
    if c.position == "rotary" and head_dim(c) % 2:
        raise ValueError(f"GPT: rotary positions turn pairs of numbers: head_dim={head_dim(c)} must be even")
    if c.rotary_scaling is not None and len(c.rotary_scaling) != 4:
        raise ValueError("GPT: rotary_scaling is (factor, low_freq_factor, high_freq_factor, original context)")
    if c.softcap is not None and not c.softcap > 0:
        raise ValueError(f"GPT: softcap must be above 0, or None; got {c.softcap}")


__all__ = ["GPT", "GPTConfig"]
