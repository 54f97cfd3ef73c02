"""LayerNorm on a GPU: loads and launches layernorm.cu and layernorm_backward.cu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.rows import add_parts, column_cut, cut, flat, rows_of

FORWARD = Path(__file__).with_name("layernorm.cu")
BACKWARD = Path(__file__).with_name("layernorm_backward.cu")
VARIANTS = [
    (FORWARD, {"TYPE": "float", "TEAM": 1024, "PACKS": 4}, "sm_75"),
    (FORWARD, {"TYPE": "bf16", "TEAM": 256, "PACKS": 4}, "sm_75"),
    (FORWARD, {"TYPE": "f16", "TEAM": 32, "PACKS": 4}, "sm_75"),
    (BACKWARD, {"TYPE": "bf16", "TEAM": 512, "PACKS": 2, "WARPS": 8}, "sm_75"),
    (BACKWARD, {"TYPE": "bf16", "TEAM": 32, "PACKS": 2, "WARPS": 8}, "sm_75"),
]


def layernorm_forward(
    x: Any, weight: Any | None, bias: Any | None, eps: float, residual: Any | None
) -> tuple[Any, ...]:
    xp, (rows, n) = array_module(x), rows_of(x)
    out, mean, rstd = xp.empty(x.shape, x.dtype), *(xp.empty(x.shape[:-1], np.float32) for _ in range(2))
    total = None if residual is None else xp.empty(x.shape, x.dtype)
    if rows:
        how = cut("layernorm_forward", n, x.itemsize, 2)
        run = kernel(FORWARD, "layernorm_forward", x, TYPE=type_name(x.dtype), **how.macros)
        arrays = *(flat(a) for a in (x, weight, bias, residual)), out, mean, rstd, total
        sizes = np.int64(rows), np.int32(n), np.float32(eps)
        run((how.grid("layernorm_forward", rows),), (how.threads,), (*arrays, *sizes))
    return (out, mean, rstd) if residual is None else (out, mean, rstd, total)


def layernorm_backward(
    dout: Any,
    x: Any,
    weight: Any | None,
    mean: Any,
    rstd: Any,
    dresidual: Any | None,
    dweight: Any | None,
    dbias: Any | None,
) -> tuple[Any, Any, Any]:
    xp, (rows, n) = array_module(x), rows_of(x)
    dx, how = xp.empty(x.shape, x.dtype), column_cut("layernorm_backward", rows, n, x.itemsize)
    part = xp.empty((2, how.blocks, n), np.float32)  # sums over the rows of each block
    macros = {"TYPE": type_name(x.dtype), **how.macros}
    if rows:
        arrays = *(flat(a) for a in (dout, x, weight, mean, rstd, dresidual)), dx, part
        sizes = np.int64(rows), np.int64(how.rows_of_block), np.int32(n)
        kernel(BACKWARD, "layernorm_backward", x, **macros)((how.blocks,), (how.threads,), (*arrays, *sizes))
    add = kernel(BACKWARD, "add_parts", x, **macros)
    sums = (add_parts("layernorm_backward", add, p, given, n, x.dtype) for p, given in zip(part, (dweight, dbias)))
    return dx, *sums
