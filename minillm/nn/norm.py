"""Normalisation over the last dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from .module import Module
from .parameter import Parameter


class LayerNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, over the last dimensions; var is the biased one.

    x (..., *normalized_shape) -> y of the same shape;  weight, bias (*normalized_shape), at first 1 and 0.
    With a residual of x's shape: (norm(x + residual), x + residual), in one pass.
    Source: Ba, Kiros, Hinton 2016, Layer Normalization, arXiv:1607.06450.
    """

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True):
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.weight = Parameter(np.ones(self.normalized_shape, np.float32)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape, np.float32)) if elementwise_affine and bias else None

    def forward(self, x: Any, residual: Any = None) -> Any:
        if residual is not None:
            return F.add_layer_norm(x, residual, self.normalized_shape, self.weight, self.bias, self.eps)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, bias={self.bias is not None}"


class RMSNorm(Module):
    """y = x / sqrt(mean(x^2) + eps) * weight, the mean over the last dimensions `normalized_shape`.

    x (..., *normalized_shape) -> y of the same shape;  weight (*normalized_shape), at first 1.
    With a residual of x's shape: (norm(x + residual), x + residual), in one pass.
    eps None: the machine epsilon of x's dtype, as in PyTorch.
    Source: Zhang and Sennrich 2019, Root Mean Square Layer Normalization, arXiv:1910.07467.
    """

    def __init__(self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True):
        self.normalized_shape, self.eps = _shape(normalized_shape), eps
        self.weight = Parameter(np.ones(self.normalized_shape, np.float32)) if elementwise_affine else None

    def forward(self, x: Any, residual: Any = None) -> Any:
        if residual is not None:
            return F.add_rms_norm(x, residual, self.normalized_shape, self.weight, self.eps)
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


def _shape(normalized_shape: Any) -> tuple[int, ...]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
