"""RMSNorm on a GPU: loads and launches rmsnorm.cu and rmsnorm_backward.cu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.rows import add_parts, column_cut, cut, flat, rows_of

FORWARD = Path(__file__).with_name("rmsnorm.cu")
BACKWARD = Path(__file__).with_name("rmsnorm_backward.cu")
VARIANTS = [
    (FORWARD, {"TYPE": "float", "TEAM": 1024, "PACKS": 4}, "sm_75"),
    (FORWARD, {"TYPE": "bf16", "TEAM": 256, "PACKS": 4}, "sm_75"),
    (BACKWARD, {"TYPE": "f16", "TEAM": 512, "PACKS": 2, "WARPS": 8}, "sm_75"),
    (BACKWARD, {"TYPE": "bf16", "TEAM": 32, "PACKS": 2, "WARPS": 8}, "sm_75"),
]


def rmsnorm_forward(x: Any, weight: Any | None, eps: float, residual: Any | None) -> tuple[Any, ...]:
    xp, (rows, n) = array_module(x), rows_of(x)
    out, rstd = xp.empty(x.shape, x.dtype), xp.empty(x.shape[:-1], np.float32)
    total = None if residual is None else xp.empty(x.shape, x.dtype)
    if rows:
        how = cut("rmsnorm_forward", n, x.itemsize, 2)
        run = kernel(FORWARD, "rmsnorm_forward", x, TYPE=type_name(x.dtype), **how.macros)
        arrays = flat(x), flat(weight), flat(residual), out, rstd, total
        sizes = np.int64(rows), np.int32(n), np.float32(eps)
        run((how.grid("rmsnorm_forward", rows),), (how.threads,), (*arrays, *sizes))
    return (out, rstd) if residual is None else (out, rstd, total)


def rmsnorm_backward(
    dout: Any, x: Any, weight: Any | None, rstd: Any, dresidual: Any | None, dweight: Any | None
) -> tuple[Any, Any]:
    xp, (rows, n) = array_module(x), rows_of(x)
    dx, how = xp.empty(x.shape, x.dtype), column_cut("rmsnorm_backward", rows, n, x.itemsize)
    part = xp.empty((how.blocks, n), np.float32)  # sums over the rows of each block
    macros = {"TYPE": type_name(x.dtype), **how.macros}
    if rows:
        arrays = *(flat(a) for a in (dout, x, weight, rstd, dresidual)), dx, part
        sizes = np.int64(rows), np.int64(how.rows_of_block), np.int32(n)
        kernel(BACKWARD, "rmsnorm_backward", x, **macros)((how.blocks,), (how.threads,), (*arrays, *sizes))
    add = kernel(BACKWARD, "add_parts", x, **macros)
    return dx, add_parts("rmsnorm_backward", add, part, dweight, n, x.dtype)
