"""The feed-forward half of a transformer block: each token alone, through a wide layer and back."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .activation import GELU, ReLUSquared
from .containers import Sequential
from .linear import Linear
from .module import Module

KINDS = ("gelu", "gelu_tanh", "relu2", "swiglu")


class SwiGLU(Module):
    """y = down(silu(gate(x)) * up(x)).   x (..., width); gate, up (hidden, width); down (width, hidden)

    Source: Shazeer 2020, GLU Variants Improve Transformer, arXiv:2002.05202.
    """

    def __init__(self, width: int, hidden: int, bias: bool = False):
        self.gate, self.up = Linear(width, hidden, bias), Linear(width, hidden, bias)
        self.down = Linear(hidden, width, bias)

    def forward(self, x: Any) -> Any:
        return self.down(F.swiglu(self.gate(x), self.up(x)))


def feed_forward(kind: str, width: int, hidden: int | None = None, bias: bool = True) -> Module:
    """The module of that kind: "gelu", "gelu_tanh" (GPT-2), "relu2" (Primer) or "swiglu" (Llama).

    hidden None: 4 width, for swiglu 8/3 width rounded up to a multiple of 8: as many weights in its three matrices.
    """
    if kind not in KINDS:
        raise ValueError(f"feed_forward: kind {kind!r} is none of {', '.join(KINDS)}")
    if kind == "swiglu":
        return SwiGLU(width, -(-8 * width // 24) * 8 if hidden is None else hidden, bias)
    hidden = 4 * width if hidden is None else hidden
    activation = {"gelu": GELU(), "gelu_tanh": GELU("tanh"), "relu2": ReLUSquared()}[kind]
    return Sequential(Linear(width, hidden, bias), activation, Linear(hidden, width, bias))
