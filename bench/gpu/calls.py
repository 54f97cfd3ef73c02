"""Every kernel called once, on numbers that a `Side` makes: ours in some dtype, the reference on the same in float64.

    outputs = CALLS["softmax"](Side(lab, "cuda", "bfloat16"), small)

Both sides draw the same numbers in the same order, rounded to the dtype, so that only the computing differs. `small`
are shapes with ragged ends, such as the simulator gets; the others are of a size at which a GPU is busy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kernels

from .lab import Lab

FLOATS = ("float32", "bfloat16", "float16")


class Side:
    """Kernels of one implementation, and the arrays for them."""

    def __init__(self, lab: Lab, impl: str, dtype: str):
        self.lab, self.impl, self.dtype, self.drawn = lab, impl, dtype, 0

    def normal(self, *shape: int, scale: float = 1.0) -> Any:
        self.drawn += 1
        return self._rounded(self.lab.normal(*shape, dtype="float32", scale=scale, seed=self.drawn))

    def uniform(self, *shape: int) -> Any:
        """Between 0 and 1."""
        self.drawn += 1
        x = self.lab.normal(*shape, dtype="float32", seed=self.drawn)
        return self._rounded(1 / (1 + self.lab.xp.exp(x)))

    def _rounded(self, x: Any) -> Any:
        x = x.astype(self.lab.dtype(self.dtype))
        return x.astype(np.float64) if self.impl == "reference" else x

    def integers(self, high: int, *shape: int) -> Any:
        self.drawn += 1
        return self.lab.integers(high, *shape, seed=self.drawn)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(kernels, name)
        return lambda *arguments, **settings: function(*arguments, **settings, impl=self.impl)


Call = Callable[[Side, bool], Any]


def _rows(small: bool) -> tuple[int, int]:
    return (7, 37) if small else (1000, 4096)


def softmax(k: Side, small: bool) -> tuple:
    x, dout = k.normal(*_rows(small), scale=3), k.normal(*_rows(small))
    out = k.softmax_forward(x)
    logs = k.log_softmax_forward(x)
    return out, k.softmax_backward(dout, out), logs, k.log_softmax_backward(dout, logs)


def layernorm(k: Side, small: bool) -> tuple:
    (rows, n), w, b = _rows(small), k.normal(_rows(small)[1]), k.normal(_rows(small)[1])
    x, dout = k.normal(rows, n, scale=2), k.normal(rows, n)
    out, mean, rstd = k.layernorm_forward(x, w, b)
    return out, *k.layernorm_backward(dout, x, w, mean, rstd)


def rmsnorm(k: Side, small: bool) -> tuple:
    (rows, n), w = _rows(small), k.normal(_rows(small)[1])
    x, dout = k.normal(rows, n, scale=2), k.normal(rows, n)
    out, rstd = k.rmsnorm_forward(x, w, 1e-5)
    return out, *k.rmsnorm_backward(dout, x, w, rstd)


def cross_entropy(k: Side, small: bool) -> tuple:
    rows, n = (7, 37) if small else (1000, 50304)
    logits, targets = k.normal(rows, n, scale=3), k.integers(n, rows)
    loss, lse = k.cross_entropy_forward(logits, targets)
    joint = k.cross_entropy_with_grad(logits, targets, 0.5)
    return loss, k.cross_entropy_backward(loss, logits, targets, lse), *joint


def linear_cross_entropy(k: Side, small: bool) -> tuple:
    rows, width, n = (21, 37, 29) if small else (512, 768, 5003)
    x, weight = k.normal(rows, width), k.normal(n, width, scale=0.1)
    return k.linear_cross_entropy(x, weight, k.integers(n, rows), 1.0)


def gelu(k: Side, small: bool) -> tuple:
    x, dout = k.normal(*_rows(small), scale=2), k.normal(*_rows(small))
    both = [(k.gelu_forward(x, how), k.gelu_backward(dout, x, how)) for how in ("none", "tanh")]
    return tuple(a for pair in both for a in pair)


def silu(k: Side, small: bool) -> tuple:
    x, up, dout = k.normal(*_rows(small)), k.normal(*_rows(small)), k.normal(*_rows(small))
    gated = k.swiglu_forward(x, up), *k.swiglu_backward(dout, x, up)
    return k.silu_forward(x), k.silu_backward(dout, x), *gated


def linear(k: Side, small: bool) -> tuple:
    rows, inside, outside = (21, 37, 29) if small else (1000, 768, 3072)
    x, weight, bias = k.normal(rows, inside), k.normal(outside, inside, scale=0.1), k.normal(outside)
    found: list[Any] = []
    for activation in (None, "gelu", "gelu_tanh", "silu", "relu"):
        out, pre = k.linear_forward(x, weight, bias, activation=activation)
        dout = k.normal(rows, outside)
        found += [out, *k.linear_backward(dout, x, weight, pre, out, activation=activation)]
    return tuple(found)


def embedding(k: Side, small: bool) -> tuple:
    count, width, ids = (11, 37, k.integers(11, 2, 3)) if small else (50257, 768, k.integers(50257, 8, 1024))
    weight, dout = k.normal(count, width), k.normal(*ids.shape, width)
    return k.embedding_forward(ids, weight), k.embedding_backward(dout, ids, count)


def rotary(k: Side, small: bool) -> tuple:
    B, H, T, D = (2, 3, 19, 8) if small else (4, 12, 1024, 64)
    x, cos, sin = k.normal(B, H, T, D), k.normal(T, D // 2), k.normal(T, D // 2)
    return k.rotary_forward(x, cos, sin), k.rotary_backward(x, cos, sin)


def dropout(k: Side, small: bool) -> tuple:
    x = k.normal(*_rows(small))
    return k.dropout_forward(x, 0.4, 1, 2), k.dropout_backward(x, 0.4, 1, 2)


def reparameterize(k: Side, small: bool) -> tuple:
    mean, logvar, noise, dz = (k.normal(*_rows(small)) for _ in range(4))
    z, kl = k.reparameterize_forward(mean, logvar, noise)
    return z, kl, *k.reparameterize_backward(dz, kl, mean, logvar, noise)


def bce(k: Side, small: bool) -> tuple:
    logits, targets = k.normal(*_rows(small), scale=3), k.uniform(*_rows(small))
    loss = k.bce_forward(logits, targets, rows=True)
    return loss, k.bce_backward(loss, logits, targets)


def adamw(k: Side, small: bool) -> tuple:
    n = 1037 if small else 3_000_001
    p, g, m, v = k.normal(n), k.normal(n), k.normal(n, scale=0.1), k.uniform(n)
    for step in (1, 2):
        k.adamw_flat(p, g, m, v, lr=0.01, step=step, weight_decay=0.1, scale=0.7)
    return p, m, v


def global_norm(k: Side, small: bool) -> tuple:
    norm = k.global_norm(k.normal(1037 if small else 3_000_001))
    return (k.lab.xp.asarray(norm).reshape(1),)


def matmul(k: Side, small: bool) -> tuple:
    m, n, inner = (19, 35, 53) if small else (1000, 1111, 768)
    a, b = k.normal(m, inner), k.normal(inner, n)
    batch = k.normal(3, 2, m, inner), k.normal(3, 2, inner, n)
    return k.matmul(a, b), k.matmul(b.T, a.T), k.matmul(*batch)


def attention(head_dim: int, **settings: Any) -> Call:
    def call(k: Side, small: bool) -> tuple:
        B, H, kv, T, S = (1, 2, 1, 70, 93) if small else (2, 8, 4, 1000, 1000)
        q, dout = k.normal(B, H, T, head_dim), k.normal(B, H, T, head_dim)
        keys, values = k.normal(B, kv, S, head_dim), k.normal(B, kv, S, head_dim)
        offset = {"offset": S - T} if settings.get("causal") else {}
        out, lse = k.attention_forward(q, keys, values, **settings, **offset)
        return out, lse, *k.attention_backward(dout, q, keys, values, out, lse, **settings, **offset)

    return call


CALLS: dict[str, Call] = {
    "softmax": softmax, "layernorm": layernorm, "rmsnorm": rmsnorm, "cross_entropy": cross_entropy,
    "linear_cross_entropy": linear_cross_entropy, "gelu": gelu, "silu": silu, "linear": linear,
    "embedding": embedding, "rotary": rotary, "dropout": dropout, "reparameterize": reparameterize,
    "binary_cross_entropy": bce, "adamw": adamw, "global_norm": global_norm, "matmul": matmul,
    "attention, head dim 64": attention(64), "attention, head dim 64, causal": attention(64, causal=True),
    "attention, head dim 128": attention(128), "attention, head dim 128, causal": attention(128, causal=True),
    "attention, head dim 64, window": attention(64, causal=True, window=33),
    "attention, head dim 40, causal": attention(40, causal=True),
}  # fmt: skip
