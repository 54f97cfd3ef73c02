"""Attention on the tensor cores of sm_80 and later: launches rungs 2, 2b and 3 of `ladder/`.

bfloat16 and float16, head dims 64 and 128, any lengths, causal, offset, window and grouped heads; neither bias nor
dropout. lse is float32. The ideas are in the .cu files.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import compute_capability, kernel, type_name
from .limits import small

LADDER = Path(__file__).with_name("ladder")
FORWARD_2 = LADDER / "cuda_2_tensor_cores.cu"
BACKWARD_2B = LADDER / "cuda_2b_backward.cu"
FORWARD_3 = LADDER / "cuda_3_tuned.cu"

# The structs of ladder/band.cuh, which kernels get by value.
_SIZES = np.dtype([(name, np.int32) for name in ("B", "H", "HKV", "T", "S")])
_BAND = np.dtype([("low", np.int32), ("high", np.int32)])

_LITTLE_SHARED = ((8, 6), (8, 9), (12, 0), (12, 1))  # 99 KB for a block; others have 163 KB and more
_KV_IN_L2 = 24 << 20  # bytes of keys and values that rung 3 works on at once: they fit into an L2 cache of 32 MB


def _small(head_dim: int) -> dict[str, int]:
    """Rung 2b in less than 99 KB of shared memory: halves of everything, where D = 128 needs 145 KB."""
    return {"WARPS": 4, "QUERIES": 32} if head_dim == 128 else {}


def _shared_2b(head_dim: int, warps: int = 8, queries: int = 64) -> int:
    keys = 16 * warps
    return (2 * keys + 4 * queries) * head_dim * 2 + keys * queries * 2 + 16 * queries


VARIANTS = [  # file, macros, lowest target, dynamic shared memory
    *((FORWARD_2, {"TYPE": t, "HEAD_DIM": d}, "sm_80", 384 * d) for t, d in (("bf16", 64), ("f16", 128))),
    *((FORWARD_3, {"TYPE": t, "HEAD_DIM": d}, "sm_80", 512 * d) for d in (128, 64) for t in ("bf16", "f16")),
    (BACKWARD_2B, {"TYPE": "bf16", "HEAD_DIM": 64}, "sm_80", _shared_2b(64)),
    (BACKWARD_2B, {"TYPE": "f16", "HEAD_DIM": 128, **_small(128)}, "sm_80", _shared_2b(128, 4, 32)),
    (BACKWARD_2B, {"TYPE": "f16", "HEAD_DIM": 64, "DETERMINISTIC": 1}, "sm_80", _shared_2b(64)),
    (BACKWARD_2B, {"TYPE": "bf16", "HEAD_DIM": 128}, "sm_90a", _shared_2b(128)),  # too large for some
    (BACKWARD_2B, {"TYPE": "f16", "HEAD_DIM": 128, "DETERMINISTIC": 1}, "sm_90a", _shared_2b(128)),
]


def refuses(q: Any, k: Any, bias: Any, scale: float, dropout: Any = None) -> str | None:
    """Why these kernels cannot do it; None where they can."""
    if q.dtype.name not in ("bfloat16", "float16"):
        return f"tensor cores multiply bfloat16 and float16, not {q.dtype}"
    if q.shape[3] not in (64, 128):
        return f"head dims 64 and 128 are there, not {q.shape[3]}"
    if bias is not None or dropout is not None:
        return "there is neither bias nor dropout"
    if not 0 < scale < math.inf:  # the largest score would not be that of the largest product
        return f"scale must be positive and finite, not {scale}"
    if q.shape[2] + k.shape[2] >= 2**30:
        return "the sequences are longer than 2^30"
    if compute_capability(q) < (8, 0):
        return "it needs a GPU of compute capability 8.0 or later (A100, RTX 30 series)"
    return None


def forward_2(q: Any, k: Any, v: Any, band: np.ndarray, scale: float) -> tuple[Any, Any]:
    """(out, lse) with rung 2."""
    q, k, v = map(ready, (q, k, v))
    out, lse = _results(q)
    B, H, T, D = q.shape
    arguments = (q, k, v, sizes(q, k), band, np.float32(scale), out, lse)
    _kernel(FORWARD_2, "attention_forward", q)((blocks(B * H, T, 64),), (128,), arguments, shared_mem=384 * D)
    return out, lse


def forward_3(q: Any, k: Any, v: Any, band: np.ndarray, scale: float) -> tuple[Any, Any]:
    """(out, lse) with rung 3."""
    q, k, v = map(ready, (q, k, v))
    out, lse = _results(q)
    B, H, T, D = q.shape
    heads = max(1, _KV_IN_L2 // (4 * D * k.shape[2])) * (H // k.shape[1])
    arguments = (q, k, v, sizes(q, k), band, np.float32(scale), np.int32(min(heads, B * H)), out, lse)
    run = _kernel(FORWARD_3, "attention_forward", q)
    run((blocks(B * H, T, 128),), (128 if D == 64 else 256,), arguments, shared_mem=512 * D)
    return out, lse


def backward_2b(
    dout: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, band: np.ndarray, scale: float, deterministic: bool = False
) -> tuple[Any, Any, Any]:
    """(dq, dk, dv) with rung 2b. Unless `deterministic`, the last bits of dq may change from run to run."""
    xp = array_module(q)
    dout, q, k, v, out = map(ready, (dout, q, k, v, out))
    lse = xp.ascontiguousarray(lse)
    dq, dk, dv, delta = xp.empty_like(q), xp.empty_like(k), xp.empty_like(v), xp.empty_like(lse)
    B, H, T, D = q.shape
    macros = _small(D) if compute_capability(q) in _LITTLE_SHARED else {}
    warps, queries = macros.get("WARPS", 8), macros.get("QUERIES", 64)
    macros = {**macros, "DETERMINISTIC": int(deterministic)}
    n = sizes(q, k)

    rows = np.int32(B * H * T) if blocks(B * H, T, 1) else np.int32(0)
    run = _kernel(BACKWARD_2B, "attention_delta", q, **macros)
    run((-(-int(rows) * D // 2048),), (256,), (dout, out, delta, rows))
    inputs = (dout, q, k, v, lse, delta, n, band, np.float32(scale))
    dq_sum = None if deterministic else xp.zeros(q.shape, np.float32)
    run = _kernel(BACKWARD_2B, "attention_backward_kv", q, **macros)
    grid, shared = blocks(B * k.shape[1], k.shape[2], 16 * warps), _shared_2b(D, warps, queries)
    run((grid,), (32 * warps,), (*inputs, dq_sum, dk, dv), shared_mem=shared)
    if deterministic:
        run = _kernel(BACKWARD_2B, "attention_backward_q", q, **macros)
        run((blocks(B * H, T, 64),), (128,), (*inputs, dq), shared_mem=768 * D)
    else:
        run = _kernel(BACKWARD_2B, "attention_round_dq", q, **macros)
        run((-(-dq.size // 2048),), (256,), (dq_sum, dq, np.uint64(dq.size // 8)))
    return dq, dk, dv


def _kernel(source: Path, name: str, q: Any, **macros: int) -> Any:
    return kernel(source, name, q, TYPE=type_name(q.dtype), HEAD_DIM=q.shape[3], **macros)


def _results(q: Any) -> tuple[Any, Any]:
    xp = array_module(q)
    return xp.empty_like(q), xp.empty(q.shape[:3], np.float32)


# What rung 1 uses too ----------------------------------------------------------------------------------------------


def ready(x: Any) -> Any:
    """x, or a copy of it that is contiguous and lies at a multiple of 16 bytes, as 16-byte accesses ask for."""
    xp = array_module(x)
    x = xp.ascontiguousarray(x)
    address = x.ctypes.data if xp is np else x.data.ptr
    return x if address % 16 == 0 else _aligned_copy(x)


def _aligned_copy(x: Any) -> Any:
    xp = array_module(x)
    room = xp.empty(x.nbytes + 16, np.uint8)
    skip = -(room.ctypes.data if xp is np else room.data.ptr) % 16
    copy = room[skip : skip + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def sizes(q: Any, k: Any) -> np.ndarray:
    """struct Sizes."""
    (B, H, T, _), (heads_kv, S) = q.shape, k.shape[1:3]
    return np.array([(B, H, heads_kv, T, S)], _SIZES)


def band_of(q: Any, k: Any, causal: bool, offset: int, window: int | None) -> np.ndarray:
    """struct Band: query i sees the keys i + low .. i + high."""
    T, S = q.shape[2], k.shape[2]
    offset, window = small(T, S, offset, window)
    return np.array([(-T if window is None else offset - window + 1, offset if causal else S)], _BAND)


def blocks(heads: int, length: int, rows: int) -> int:
    """How many blocks of `rows` rows there are; a launch takes 2^31."""
    n = heads * -(-length // rows)
    if n >= 2**31:
        raise ValueError(f"attention: {heads} heads of {length} rows are too many for one launch; split the batch")
    return n
