"""Attention on Hopper GPUs (sm_90a): launches rungs 4, 4b, 5 and 6 of `ladder/`.

    if supports(q, k, v, bias, scale=scale):
        out, lse = attention_forward(q, k, v, causal=..., offset=..., window=..., scale=...)

bfloat16 and float16, head dims 64 and 128, any lengths, causal, offset, window and grouped heads; neither bias nor
dropout. lse is float32. What is masked has no part in the results, even where it is NaN. The ideas are in the .cu
files.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import array_module
from ..gpu import compute_capability, kernel, type_name
from ..gpu.launch import simulated
from ..gpu.tensor_map import TensorMap
from .cuda_ampere import LADDER, band_of, blocks, ready, sizes


class Rung(NamedTuple):
    """A kernel of the ladder for Hopper."""

    source: Path
    adds: str
    backward: bool = False


RUNGS = {
    "4": Rung(LADDER / "cuda_4_hopper.cu", "TMA and wgmma: a warpgroup that loads, two or three that compute"),
    "5": Rung(LADDER / "cuda_5_overlap.cu", "softmax behind products, turns, TMA store, a schedule of its own"),
    "6": Rung(LADDER / "cuda_6_exp2.cu", "some exponentials as polynomials, fewer corrections"),
    "4b": Rung(LADDER / "cuda_4b_hopper_backward.cu", "its backward: dK and dV in registers, dQ added by TMA", True),
}
BEST_FORWARD, BEST_BACKWARD = "5", "4b"

_KEYS, _STAGES = 128, 2  # of a tile; tiles in shared memory at a time
_KV_IN_L2 = 32 << 20  # bytes of K and V that rungs 5 and 6 work on at a time; the cache has 50 MB
_PAD = 128  # the backward pass keeps lse and delta in rows of a multiple of so many queries


def _consumers(head_dim: int) -> int:
    """Warpgroups that compute in the forward pass, of 64 queries each."""
    return 3 if head_dim == 64 else 2


def _queries(head_dim: int) -> int:
    """Queries of a tile in the backward pass."""
    return 128 if head_dim == 64 else 64


def _keys(rung: str, head_dim: int, full: bool) -> int:
    """Keys of a tile in the forward pass: what shared memory has room for where no tile is cut by a mask."""
    return 176 if rung in ("5", "6") and head_dim == 128 and full else _KEYS


def _shared_forward(head_dim: int, keys: int = _KEYS) -> int:
    """Bytes: Q, K and V by stage, barriers."""
    return 2 * head_dim * (64 * _consumers(head_dim) + 2 * _STAGES * keys) + 256


def _shared_backward(head_dim: int) -> int:
    """Bytes: K and V; Q and dO, lse and delta by stage; two of dS; dQ of two warpgroups; barriers."""
    queries = _queries(head_dim)
    tiles = 4 * head_dim * (_KEYS + _STAGES * queries) + 4 * _KEYS * queries + 2 * 4 * 64 * 64
    return tiles + 8 * _STAGES * queries + 256


VARIANTS = [
    (r.source, {"TYPE": t, "HEAD_DIM": d}, "sm_90a", (_shared_backward if r.backward else _shared_forward)(d))
    for r in RUNGS.values()
    for t, d in (("bf16", 64), ("f16", 128))  # the two types take the same registers
] + [
    (RUNGS[r].source, {"TYPE": t, "HEAD_DIM": 128, "KEYS": 176}, "sm_90a", _shared_forward(128, 176))
    for r, t in (("5", "bf16"), ("6", "f16"))
]


def supports(q: Any, k: Any, v: Any, bias: Any = None, *, scale: float = 1.0, dropout: Any = None) -> bool:
    """Can these kernels run on such arrays, on the GPU where they are?"""
    return (
        q.dtype.name in ("bfloat16", "float16")
        and q.dtype == k.dtype == v.dtype
        and q.shape[-1] in (64, 128)
        and bias is None
        and dropout is None
        and 0 < scale < math.inf  # the largest score is then that of the largest product
        and q.shape[2] + k.shape[2] < 2**30
        and compute_capability(q) == (9, 0)
    )


def attention_forward(
    q: Any,
    k: Any,
    v: Any,
    *,
    causal: bool = False,
    offset: int = 0,
    window: int | None = None,
    scale: float | None = None,
    rung: str = BEST_FORWARD,
    grid: int | None = None,
) -> tuple[Any, Any]:
    """(out (B, H, T, D) in q's dtype, lse (B, H, T) float32); see `kernels.attention`. The same bits on every run.

    grid: how many blocks rungs 5 and 6 share the work among; None: one for each multiprocessor.
    """
    xp = array_module(q)
    q, k, v = map(ready, (q, k, v))
    B, H, T, D = q.shape
    out, lse = xp.empty_like(q), xp.empty((B, H, T), np.float32)
    rows, keys = 64 * _consumers(D), _keys(rung, D, not causal and window is None)
    arrays, kv_maps = (q, k, v), (_boxes(k, keys), _boxes(v, keys))
    shape = (sizes(q, k), band_of(q, k, causal, offset, window))
    factor = np.float32(D**-0.5 if scale is None else scale)
    tiles = blocks(B * H, T, rows)
    arguments: tuple[Any, ...]
    if rung == "4":
        grid, arguments = tiles, (_boxes(q, rows), *kv_maps, *arrays, *shape, factor, out, lse)
    else:
        section = max(1, _KV_IN_L2 // (4 * k.shape[2] * D)) * (H // k.shape[1])  # heads that K and V in L2 are for
        section = np.int32(min(section, B * H))
        grid = min(tiles, grid or _multiprocessors())
        arguments = (_boxes(q, 64), *kv_maps, _boxes(out, 64), *arrays, *shape, section, factor, lse)
    macros = {"TYPE": type_name(q.dtype), "HEAD_DIM": D} | ({} if keys == _KEYS else {"KEYS": keys})
    run = kernel(RUNGS[rung].source, "attention_forward", q, **macros)
    run((grid,), (128 * (_consumers(D) + 1),), arguments, shared_mem=_shared_forward(D, keys))
    return out, lse


def attention_backward(
    dout: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    *,
    causal: bool = False,
    offset: int = 0,
    window: int | None = None,
    scale: float | None = None,
    rung: str = BEST_BACKWARD,
) -> tuple[Any, Any, Any]:
    """(dq, dk, dv) in q's dtype; lse is float32. The last bits of dq may change from run to run, dk and dv do not."""
    xp = array_module(q)
    dout, q, k, v, out = map(ready, (dout, q, k, v, out))
    lse = ready(lse.astype(np.float32, copy=False))
    (B, H, T, D), (heads_kv, S) = q.shape, k.shape[1:3]
    dq, dk, dv, dq_sum = xp.empty_like(q), xp.empty_like(k), xp.empty_like(v), xp.zeros(q.shape, np.float32)
    padded = -(-T // _PAD) * _PAD
    lse2, delta = (ready(xp.empty((B * H, padded), np.float32)) for _ in range(2))
    n, band = sizes(q, k), band_of(q, k, causal, offset, window)
    factor = np.float32(D**-0.5 if scale is None else scale)

    def run(name: str, grid: int, block: int, arguments: tuple[Any, ...], shared: int = 0) -> None:
        function = kernel(RUNGS[rung].source, name, q, TYPE=type_name(q.dtype), HEAD_DIM=D)
        function((grid,), (block,), arguments, shared_mem=shared)

    run("attention_backward_prepare", blocks(B * H, padded, 8), 256, (dout, out, lse, n, lse2, delta))
    sides = ((q, _queries(D)), (k, _KEYS), (v, _KEYS), (dout, _queries(D)), (dq_sum, 64), (dk, 64), (dv, 64))
    maps = [_boxes(x, rows) for x, rows in sides]
    rest = (q, k, v, dout, n, band, factor, lse2, delta)
    run("attention_backward", blocks(B * heads_kv, S, _KEYS), 384, (*maps, *rest), _shared_backward(D))
    run("attention_backward_finish", blocks(B * H, T, 8), 256, (dq_sum, *rest, dq))
    return dq, dk, dv


def _boxes(x: Any, rows: int) -> TensorMap:
    """x (B, H, length, D) as heads, in boxes of `rows` rows and 128 bytes."""
    return TensorMap(x.reshape(-1, *x.shape[2:]), (1, rows, 128 // x.dtype.itemsize))


def _multiprocessors() -> int:
    if simulated():
        return 3  # few, so that each block has several tiles
    import cupy

    return int(cupy.cuda.Device().attributes["MultiProcessorCount"])
