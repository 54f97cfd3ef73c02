"""Attention of one new query per head against a long cache of keys and values: generating text. Bound by memory."""

from __future__ import annotations

from collections.abc import Iterator

from ..case import Case, Options
from ..rivals import jax_family, numpy, torch_family
from .attention import jax_attention, numpy_attention, torch_attention

TITLE = "attention of one query against a cache"
SHAPE = ("B", "H", "S", "D")
SHAPES = [(1, 8, 1024, 64), (1, 8, 16384, 64), (8, 8, 4096, 128)]
QUICK = [(1, 8, 1024, 64), (8, 8, 4096, 128)]


def cases(options: Options) -> Iterator[Case]:
    for B, H, S, D in options.pick(SHAPES, QUICK):
        q = options.normal(B, H, 1, D)
        k, v = options.normal(2, B, H, S, D)
        yield Case(
            "decode", f"({B},{H},1 of {S},{D})", (q, k, v), "attention_forward", {"causal": True, "offset": S - 1},
            flops=4 * B * H * S * D, bytes=2 * k.nbytes,
            rivals=numpy(numpy_attention(False)) | torch_family(torch_attention(False))
            | jax_family(jax_attention(False)),
        )  # fmt: skip
