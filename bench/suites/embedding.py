"""Rows of a table by index, and the gradient: rows of dout added into the table's, the same index many times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case, Options
from ..rivals import jax_family, numpy, torch_family

TITLE = "gather, and scatter-add for the gradient"
SHAPE = ("tokens", "vocabulary", "width")
SHAPES = [(768, 65, 128), (4096, 65, 384), (16384, 8192, 512)]
QUICK = [(768, 65, 128), (16384, 8192, 512)]


def cases(options: Options) -> Iterator[Case]:
    for tokens, vocabulary, width in options.pick(SHAPES, QUICK):
        size = f"{tokens} of {vocabulary}x{width}"
        indices = options.integers(vocabulary, tokens)
        weight, dout = options.normal(vocabulary, width), options.normal(tokens, width)
        used = min(vocabulary, tokens) * width * 4
        yield Case(
            "embedding", f"forward {size}", (indices, weight), "embedding_forward", bytes=dout.nbytes + used,
            rivals=numpy(lambda i, w: w[i]) | torch_family(lambda torch, i, w: torch.nn.functional.embedding(i, w))
            | jax_family(lambda jax, i, w: w[i]),
        )  # fmt: skip
        yield Case(
            "embedding", f"backward {size}", (dout, indices, vocabulary), "embedding_backward", backward=True,
            bytes=dout.nbytes + weight.nbytes, flops=dout.size,
            rivals=numpy(_add_at) | torch_family(_torch_backward)
            | jax_family(lambda jax, d, i, n: jax.numpy.zeros((n, d.shape[1]), d.dtype).at[i].add(d), static=(2,)),
        )  # fmt: skip


def _add_at(dout, indices, count):
    out = np.zeros((count, dout.shape[1]), dout.dtype)
    np.add.at(out, indices, dout)
    return out


def _torch_backward(torch, dout, indices, count):
    return torch.ops.aten.embedding_dense_backward(dout, indices, count, -1, False)
