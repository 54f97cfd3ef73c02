"""A small language model: a decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019, GPT-2), plain.

    x      = token[ids] + position[0 .. T-1]                    (B, T, width)
    x      = x + attention(layer_norm(x));  x = x + mlp(layer_norm(x))      once a layer, causal
    logits = layer_norm(x) @ token^T                            (B, T, vocab): the head is the embedding (Press & Wolf 2017)
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
from ..random import Generator, default_generator
from ..recording import no_grad
from ..tensor import Tensor
from .common import from_dict


@dataclass(frozen=True)
class GPTConfig:
    vocab_size: int = 256
    context: int = 64  # longest sequence, in tokens
    layers: int = 4
    heads: int = 4
    width: int = 128  # of the residual stream; a multiple of heads
    dropout: float = 0.0
    bias: bool = True  # in linear layers


class GPT(nn.Module):
    """GPT(vocab_size=256, context=64, layers=4, heads=4, width=128)."""

    def __init__(self, vocab_size: int = 256, **settings: Any):
        super().__init__()
        self.config = c = GPTConfig(vocab_size, **settings)
        if c.width % c.heads:
            raise ValueError(f"GPT: width={c.width} must be a multiple of heads={c.heads}")
        self.token = nn.Embedding(c.vocab_size, c.width)
        self.position = nn.Embedding(c.context, c.width)
        self.dropout = nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList([nn.TransformerBlock(c.width, c.heads, c.dropout, c.bias) for _ in range(c.layers)])
        self.norm = nn.LayerNorm(c.width)
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

    def hidden(self, ids: Any) -> Tensor:
        """The last hidden states: ids (B, T) -> (B, T, width)."""
        ids = as_tensor(ids)
        if ids.ndim != 2 or ids.shape[1] > self.config.context:
            raise ValueError(f"GPT: expected ids of shape (batch, up to {self.config.context} tokens), got {ids.shape}")
        x = self.token(ids) + self.position.weight[: ids.shape[1]]  # (B, T, width)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, ids: Any) -> Tensor:
        """Logits of the next token at every position: ids (B, T) -> (B, T, vocab)."""
        return F.linear(self.hidden(ids), self.token.weight)

    def loss(self, ids: Any, targets: Any) -> Tensor:
        """Next-token cross-entropy in nats a token; targets (B, T), -100 where there is none."""
        logits = self(ids)
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), as_tensor(targets).reshape(-1))

    @no_grad()
    def attention_maps(self, ids: Any) -> np.ndarray:
        """Every head's attention weights on ids (T,): (layers, heads, T, T) in main memory."""
        ids = as_tensor(ids).reshape(1, -1)
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        maps = []
        for block in self.blocks:
            x, weights = block(x, need_weights=True)  # (1, T, width), (1, heads, T, T)
            maps.append(weights.numpy()[0])
        return np.stack(maps)

    @no_grad()
    def generate(
        self, ids: Any, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None, generator: Generator | None = None
    ) -> np.ndarray:
        """ids (T,) followed by max_new_tokens sampled ones, int64 in main memory.

        temperature  divides the logits; 0 takes the likeliest token
        top_k        sample among the k likeliest tokens only
        """
        if temperature < 0:
            raise ValueError(f"generate: temperature must be at least 0, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"generate: top_k must be at least 1, got {top_k}")
        generator = default_generator if generator is None else generator
        out = as_tensor(ids).numpy().astype(np.int64).reshape(-1)
        if not out.size:
            raise ValueError("generate: the prompt is empty; give at least one token")
        was_training = self.training
        self.eval()
        for _ in range(max_new_tokens):
            window = as_tensor(out[None, -self.config.context :]).to(self.token.weight.device)
            logits = F.linear(self.hidden(window)[:, -1], self.token.weight).reshape(-1)  # (vocab,)
            out = np.append(out, _choose(logits.data, temperature, top_k, generator))
        self.train(was_training)
        return out


def _choose(logits: Any, temperature: float, top_k: int | None, generator: Generator) -> int:
    """An index drawn from softmax(logits / temperature)."""
    if temperature == 0:
        return int(logits.argmax())
    xp = array_module(logits)
    logits = logits.astype(xp.float64) / temperature
    if top_k is not None and top_k < logits.size:
        kth = xp.sort(logits)[-top_k]
        logits = xp.where(logits < kth, -xp.inf, logits)
    p = xp.cumsum(xp.exp(logits - logits.max()))
    return min(int((p < float(generator.uniform()) * float(p[-1])).sum()), logits.size - 1)


__all__ = ["GPT", "GPTConfig"]
