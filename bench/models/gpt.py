"""The mean next-token loss of a small GPT: minillm/models/gpt.py once more, in torch and in JAX.

x = token[ids] + position; per layer x += attention(norm(x)), x += mlp(norm(x)); logits = norm(x) @ token^T
"""

from __future__ import annotations

import math
from typing import Any


def loss_torch(p: dict[str, Any], ids: Any, targets: Any, layers: int, heads: int) -> Any:
    """ids, targets (B, T); biases may be left out."""
    import torch.nn.functional as F

    B, T = ids.shape
    x = F.embedding(ids, p["token.weight"]) + p["position.weight"][:T]  # (B, T, width)
    width = x.shape[-1]
    for i in range(layers):
        w = {k.removeprefix(f"blocks.{i}."): v for k, v in p.items() if k.startswith(f"blocks.{i}.")}
        h = F.layer_norm(x, (width,), w["norm1.weight"], w.get("norm1.bias"))
        qkv = F.linear(h, w["attention.in_proj_weight"], w.get("attention.in_proj_bias"))  # (B, T, 3 width)
        q, k, v = (t.view(B, T, heads, -1).transpose(1, 2) for t in qkv.split(width, dim=2))  # (B, heads, T, D)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, width)
        x = x + F.linear(y, w["attention.out_proj.weight"], w.get("attention.out_proj.bias"))
        h = F.layer_norm(x, (width,), w["norm2.weight"], w.get("norm2.bias"))
        h = F.gelu(F.linear(h, w["mlp.0.weight"], w.get("mlp.0.bias")))
        x = x + F.linear(h, w["mlp.2.weight"], w.get("mlp.2.bias"))
    x = F.layer_norm(x, (width,), p["norm.weight"], p.get("norm.bias"))
    logits = F.linear(x, p["token.weight"])  # (B, T, vocabulary)
    return F.cross_entropy(logits.view(B * T, -1), targets.reshape(-1))


def token_torch(p: dict[str, Any], ids: Any, place: int, layers: int, heads: int, cache: Any) -> Any:
    """Logits (1, 1, vocabulary) of the token ids (1, 1) at `place`; cache (layers, 2, 1, heads, T, D) is written to."""
    import torch.nn.functional as F

    x = F.embedding(ids, p["token.weight"]) + p["position.weight"][place]  # (1, 1, width)
    width = x.shape[-1]
    for i in range(layers):
        w = {k: p[f"blocks.{i}.{k}"] for k in _PARTS}
        h = F.layer_norm(x, (width,), w["norm1.weight"], w["norm1.bias"])
        qkv = F.linear(h, w["attention.in_proj_weight"], w["attention.in_proj_bias"])
        q, k, v = (t.view(1, 1, heads, -1).transpose(1, 2) for t in qkv.split(width, dim=2))  # (1, heads, 1, D)
        cache[i, 0, :, :, place], cache[i, 1, :, :, place] = k[:, :, 0], v[:, :, 0]
        keys, values = cache[i, 0, :, :, : place + 1], cache[i, 1, :, :, : place + 1]
        y = F.scaled_dot_product_attention(q, keys, values).transpose(1, 2).reshape(1, 1, width)
        x = x + F.linear(y, w["attention.out_proj.weight"], w["attention.out_proj.bias"])
        h = F.layer_norm(x, (width,), w["norm2.weight"], w["norm2.bias"])
        h = F.gelu(F.linear(h, w["mlp.0.weight"], w["mlp.0.bias"]), approximate="tanh")
        x = x + F.linear(h, w["mlp.2.weight"], w["mlp.2.bias"])
    return F.linear(F.layer_norm(x, (width,), p["norm.weight"], p["norm.bias"]), p["token.weight"])


_PARTS = [f"{part}.{kind}" for part in ("norm1", "norm2", "attention.out_proj", "mlp.0", "mlp.2")
          for kind in ("weight", "bias")] + ["attention.in_proj_weight", "attention.in_proj_bias"]  # fmt: skip


def loss_jax(p: dict[str, Any], ids: Any, targets: Any, layers: int, heads: int) -> Any:
    import jax
    import jax.numpy as jnp

    B, T = ids.shape
    x = p["token.weight"][ids] + p["position.weight"][:T]  # (B, T, width)
    width = x.shape[-1]
    causal = jnp.tri(T, dtype=bool)
    for i in range(layers):
        w = {k.removeprefix(f"blocks.{i}."): v for k, v in p.items() if k.startswith(f"blocks.{i}.")}
        h = _norm(x, w["norm1.weight"], w["norm1.bias"])
        qkv = h @ w["attention.in_proj_weight"].T + w["attention.in_proj_bias"]  # (B, T, 3 width)
        q, k, v = (t.reshape(B, T, heads, -1).swapaxes(1, 2) for t in jnp.split(qkv, 3, axis=2))  # (B, heads, T, D)
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
        weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)  # (B, heads, T, T)
        y = (weights @ v).swapaxes(1, 2).reshape(B, T, width)
        x = x + y @ w["attention.out_proj.weight"].T + w["attention.out_proj.bias"]
        h = _norm(x, w["norm2.weight"], w["norm2.bias"])
        h = jax.nn.gelu(h @ w["mlp.0.weight"].T + w["mlp.0.bias"], approximate=False)
        x = x + h @ w["mlp.2.weight"].T + w["mlp.2.bias"]
    x = _norm(x, p["norm.weight"], p["norm.bias"])
    logits = (x @ p["token.weight"].T).reshape(B * T, -1)
    chosen = jnp.take_along_axis(logits, targets.reshape(-1, 1), axis=1)[:, 0]
    return (jax.nn.logsumexp(logits, axis=-1) - chosen).mean()


def _norm(x: Any, weight: Any, bias: Any) -> Any:
    import jax

    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * weight + bias


def flops(layers: int, heads: int, width: int, context: int, batch: int, vocabulary: int) -> float:
    """Of forward and backward: 6 per weight of a product and token; attention 4 D per pair seen, and 10 D back."""
    tokens = batch * context
    weights = layers * 12 * width * width + vocabulary * width
    pairs = batch * layers * context * (context + 1) / 2
    return 6.0 * tokens * weights + 14.0 * width * pairs
