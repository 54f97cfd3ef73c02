"""Scaled dot-product attention, forward: full and causal, (B, H, T, D).

The float64 reference holds a T x T matrix per head, so on long sequences it computes some heads only, drawn by chance,
the last one always among them; every implementation is compared on those. NumPy and JAX, which hold all the scores in
memory, are left out beyond T = 1024. Causal products count the pairs that are seen.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import kernels
from kernels import simd

from ..case import Case, Options, plain
from ..rivals import jax_family, numpy, torch_family

TITLE = "attention forward, full and causal"
SHAPE = ("B", "H", "T", "D")
SHAPES = [(12, 4, 64, 32), (8, 6, 256, 64), (4, 8, 1024, 64), (1, 8, 4096, 64), (1, 8, 4096, 128), (1, 2, 4096, 64)]
QUICK = [(12, 4, 64, 32), (4, 8, 1024, 64)]
SCORES = 1 << 26  # the most that the reference computes


def cases(options: Options) -> Iterator[Case]:
    for B, H, T, D in options.pick(SHAPES, QUICK):
        q, k, v = options.normal(3, B, H, T, D)
        for causal in (False, True):
            case = Case(
                "attention", f"forward ({B},{H},{T},{D}) {'causal' if causal else 'full'}", (q, k, v),
                "attention_forward", {"causal": causal}, flops=4 * B * H * D * pairs(T, causal), bytes=4 * q.nbytes,
            )  # fmt: skip
            picks = heads(B * H, T)
            case.reference = on_heads(picks, kernels.attention_forward, causal=causal, impl="reference")
            case.select = lambda outputs, picks=picks: [by_head(o)[picks] for o in outputs]
            if takes_bf16(kernels.attention_forward):
                case.ours["minillm.bf16"] = plain(kernels.attention_forward, causal=causal, bf16=True)
            case.rivals = torch_family(torch_attention(causal), bf16=True)
            if T <= 1024:
                case.rivals |= jax_family(jax_attention(causal)) | numpy(numpy_attention(causal))
            yield case


def takes_bf16(function: Callable[..., Any]) -> bool:
    """The argument is there, and so are the instructions."""
    return simd.HAS_BF16 and "bf16" in inspect.signature(function).parameters


def pairs(T: int, causal: bool) -> float:
    return T * (T + 1) / 2 if causal else T * T


def heads(count: int, T: int) -> np.ndarray:
    """Which of `count` heads the reference computes."""
    most = max(1, min(count, SCORES // (T * T)))
    rest = np.random.default_rng().permutation(count - 1)[: most - 1]
    return np.sort(np.append(rest, count - 1))


def by_head(x: np.ndarray) -> np.ndarray:
    """(B, H, ...) -> (B * H, 1, ...)"""
    return x.reshape(-1, 1, *x.shape[2:])


def on_heads(picks: np.ndarray, function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """The function on one head at a time, of those picked: outputs (picks, 1, ...)."""

    def reference(*inputs: np.ndarray) -> list[np.ndarray]:
        parts = [function(*[by_head(x)[p : p + 1] for x in inputs], **settings) for p in picks]
        return [np.concatenate(p) for p in zip(*parts)]

    return reference


def torch_attention(causal: bool) -> Callable[..., Any]:
    return lambda torch, q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)


def jax_attention(causal: bool) -> Callable[..., Any]:
    def attention(jax, q, k, v):
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
        if causal:
            T = q.shape[-2]
            scores = jax.numpy.where(jax.numpy.tri(T, dtype=bool), scores, -jax.numpy.inf)
        return jax.nn.softmax(scores, -1) @ v

    return attention


def numpy_attention(causal: bool) -> Callable[..., Any]:
    def attention(q, k, v):
        scores = (q * np.float32(1 / math.sqrt(q.shape[-1]))) @ k.swapaxes(-1, -2)
        if causal:
            scores[..., ~np.tri(q.shape[-2], dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights @ v / weights.sum(-1, keepdims=True)

    return attention
