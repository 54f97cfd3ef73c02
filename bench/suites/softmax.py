"""softmax and log_softmax over the last axis, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case, Options
from ..rivals import jax_family, numpy, torch_family

TITLE = "softmax over the last axis, forward and backward, in and out of cache"
SHAPE = ("rows", "columns")
SHAPES = [(768, 128), (1024, 1024), (8192, 2048)]
QUICK = [(768, 128), (8192, 2048)]


def cases(options: Options) -> Iterator[Case]:
    for rows, n in options.pick(SHAPES, QUICK):
        x = options.normal(rows, n, scale=3)
        dout = options.normal(rows, n + 1)[:, :n].copy()
        forward = Case("softmax", f"forward {rows}x{n}", (x,), "softmax_forward", bytes=2 * x.nbytes, flops=5 * x.size)
        forward.rivals = (
            numpy(_numpy)
            | torch_family(lambda torch, x: torch.softmax(x, -1))
            | jax_family(lambda jax, x: jax.nn.softmax(x, -1))
        )
        yield forward
        backward = Case("softmax", f"backward {rows}x{n}", (dout, _numpy(x)), "softmax_backward", backward=True)
        backward.bytes, backward.flops = 3 * x.nbytes, 4 * x.size
        backward.rivals = (
            numpy(lambda d, y: y * (d - (d * y).sum(-1, keepdims=True)))
            | torch_family(lambda torch, d, y: torch._softmax_backward_data(d, y, -1, y.dtype))
            | jax_family(lambda jax, d, y: y * (d - (d * y).sum(-1, keepdims=True)))
        )
        yield backward


def _numpy(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
