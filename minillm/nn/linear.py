"""Linear and bilinear maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional as F
from . import init
from .module import Module
from .parameter import Parameter


class Linear(Module):
    """y = x W^T + b.

    x (..., in_features) -> y (..., out_features);  weight (out_features, in_features), bias (out_features,)
    Initial values, as PyTorch's: weight and bias from U(-1/sqrt(in_features), 1/sqrt(in_features)).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = uniform_parameter((out_features, in_features), bound)
        self.bias = uniform_parameter((out_features,), bound) if bias else None

    def forward(self, x: Any, activation: str | None = None) -> Any:
        """activation: of F.linear, "relu", "relu2", "gelu", "gelu_tanh" or "silu", applied in the same op."""
        return F.linear(x, self.weight, self.bias, activation)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """y_k = x1^T W_k x2 + b_k.

    x1 (..., in1_features), x2 (..., in2_features) -> y (..., out_features);  weight (out, in1, in2), bias (out,)
    Initial values, as PyTorch's: U(-1/sqrt(in1_features), 1/sqrt(in1_features)).
    """

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True):
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        bound = 1 / math.sqrt(in1_features)
        self.weight = uniform_parameter((out_features, in1_features, in2_features), bound)
        self.bias = uniform_parameter((out_features,), bound) if bias else None

    def forward(self, x1: Any, x2: Any) -> Any:
        return F.bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self) -> str:
        sizes = f"in1_features={self.in1_features}, in2_features={self.in2_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}"


def uniform_parameter(shape: tuple[int, ...], bound: float) -> Parameter:
    """A float32 Parameter drawn from U(-bound, bound)."""
    p = Parameter(np.empty(shape, np.float32))
    init.uniform_(p, -bound, bound)
    return p
