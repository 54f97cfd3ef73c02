"""Every public kernel, called on arrays beside forbidden memory: run by test_guarded.py in a process of its own.

A call is a function of `g`, which makes an array of the values that it is given: an ordinary one, or one that ends or
starts at a page without permissions (minillm.testing.guarded). All calls must give the same bits, whatever lies beside.
"""

from __future__ import annotations

import faulthandler
import sys

import numpy as np

import kernels
from minillm.testing import guarded, guarded_allocations

RNG = np.random.default_rng(0)
F = np.float32


def normal(*shape):
    return RNG.standard_normal(shape).astype(F)


X, DX = normal(7, 37), normal(7, 37)
W, B = normal(37), normal(37)
TARGETS = np.array([0, 36, 5, -100, 1, 2, 35])
IDS = np.array([[1, 4, 4], [0, 10, 1]])
Q, K, V, DO = normal(2, 4, 19, 9), normal(2, 2, 33, 9), normal(2, 2, 33, 9), normal(2, 4, 19, 9)
MASK = RNG.random((19, 33)) > 0.3
A1, A2 = normal(19, 53), normal(53, 35)
LX, LW, LB = normal(21, 37), normal(29, 37), normal(29)
COS, SIN = normal(19, 4), normal(19, 4)


def attention(g, **settings):
    q, k, v = g(Q), g(K), g(V)
    out, lse = kernels.attention_forward(q, k, v, **settings)
    return out, lse, *kernels.attention_backward(g(DO), q, k, v, g(out), g(lse), **settings)


def linear(g, activation=None, **settings):
    x, w = g(LX), g(LW)
    out, pre = kernels.linear_forward(x, w, g(LB), activation=activation, **settings)
    pre = None if pre is None else g(pre)
    grads = kernels.linear_backward(g(out), x, w, pre, g(out), activation=activation, **settings)
    return out, *grads


def norm(g, forward, backward, *parameters, **settings):
    out, *rest = forward(g(X), *map(g, parameters), 1e-5, **settings)
    statistics = [g(s) for s in rest if s.ndim == 1]
    return out, *rest, *backward(g(DX), g(X), g(parameters[0]), *statistics)


def adamw(g, function):
    p, m, v = g(X.reshape(-1)), g(np.zeros(X.size, F)), g(np.zeros(X.size, F))
    function(p, g(DX.reshape(-1)), m, v, lr=0.1, step=1)
    return p, m, v


CALLS = {
    "matmul": lambda g: kernels.matmul(g(A1), g(A2)),
    "matmul, transposed": lambda g: kernels.matmul(g(A2).T, g(A1).T),
    "matmul, accumulate": lambda g: kernels.matmul(g(A1), g(A2), out=g(normal(19, 35) * 0 + 1), accumulate=True),
    "linear_forward linear_backward": linear,
    "linear, gelu": lambda g: linear(g, "gelu"),
    "linear, gelu_tanh": lambda g: linear(g, "gelu_tanh"),
    "linear, silu": lambda g: linear(g, "silu"),
    "linear, relu": lambda g: linear(g, "relu"),
    "attention_forward attention_backward": attention,
    "attention, causal": lambda g: attention(g, causal=True, offset=14),
    "attention, window": lambda g: attention(g, causal=True, offset=14, window=5),
    "attention, mask": lambda g: attention(g, bias=g(MASK)),
    "attention, bias": lambda g: attention(g, bias=g(np.where(MASK, 0.5, -np.inf).astype(F))),
    "attention, dropout": lambda g: attention(g, dropout_p=0.3, seed=3, position=5),
    "attention, decode": lambda g: kernels.attention_forward(g(Q[:, :, :1]), g(K), g(V)),
    "softmax_forward softmax_backward": lambda g: (
        kernels.softmax_forward(g(X)), kernels.softmax_backward(g(DX), g(kernels.softmax_forward(X)))),
    "log_softmax_forward log_softmax_backward": lambda g: (
        kernels.log_softmax_forward(g(X)), kernels.log_softmax_backward(g(DX), g(kernels.log_softmax_forward(X)))),
    "layernorm_forward layernorm_backward": lambda g: norm(
        g, kernels.layernorm_forward, kernels.layernorm_backward, W, B),
    "layernorm, residual": lambda g: norm(
        g, kernels.layernorm_forward, kernels.layernorm_backward, W, B, residual=g(DX)),
    "rmsnorm_forward rmsnorm_backward": lambda g: norm(g, kernels.rmsnorm_forward, kernels.rmsnorm_backward, W),
    "cross_entropy_forward cross_entropy_backward": lambda g: (
        *kernels.cross_entropy_forward(g(X), g(TARGETS)),
        kernels.cross_entropy_backward(g(W[:7]), g(X), g(TARGETS), g(kernels.cross_entropy_forward(X, TARGETS)[1]))),
    "cross_entropy_with_grad": lambda g: kernels.cross_entropy_with_grad(g(X), g(TARGETS), 0.5, label_smoothing=0.1),
    "linear_cross_entropy": lambda g: kernels.linear_cross_entropy(g(LX), g(LW), g(np.arange(21) % 29), 0.5),
    "gelu_forward gelu_backward": lambda g: (kernels.gelu_forward(g(X)), kernels.gelu_backward(g(DX), g(X))),
    "gelu, tanh": lambda g: (kernels.gelu_forward(g(X), "tanh"), kernels.gelu_backward(g(DX), g(X), "tanh")),
    "silu_forward silu_backward": lambda g: (kernels.silu_forward(g(X)), kernels.silu_backward(g(DX), g(X))),
    "swiglu_forward swiglu_backward": lambda g: (
        kernels.swiglu_forward(g(X), g(DX)), *kernels.swiglu_backward(g(DX), g(X), g(DX))),
    "rotary_forward rotary_backward": lambda g: (
        kernels.rotary_forward(g(Q[..., :8].copy()), g(COS), g(SIN)),
        kernels.rotary_backward(g(Q[..., :8].copy()), g(COS), g(SIN))),
    "embedding_forward embedding_backward": lambda g: (
        kernels.embedding_forward(g(IDS), g(normal(11, 37) * 0 + W)),
        kernels.embedding_backward(g(np.stack([X[:3], X[3:6]])), g(IDS), 11)),
    "dropout_forward dropout_backward": lambda g: (
        kernels.dropout_forward(g(X), 0.4, 1, 2), kernels.dropout_backward(g(DX), 0.4, 1, 2)),
    "philox_bits philox_uniform philox_normal": lambda g: (
        kernels.philox_bits(37, 1, 2),
        kernels.philox_uniform((7, 37), 1, 2), kernels.philox_normal((7, 37), 1, 2)),
    "bce_forward bce_backward": lambda g: (
        kernels.bce_forward(g(X), g(abs(W) * 0 + X * 0 + F(0.25))),
        kernels.bce_backward(g(DX[:, 0].copy()), g(X), g(X * 0 + F(0.25)))),
    "reparameterize_forward reparameterize_backward": lambda g: (
        *kernels.reparameterize_forward(g(X), g(DX), g(X)),
        *kernels.reparameterize_backward(g(X), g(W[:7]), g(X), g(DX), g(X))),
    "adamw_step": lambda g: adamw(g, kernels.adamw_step),
    "adamw_flat": lambda g: adamw(g, kernels.adamw_flat),
    "global_norm": lambda g: np.float64(kernels.global_norm(g(X))),
    "sum_of_squares": lambda g: kernels.sum_of_squares([g(X), g(W)]),
}  # fmt: skip
if kernels.has_bf16():
    CALLS |= {
        "matmul_bf16": lambda g: kernels.matmul_bf16(g(A1), g(A2)),
        "matmul_bf16, transposed": lambda g: kernels.matmul_bf16(g(A2).T, g(A1).T),
        "linear, bf16": lambda g: linear(g, "gelu", bf16=True),
        "attention, bf16": lambda g: attention(g, causal=True, bf16=True),
    }


def bits(result):
    """The bytes of all arrays in it."""
    if isinstance(result, (tuple, list)):
        return [b for r in result for b in bits(r)]
    return [] if result is None else [np.asarray(result).tobytes()]


if __name__ == "__main__":
    faulthandler.enable()
    for name, call in CALLS.items():
        state = RNG.bit_generator.state
        plain = bits(call(np.array))
        for before in (False, True):
            print(f"{name}, {'before' if before else 'after'}", flush=True)  # the last line names the culprit
            RNG.bit_generator.state = state
            with guarded_allocations():
                same = bits(call(lambda x, before=before: guarded(x, before)))
            if same != plain:
                sys.exit("other bits than with ordinary arrays")
