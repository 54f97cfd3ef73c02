"""Rotary position embedding on a GPU: loads and launches rotary.cu, on heads where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.elements import THREADS, WIDTH, contiguous, grid, packs, whole

SOURCE = Path(__file__).with_name("rotary.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]

_SIZES = np.dtype([(name, np.uint32) for name in ("B", "H", "T", "half")])
_STRIDES = np.dtype([(name, np.int64) for name in ("b", "h", "t")])


def rotary_forward(x: Any, cos: Any, sin: Any) -> Any:
    return _turned(x, cos, sin, 1.0)


def rotary_backward(dout: Any, cos: Any, sin: Any) -> Any:
    return _turned(dout, cos, sin, -1.0)


def _turned(x: Any, cos: Any, sin: Any, sign: float) -> Any:
    xp, (B, H, T, D) = array_module(x), x.shape
    out = xp.empty(x.shape, x.dtype)
    if x.size == 0:
        return out
    memory, strides = _where_it_lies(x)
    cos, sin = contiguous(cos, sin)
    count = B * H * T * packs(D // 2, x)
    if count >= 2**32:
        raise ValueError(f"rotary: {x.shape} has too many numbers for one launch; split the batch")
    aligned = all(n * x.itemsize % WIDTH == 0 for n in (D // 2, *strides))
    run = kernel(SOURCE, "rotary", x, TYPE=type_name(x.dtype))
    arguments = (memory, cos, sin, out, np.array([(B, H, T, D // 2)], _SIZES), np.array([strides], _STRIDES))
    wide = whole(memory, cos, sin, out) if aligned else np.int32(0)
    run(grid(count), (THREADS,), (*arguments, wide, np.float32(sign)))
    return out


def _where_it_lies(x: Any) -> tuple[Any, tuple[int, ...]]:
    """(the memory from the first to the last element of x as a flat array, strides of B, H and T in elements).

    A copy of x, where its last axis is not contiguous or a stride is negative.
    """
    xp, item = array_module(x), x.itemsize
    if x.strides[3] != item or any(s < 0 or s % item for s in x.strides):
        x = xp.ascontiguousarray(x)
    strides = tuple(s // item for s in x.strides[:3])
    span = x.shape[3] + sum((n - 1) * s for n, s in zip(x.shape, strides))
    return xp.lib.stride_tricks.as_strided(x, (span,), (item,)), strides
