"""Kernels: pure functions on arrays, forward and backward as pairs, with a plain reference and fast implementations.

    >>> import numpy as np
    >>> from kernels import layernorm_forward, use
    >>> x = np.array([[1.0, 2.0, 3.0]], np.float32)
    >>> out, mean, rstd = layernorm_forward(x, None, None)     # Numba for NumPy arrays, CUDA C for CuPy arrays
    >>> with use("reference"):                                 # the specification instead
    ...     same, _, _ = layernorm_forward(x, None, None)
    >>> bool(abs(out - same).max() < 1e-6)
    True

`available()` lists what this machine can run. README.md says how to read a kernel's folder and how to add one.
"""

from __future__ import annotations

from .adamw import adamw_flat, adamw_step, clip_factor
from .ahead import prepare
from .attention import attention_backward, attention_forward
from .binary_cross_entropy import bce_backward, bce_forward
from .cross_entropy import cross_entropy_backward, cross_entropy_forward, cross_entropy_with_grad
from .dispatch import available, set_default, use
from .dropout import dropout_backward, dropout_forward
from .embedding import embedding_backward, embedding_forward
from .gelu import gelu_backward, gelu_forward
from .gelu.erf import erf, erfc
from .global_norm import global_norm, sum_of_squares
from .layernorm import layernorm_backward, layernorm_forward
from .linear import linear_backward, linear_forward
from .linear_cross_entropy import linear_cross_entropy
from .matmul import has_bf16, matmul, matmul_bf16
from .random import philox_bits, philox_normal, philox_uniform
from .reparameterize import reparameterize_backward, reparameterize_forward
from .rmsnorm import rmsnorm_backward, rmsnorm_forward
from .rotary import rotary_backward, rotary_forward
from .silu import silu_backward, silu_forward, swiglu_backward, swiglu_forward
from .softmax import log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward

PACKAGE = "minillm-kernels"  # an unrelated package is also called `kernels`: this tells the two apart

__all__ = [
    "PACKAGE",
    "adamw_flat",
    "adamw_step",
    "attention_backward",
    "attention_forward",
    "available",
    "bce_backward",
    "bce_forward",
    "clip_factor",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "cross_entropy_with_grad",
    "dropout_backward",
    "dropout_forward",
    "embedding_backward",
    "embedding_forward",
    "erf",
    "erfc",
    "gelu_backward",
    "gelu_forward",
    "global_norm",
    "has_bf16",
    "layernorm_backward",
    "layernorm_forward",
    "linear_backward",
    "linear_cross_entropy",
    "linear_forward",
    "log_softmax_backward",
    "log_softmax_forward",
    "matmul",
    "matmul_bf16",
    "philox_bits",
    "philox_normal",
    "philox_uniform",
    "prepare",
    "reparameterize_backward",
    "reparameterize_forward",
    "rmsnorm_backward",
    "rmsnorm_forward",
    "rotary_backward",
    "rotary_forward",
    "set_default",
    "silu_backward",
    "silu_forward",
    "softmax_backward",
    "softmax_forward",
    "sum_of_squares",
    "swiglu_backward",
    "swiglu_forward",
    "use",
]
