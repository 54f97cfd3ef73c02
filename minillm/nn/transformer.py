"""The transformer block of a GPT."""

from __future__ import annotations

from typing import Any

from .activation import GELU
from .attention import MultiheadAttention
from .containers import Sequential
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .norm import LayerNorm


class TransformerBlock(Module):
    """Pre-LayerNorm block with self-attention: x (B, T, width) -> the same shape.

        x = x + dropout(attention(norm1(x)))
        x = x + dropout(W2 gelu(W1 norm2(x)))        W1 (4 width, width), W2 (width, 4 width)

    causal: position t sees positions <= t (a decoder's block); False: all of them (an encoder's).
    The norm stands before each branch, so that the sum itself passes from the last block to the first unchanged.
    Sources: Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019 (GPT-2); Xiong et al. 2020, arXiv:2002.04745.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, bias: bool = True, causal: bool = True):
        self.causal = causal
        self.norm1 = LayerNorm(width, bias=bias)
        self.attention = MultiheadAttention(width, heads, dropout, bias)
        self.norm2 = LayerNorm(width, bias=bias)
        self.mlp = Sequential(Linear(width, 4 * width, bias), GELU(), Linear(4 * width, width, bias))
        self.dropout = Dropout(dropout)

    def forward(self, x: Any, need_weights: bool = False) -> Any:
        """x (B, T, width) -> the same shape; need_weights: (x, attention weights (B, H, T, T))."""
        y, weights = self.attention(self.norm1(x), is_causal=self.causal, need_weights=need_weights)
        y, x = self.norm2(self.dropout(y), x)  # both (B, T, width): the norm of the sum, and the sum
        x = x + self.dropout(self.mlp(y))
        return (x, weights) if need_weights else x
