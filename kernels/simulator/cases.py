"""A small case of every kernel with a cuda.py, for `python -m kernels.simulator`.

A case is a function of `a`, which makes the array that a kernel gets out of drawn float32 numbers: in float64 for the
reference, in the chosen dtype for the simulator. It returns the arrays to compare. They call what `kernels` exports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kernels as k

Make = Callable[[np.ndarray], np.ndarray]
Case = Callable[[Make], Any]

_RNG = np.random.default_rng(0)
_X, _DX = (_RNG.standard_normal((3, 72)).astype(np.float32) for _ in range(2))
_W, _B = (_RNG.standard_normal(72).astype(np.float32) for _ in range(2))
_TABLE = _RNG.standard_normal((11, 72)).astype(np.float32)
_TARGETS, _IDS = np.array([0, 71, -100]), np.array([[1, 4, 4], [0, 10, 1]])
_HEADS = _RNG.standard_normal((1, 2, 5, 8)).astype(np.float32)
_COS, _SIN = (f(_RNG.standard_normal((5, 4))).astype(np.float32) for f in (np.cos, np.sin))


def _layernorm(a: Make) -> Any:
    out, mean, rstd = k.layernorm_forward(a(_X), a(_W), a(_B))
    return out, *k.layernorm_backward(a(_DX), a(_X), a(_W), mean, rstd)


def _rmsnorm(a: Make) -> Any:
    out, rstd = k.rmsnorm_forward(a(_X), a(_W), 1e-5)
    return out, *k.rmsnorm_backward(a(_DX), a(_X), a(_W), rstd)


def _softmax(a: Make) -> Any:
    out = k.softmax_forward(a(_X))
    return out, k.softmax_backward(a(_DX), out)


def _cross_entropy(a: Make) -> Any:
    loss, lse = k.cross_entropy_forward(a(_X), _TARGETS)
    return loss, lse, k.cross_entropy_backward(a(_W[:3]), a(_X), _TARGETS, lse)


def _linear(a: Make) -> Any:
    out, pre = k.linear_forward(a(_X), a(_TABLE), a(_B[:11]), activation="gelu")
    return out, pre, *k.linear_backward(a(_DX[:, :11]), a(_X), a(_TABLE), pre, out, activation="gelu")


def _adamw(a: Make) -> Any:
    param, m, v = a(_X[0]), a(_X[1] * 0), a(_X[2] * 0)
    k.adamw_flat(param, a(_DX[0]), m, v, lr=0.1, step=1, weight_decay=0.1)
    return param, m, v


CASES: dict[str, Case] = {
    "adamw": _adamw,
    "binary_cross_entropy": lambda a: (
        k.bce_forward(a(_X), a(abs(_DX) % 1)), k.bce_backward(a(_DX), a(_X), a(abs(_DX) % 1))),
    "cross_entropy": _cross_entropy,
    "dropout": lambda a: (k.dropout_forward(a(_X), 0.25, 1, 2), k.dropout_backward(a(_DX), 0.25, 1, 2)),
    "embedding": lambda a: (
        k.embedding_forward(_IDS, a(_TABLE)), k.embedding_backward(a(np.stack([_X, _DX])), _IDS, 11)),
    "gelu": lambda a: (k.gelu_forward(a(_X)), k.gelu_backward(a(_DX), a(_X))),
    "global_norm": lambda a: (np.float32(k.global_norm(a(_X))),),
    "layernorm": _layernorm,
    "linear": _linear,
    "linear_cross_entropy": lambda a: k.linear_cross_entropy(a(_X), a(_TABLE), np.array([0, 10, 3])),
    "random": lambda a: (k.philox_uniform((3, 72), 1, 2, a(_X).dtype), k.philox_normal((3, 72), 1, 2, a(_X).dtype)),
    "reparameterize": lambda a: (
        *k.reparameterize_forward(a(_X), a(_DX), a(_X)),
        *k.reparameterize_backward(a(_X), a(_W[:3]), a(_X), a(_DX), a(_X))),
    "rmsnorm": _rmsnorm,
    "rotary": lambda a: (
        k.rotary_forward(a(_HEADS), a(_COS), a(_SIN)), k.rotary_backward(a(_HEADS), a(_COS), a(_SIN))),
    "silu": lambda a: (k.silu_forward(a(_X)), *k.swiglu_backward(a(_DX), a(_X), a(_DX))),
    "softmax": _softmax,
}  # fmt: skip


def attention(forward: str | None, backward: str | None, head_dim: int, length: int, causal: bool) -> Case:
    """Attention with the given rungs of its ladder; without a backward rung, the forward pass alone."""
    q, key, v, dout = (_RNG.standard_normal((1, 1, length, head_dim)).astype(np.float32) for _ in range(4))

    def case(a: Make) -> Any:
        from ..attention import cuda

        with cuda.use_rungs(forward, backward):
            out, lse = k.attention_forward(a(q), a(key), a(v), causal=causal)
            if backward is None:
                return out, lse
            return out, lse, *k.attention_backward(a(dout), a(q), a(key), a(v), out, lse, causal=causal)

    return case
