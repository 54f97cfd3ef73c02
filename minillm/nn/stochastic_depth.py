"""Stochastic depth: while training, whole branches of a residual network are left out at random."""

from __future__ import annotations

from typing import Any

from ..device import array_module
from ..ops.arrays import array_of
from ..random import default_generator, uniform_at
from .module import Module


class StochasticDepth(Module):
    """y = branch / (1 - p) with probability 1 - p, else 0, drawn once for each sequence: branch (B, ...) -> (B, ...).

    In evaluation, and with p = 0, the branch itself, which is y's expectation. x + StochasticDepth(p)(branch(x)) trains
    a network of varying depth. Source: Huang et al. 2016, Deep Networks with Stochastic Depth, arXiv:1603.09382 (who
    multiply by 1 - p in evaluation instead of dividing in training).
    """

    def __init__(self, p: float = 0.0):
        if not 0 <= p <= 1:
            raise ValueError(f"StochasticDepth: p is a probability, 0 <= p <= 1; got {p}")
        self.p = p

    def forward(self, branch: Any) -> Any:
        if not self.training or self.p == 0:
            return branch
        if branch.ndim == 0:
            raise ValueError("StochasticDepth: expected a batch (B, ...), one draw for each of B; got a 0-d branch")
        rows = branch.shape[0]
        xp = array_module(array_of(branch))
        keep = uniform_at((rows,), *default_generator.reserve(rows), xp=xp) >= self.p  # (B,)
        scale = keep / (1 - self.p) if self.p < 1 else keep * 0.0
        return branch * scale.astype(branch.dtype).reshape(-1, *[1] * (branch.ndim - 1))

    def extra_repr(self) -> str:
        return f"p={self.p}"
