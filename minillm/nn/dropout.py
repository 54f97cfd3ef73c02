"""Dropout."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .module import Module


class Dropout(Module):
    """In training, each element becomes 0 with probability p and x / (1 - p) otherwise; in evaluation y = x.

    Source: Srivastava et al. 2014, Dropout, JMLR 15.
    """

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is a probability, 0 <= p <= 1; got {p}")
        self.p = p

    def forward(self, x: Any) -> Any:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
