"""Softmax cross-entropy on a GPU: loads and launches cross_entropy.cu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module, is_array
from ..gpu import kernel, type_name
from ..gpu.rows import check_writeable, cut, flat

SOURCE = Path(__file__).with_name("cross_entropy.cu")
VARIANTS = [
    (SOURCE, {"TYPE": "float", "TEAM": 1024, "PACKS": 7}, "sm_75"),
    (SOURCE, {"TYPE": "bf16", "TEAM": 1024, "PACKS": 7}, "sm_75"),
    (SOURCE, {"TYPE": "f16", "TEAM": 1024, "PACKS": 2, "CAPPED": 1, "SMOOTHED": 1}, "sm_75"),
]


def cross_entropy_forward(
    logits: Any, targets: Any, ignore_index: int, label_smoothing: float, weight: Any | None
) -> tuple[Any, Any]:
    xp, N = array_module(logits), logits.shape[0]
    loss, lse = xp.empty(N, np.float32), xp.empty(N, np.float32)
    rows(flat(logits), targets, 1.0, ignore_index, label_smoothing, weight, loss, lse, None)
    return loss, lse


def cross_entropy_backward(
    dloss: Any, logits: Any, targets: Any, lse: Any, ignore_index: int, label_smoothing: float, weight: Any | None
) -> Any:
    """lse is not needed: the sum of a row is taken again with it, as float32 holds a large lse with too few digits."""
    dlogits = array_module(logits).empty(logits.shape, logits.dtype)
    rows(flat(logits), targets, dloss, ignore_index, label_smoothing, weight, None, None, dlogits)
    return dlogits


def cross_entropy_with_grad(
    logits: Any,
    targets: Any,
    factor: Any,
    ignore_index: int,
    label_smoothing: float,
    weight: Any | None,
    out: Any | None,
) -> tuple[Any, Any, Any]:
    xp, N = array_module(logits), logits.shape[0]
    loss, lse = xp.empty(N, np.float32), xp.empty(N, np.float32)
    check_writeable("cross_entropy_with_grad", "out", out)
    in_place = out is not None and out.flags.c_contiguous and (out is logits or not xp.may_share_memory(out, logits))
    dlogits = out if in_place else xp.empty(logits.shape, logits.dtype)
    rows(flat(logits), targets, factor, ignore_index, label_smoothing, weight, loss, lse, dlogits)
    if out is None or in_place:
        return loss, lse, dlogits
    out[...] = dlogits
    return loss, lse, out


def rows(
    logits: Any,
    targets: Any,
    factor: Any,
    ignore_index: int,
    smoothing: float,
    weight: Any | None,
    loss: Any | None,
    lse: Any | None,
    dlogits: Any | None,
    softcap: float = 0.0,
    z_loss: float = 0.0,
) -> None:
    """The loss of each row and its gradient, written to arrays that are contiguous or None.

    logits (N * V,), targets (N,) int64, factor a number or (N,), loss and lse (N,) float32 or both None, dlogits (N, V)
    or None; dlogits may be logits. Where softcap > 0, logits are capped first: see linear_cross_entropy.
    """
    xp, N = array_module(logits), targets.shape[0]
    if N == 0:
        return
    V = logits.size // N
    weight_sum = None if weight is None else weight.astype(np.float32).sum(keepdims=True)
    factors = flat(xp.broadcast_to(factor.astype(np.float32), (N,))) if is_array(factor) else None
    variant = {"TYPE": type_name(logits.dtype), "CAPPED": int(softcap > 0), "SMOOTHED": int(smoothing > 0)}
    how = cut("cross_entropy", V, logits.itemsize, 4 if softcap else 2 if smoothing else 1)
    run = kernel(SOURCE, "cross_entropy", logits, **variant, **how.macros)
    arrays = logits, flat(targets), factors, flat(weight), weight_sum, loss, lse, dlogits
    number = np.float32(1.0 if factors is not None else factor)
    settings = np.int64(ignore_index), number, np.float32(smoothing), np.float32(softcap), np.float32(z_loss)
    run((how.grid("cross_entropy", N),), (how.threads,), (*arrays, np.int64(N), np.int32(V), *settings))
