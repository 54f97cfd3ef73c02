"""AdamW on a GPU: loads and launches adamw.cu, once for a whole flat buffer, segments of weight decay included.

The scalars of a step (learning rate, bias corrections, clipping) are arguments of the launch: nothing is copied to the
GPU but the segments, once.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.elements import THREADS, contiguous, grid, packs, whole
from .segments import Cover

SOURCE = Path(__file__).with_name("adamw.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]

PACKS = 4  # that a thread takes of a block's chunk, as in adamw.cu
_FACTORS = np.dtype([(name, np.float32) for name in (
    "scale", "beta1", "rest1", "beta2", "rest2", "rate", "inverse_root", "eps", "lr", "decay")])  # fmt: skip


def adamw_step(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float, step: int, grad_scale: float, decoupled: bool,
) -> None:  # fmt: skip
    adamw_flat(
        param, grad, exp_avg, exp_avg_sq, lr, beta1, beta2, eps, weight_decay, step, grad_scale, decoupled
    )  # fmt: skip


def adamw_flat(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, lr: float, beta1: float, beta2: float, eps: float,
    weight_decay: float | Cover, step: int, scale: float, decoupled: bool,
) -> None:  # fmt: skip
    if param.size == 0:
        return
    arrays = (param, *contiguous(grad), exp_avg, exp_avg_sq)
    bounds, decays, segments, decay = None, None, 0, weight_decay
    if isinstance(weight_decay, Cover):
        bounds, decays = _segments(weight_decay, param)
        segments, decay = len(weight_decay.values), 0.0
    rate, inverse_root = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    factors = np.array([(scale, beta1, 1 - beta1, beta2, 1 - beta2, rate, inverse_root, eps, lr, decay)], _FACTORS)
    kernel(SOURCE, "adamw", param, TYPE=type_name(param.dtype))(
        grid(packs(param.size, param), THREADS * PACKS),
        (THREADS,),
        (*arrays, np.uint64(param.size), whole(*arrays), bounds, decays, np.int32(segments), factors,
         np.int32(decoupled)),
    )  # fmt: skip


def _segments(cover: Cover, like: Any) -> tuple[Any, Any]:
    """bounds (S + 1,) uint64 and decays (S,) float32 where `like` lies; the last ones stay there."""
    xp = array_module(like)
    return _copied(cover.bounds.tobytes(), cover.values.tobytes(), xp, None if xp is np else like.device.id)


@lru_cache(maxsize=64)  # an optimizer gives the same segments at every step, and a captured graph keeps their address
def _copied(bounds: bytes, values: bytes, xp: Any, device: int | None) -> tuple[Any, Any]:
    return (
        xp.asarray(np.frombuffer(bounds, np.int64).astype(np.uint64)),
        xp.asarray(np.frombuffer(values, np.float64).astype(np.float32)),
    )
