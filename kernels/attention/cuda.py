"""Attention on a GPU: loads attention.cu, once per head dim, and launches it. The ideas are in that file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from .limits import small

SOURCE = Path(__file__).with_name("attention.cu")

# The structs of attention.cu. The kernel gets each by value.
_BIAS = np.dtype([("data", np.uint64), ("strides", np.int64, 4)])
_SIZES = np.dtype([(name, np.int32) for name in ("B", "H", "HKV", "T", "S")])
_MASK = np.dtype([("causal", np.int32), ("offset", np.int64), ("window", np.int64)], align=True)


def defines(head_dim: int) -> dict[str, int]:
    """What attention.cu is compiled with: -DHEAD_DIM=... -DWARPS=... (rows per block, in 48 KB of shared memory)."""
    return {"HEAD_DIM": head_dim, "WARPS": 8 if head_dim <= 128 else 4}


@cache
def _kernel(name: str, head_dim: int) -> Any:
    """The compiled kernel: called with (grid, block, arguments)."""
    return _module(head_dim).get_function(name)


@cache
def _module(head_dim: int) -> Any:
    import cupy

    options = ("--std=c++17", *(f"-D{name}={n}" for name, n in defines(head_dim).items()))
    return cupy.RawModule(code=SOURCE.read_text(), options=options)


def attention_forward(
    q: Any, k: Any, v: Any, bias: Any, *, causal: bool, offset: int, window: int | None, scale: float
) -> tuple[Any, Any]:
    """See `kernels.attention`, which checks the arguments. (out (B, H, T, D), lse (B, H, T))."""
    xp = array_module(q)
    q, k, v = (xp.ascontiguousarray(x) for x in (q, k, v))
    out, lse = xp.empty_like(q), xp.empty(q.shape[:3], q.dtype)
    bias, options = _options(q, k, bias, causal, offset, window, scale)  # bias: kept alive until the launch
    _launch("attention_forward", q, (q, k, v, *options, out, lse))
    return out, lse


def attention_backward(
    dout: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    bias: Any,
    *,
    causal: bool,
    offset: int,
    window: int | None,
    scale: float,
) -> tuple[Any, Any, Any]:
    """See `kernels.attention`. (dq (B, H, T, D), dk (B, H_kv, S, D), dv (B, H_kv, S, D))."""
    xp = array_module(q)
    dout, q, k, v, out, lse = (xp.ascontiguousarray(x) for x in (dout, q, k, v, out, lse))
    dq, dk, dv, delta = xp.empty_like(q), xp.empty_like(k), xp.empty_like(v), xp.empty_like(lse)
    bias, options = _options(q, k, bias, causal, offset, window, scale)
    _launch("attention_backward_q", q, (dout, q, k, v, out, lse, *options, delta, dq))
    _launch("attention_backward_kv", k, (dout, q, k, v, lse, delta, *options, dk, dv))
    return dq, dk, dv


def _launch(name: str, rows: Any, arguments: tuple[Any, ...]) -> None:
    """One warp per row of `rows` (batch, heads, length, D)."""
    batch, heads, length, head_dim = rows.shape
    warps = defines(head_dim)["WARPS"]
    grid = batch * heads * -(-length // warps)
    if grid >= 2**31:
        raise ValueError(f"attention: {batch} x {heads} x {length} rows are too many for one launch; split the batch")
    _kernel(name, head_dim)((grid,), (32 * warps,), arguments)


def _options(
    q: Any, k: Any, bias: Any, causal: bool, offset: int, window: int | None, scale: float
) -> tuple[Any, tuple[Any, ...]]:
    """The float bias (or None), and the kernel arguments Bias, Sizes, Mask, scale."""
    B, H, T, _ = q.shape
    heads_kv, S = k.shape[1:3]
    pointer, strides = 0, (0, 0, 0, 0)
    if bias is not None:
        xp = array_module(q)
        if bias.dtype == bool:
            bias = xp.where(bias, 0, -xp.inf).astype(q.dtype)
        full = xp.broadcast_to(bias, (B, H, T, S))  # a view: stride 0 where the bias repeats
        pointer = bias.ctypes.data if xp is np else bias.data.ptr
        strides = tuple(stride // bias.itemsize for stride in full.strides)
    offset, window = small(T, S, offset, window)
    return bias, (
        np.array([(pointer, strides)], _BIAS),
        np.array([(B, H, heads_kv, T, S)], _SIZES),
        np.array([(causal, offset, window or 0)], _MASK),
        np.float32(scale),
    )
