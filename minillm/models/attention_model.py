"""Attention over a sequence: where does the model look before it decides?

    s_i     = encoder(x)_i                         x (B, S, features) -> s (B, S, width)
    e_i     = score(s_{i-1}, s_i)                  s_0 is a learned start state
    alpha_i = exp(e_i) / sum_j exp(e_j)            softmax over the S positions
    context = sum_i alpha_i s_i                    (B, width)
    output  = head(context)                        class logits, or the sequence again

score is additive, v^T tanh(W s_{i-1} + U s_i) (Bahdanau et al. 2015, arXiv:1409.0473), or scaled dot-product,
(W s_{i-1}) . (U s_i) / sqrt(width) (Vaswani et al. 2017, arXiv:1706.03762).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from .. import nn
from ..creation import zeros
from ..nn.modes import evaluation
from ..recording import no_grad
from ..tensor import Tensor
from .common import check_sizes, from_dict


@dataclass(frozen=True)
class AttentionModelConfig:
    features: int = 8  # of one position of the sequence
    length: int = 8  # longest sequence
    classes: int = 10  # 0: reconstruct the sequence instead of classifying it
    width: int = 64  # of the states s_i
    score: str = "additive"  # or "scaled_dot"
    blocks: int = 1  # transformer blocks in the encoder; 0: each position on its own
    heads: int = 4  # of each block
    dropout: float = 0.0


class AttentionOutput(NamedTuple):
    output: Tensor  # (B, classes) logits, or (B, S, features)
    weights: Tensor  # (B, S), alpha: sums to 1 over S


class AttentionModel(nn.Module):
    """AttentionModel(features=8, length=8, classes=10): (B, S, features) -> logits and attention weights."""

    def __init__(self, features: int = 8, length: int = 8, classes: int = 10, **settings: Any):
        super().__init__()
        sizes = {"features": features, "length": length, "classes": classes}
        self.config = c = from_dict(AttentionModelConfig, {**sizes, **settings})
        check_sizes(c, "features", "length", "width", "heads")
        check_sizes(c, "classes", "blocks", least=0)
        if c.blocks and c.width % c.heads:
            raise ValueError(f"AttentionModel: width={c.width} must be a multiple of heads={c.heads}")
        if c.score not in ("additive", "scaled_dot"):
            raise ValueError(f"AttentionModel: score must be 'additive' or 'scaled_dot', got {c.score!r}")
        self.embed = nn.Linear(features, c.width)
        self.position = nn.Embedding(length, c.width)
        self.blocks = nn.ModuleList(
            [nn.TransformerBlock(c.width, c.heads, c.dropout, causal=False) for _ in range(c.blocks)]
        )
        self.norm = nn.LayerNorm(c.width)
        self.start = nn.Parameter(zeros(c.width))  # s_0
        self.previous = nn.Linear(c.width, c.width, bias=False)  # W
        self.current = nn.Linear(c.width, c.width)  # U
        self.v: Any = nn.Linear(c.width, 1, bias=False) if c.score == "additive" else None
        self.head = nn.Sequential(
            nn.Linear(c.width, c.width), nn.GELU(), nn.Linear(c.width, classes if classes else length * features)
        )

    @classmethod
    def from_config(cls, config: AttentionModelConfig | dict) -> AttentionModel:
        config = from_dict(AttentionModelConfig, config)
        return cls(**{f: getattr(config, f) for f in config.__dataclass_fields__})

    def encode(self, x: Tensor) -> Tensor:
        """States: (B, S, features) -> (B, S, width)."""
        if x.ndim != 3 or not 1 <= x.shape[1] <= self.config.length or x.shape[2] != self.config.features:
            raise ValueError(
                f"AttentionModel: expected x of shape (batch, 1 to {self.config.length} positions, "
                f"{self.config.features} features), got {x.shape}"
            )
        positions = self.position.weight[: x.shape[1]]  # (S, width)
        s = self.embed(x) + positions
        for block in self.blocks:
            s = block(s)
        return self.norm(s)

    def scores(self, s: Tensor) -> Tensor:
        """e_i = score(s_{i-1}, s_i): (B, S, width) -> (B, S)."""
        first = self.start.reshape(1, 1, -1).expand(s.shape[0], 1, s.shape[2])
        before = self.previous(F.cat([first, s[:, :-1]], 1))  # W s_{i-1}  (B, S, width)
        now = self.current(s)  # U s_i  (B, S, width)
        if self.config.score == "additive":
            return self.v(F.tanh(before + now)).squeeze(-1)
        return (before * now).sum(-1) * (1 / math.sqrt(s.shape[2]))

    def forward(self, x: Tensor) -> AttentionOutput:
        s = self.encode(x)
        weights = F.softmax(self.scores(s), dim=-1)  # alpha  (B, S)
        context = F.matmul(weights.unsqueeze(1), s).squeeze(1)  # (B, width)
        out = self.head(context)
        if not self.config.classes:
            out = out.reshape(-1, self.config.length, self.config.features)[:, : x.shape[1]]
        return AttentionOutput(out, weights)

    def loss(self, x: Tensor, targets: Any = None) -> Tensor:
        """Cross-entropy against class indices (B,), or squared error of the reconstruction (targets: x itself)."""
        output = self(x).output
        if self.config.classes:
            if targets is None:
                raise ValueError("AttentionModel.loss: a classifier needs targets, the class of each example (B,)")
            return F.cross_entropy(output, targets)
        return F.mse_loss(output, x if targets is None else targets)

    def predict(self, x: Tensor) -> np.ndarray:
        """The likeliest class of each example: (B,) int64, in main memory; without dropout."""
        if not self.config.classes:
            raise ValueError(
                "AttentionModel.predict: this model reconstructs (classes=0); only a classifier predicts classes"
            )
        with evaluation(self), no_grad():
            return self(x).output.argmax(-1).numpy()


__all__ = ["AttentionModel", "AttentionModelConfig", "AttentionOutput"]
