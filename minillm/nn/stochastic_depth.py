"""Stochastic depth: while training, whole branches of a residual network are left out at random."""

from __future__ import annotations

from typing import Any

from ..random import default_generator
from .module import Module


class StochasticDepth(Module):
    """y = branch / (1 - p) with probability 1 - p, else 0, drawn once for each sequence: branch (B, ...) -> (B, ...).

    In evaluation, and with p = 0, the branch itself. x + StochasticDepth(p)(branch(x)) trains a network of varying
    depth. Source: Huang et al. 2016, Deep Networks with Stochastic Depth, arXiv:1603.09382.
    """

    def __init__(self, p: float = 0.0):
        if not 0 <= p <= 1:
            raise ValueError(f"StochasticDepth: p is a probability, 0 <= p <= 1; got {p}")
        self.p = p

    def forward(self, branch: Any) -> Any:
        if not self.training or self.p == 0:
            return branch
        keep = default_generator.uniform((branch.shape[0],)) >= self.p  # (B,)
        scale = keep / (1 - self.p) if self.p < 1 else keep * 0.0
        return branch * scale.astype(branch.dtype).reshape(-1, *[1] * (branch.ndim - 1))

    def extra_repr(self) -> str:
        return f"p={self.p}"
