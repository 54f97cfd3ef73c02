"""A small language model: a decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019, GPT-2), plain.

    x      = token[ids] + position[0 .. T-1]                    (B, T, width)
    x      = x + attention(layer_norm(x));  x = x + mlp(layer_norm(x))      once a layer, causal
    logits = layer_norm(x) @ token^T                            (B, T, vocab); head = embedding (Press & Wolf 2017)
    loss   = mean of -log softmax(logits)[next id]              in nats a token

Initialisation, as GPT-2's:

| weights | start from |
|---|---|
| embeddings, linear layers | N(0, 0.02) |
| the two projections back into the residual stream | N(0, 0.02 / sqrt(2 layers)) |
| biases | 0 |
| layer norms | 1, bias 0 |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..creation import as_tensor
from ..device import array_module
from ..nn.modes import evaluation
from ..random import Generator, default_generator
from ..recording import no_grad
from ..tensor import Tensor
from .common import check_sizes, from_dict


@dataclass(frozen=True)
class GPTConfig:
    vocab_size: int = 256
    context: int = 64  # longest sequence, in tokens
    layers: int = 4
    heads: int = 4
    width: int = 128  # of the residual stream; a multiple of heads
    dropout: float = 0.0
    bias: bool = True  # in linear layers and layer norms


class GPT(nn.Module):
    """GPT(vocab_size=256, context=64, layers=4, heads=4, width=128)."""

    def __init__(self, vocab_size: int = 256, **settings: Any):
        super().__init__()
        self.config = c = from_dict(GPTConfig, {"vocab_size": vocab_size, **settings})
        check_sizes(c, "vocab_size", "context", "layers", "heads", "width")
        if c.width % c.heads:
            raise ValueError(f"GPT: width={c.width} must be a multiple of heads={c.heads}")
        self.token = nn.Embedding(c.vocab_size, c.width)
        self.position = nn.Embedding(c.context, c.width)
        self.dropout = nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList([nn.TransformerBlock(c.width, c.heads, c.dropout, c.bias) for _ in range(c.layers)])
        self.norm = nn.LayerNorm(c.width, bias=c.bias)
        self._initialise()

    @classmethod
    def from_config(cls, config: GPTConfig | dict) -> GPT:
        config = from_dict(GPTConfig, config)
        return cls(**{f: getattr(config, f) for f in config.__dataclass_fields__})

    def _initialise(self) -> None:
        residual = 0.02 / math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=residual if name.endswith(("out_proj.weight", "mlp.2.weight")) else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def embed(self, ids: Any) -> Tensor:
        """Token and position embeddings, added: ids (B, T) -> (B, T, width)."""
        ids = as_tensor(ids)
        if ids.ndim != 2 or not 1 <= ids.shape[1] <= self.config.context:
            raise ValueError(f"GPT: expected ids of shape (batch, 1 to {self.config.context} tokens), got {ids.shape}")
        return self.dropout(self.token(ids) + self.position.weight[: ids.shape[1]])

    def hidden(self, ids: Any) -> Tensor:
        """The last hidden states: ids (B, T) -> (B, T, width)."""
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, ids: Any) -> Tensor:
        """Logits of the next token at every position: ids (B, T) -> (B, T, vocab)."""
        return F.linear(self.hidden(ids), self.token.weight)

    def loss(self, ids: Any, targets: Any) -> Tensor:
        """Next-token cross-entropy in nats a token; targets (B, T), -100 where there is none."""
        return F.linear_cross_entropy(self.hidden(ids), self.token.weight, as_tensor(targets))

    @no_grad()
    def attention_maps(self, ids: Any) -> np.ndarray:
        """Every head's attention weights on ids (T,): (layers, heads, T, T) in main memory; without dropout."""
        maps = []
        with evaluation(self):
            x = self.embed(as_tensor(ids).reshape(1, -1))
            for block in self.blocks:
                x, weights = block(x, need_weights=True)  # (1, T, width), (1, heads, T, T)
                maps.append(weights.numpy()[0])
        return np.stack(maps)

    @no_grad()
    def generate(
        self,
        ids: Any,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: Generator | None = None,
    ) -> np.ndarray:
        """ids (T,) followed by max_new_tokens sampled ones, int64 in main memory. Sees the last `context` tokens.

        temperature  divides the logits; 0 takes the likeliest token
        top_k        sample among the k likeliest tokens only
        generator    of the random numbers; None: the default one, see manual_seed
        """
        if max_new_tokens < 0:
            raise ValueError(f"generate: max_new_tokens must be at least 0, got {max_new_tokens}")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"generate: temperature must be a number of at least 0, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"generate: top_k must be at least 1, got {top_k}")
        generator = default_generator if generator is None else generator
        prompt = as_tensor(ids).numpy().reshape(-1)  # (T,)
        if not prompt.size:
            raise ValueError("generate: the prompt is empty; give at least one token")
        if prompt.dtype.kind not in "iu":
            raise TypeError(f"generate: the prompt must be integer ids of tokens, got {prompt.dtype}")
        out = prompt.astype(np.int64)
        with evaluation(self):
            for _ in range(max_new_tokens):
                window = as_tensor(out[None, -self.config.context :]).to(self.token.weight.device)  # (1, up to context)
                logits = F.linear(self.hidden(window)[:, -1], self.token.weight).reshape(-1)  # (vocab,)
                out = np.append(out, _choose(logits.data, temperature, top_k, generator))
        return out


def _choose(logits: Any, temperature: float, top_k: int | None, generator: Generator) -> int:
    """An index drawn from softmax(logits / temperature)."""
    xp = array_module(logits)
    if bool(xp.isnan(logits).any()):
        raise ValueError("generate: the model's logits are NaN; its weights are broken (a training that diverged?)")
    if temperature == 0:
        return int(logits.argmax())
    logits = (logits.astype(xp.float64) - float(logits.max())) / temperature  # at most 0: no overflow
    if top_k is not None and top_k < logits.size:
        logits[xp.argsort(-logits)[top_k:]] = -xp.inf
    p = xp.cumsum(xp.exp(logits))
    return int(
        (p <= float(generator.uniform()) * float(p[-1])).sum()
    )  # the first whose p is above: never one of weight 0


__all__ = ["GPT", "GPTConfig"]
