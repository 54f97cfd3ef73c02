"""The reparameterized sample and its KL divergence on a GPU: loads and launches reparameterize.cu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.elements import THREADS, WIDTH, contiguous, grid, whole

SOURCE = Path(__file__).with_name("reparameterize.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]


def reparameterize_forward(mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
    xp = array_module(mean)
    z, kl = xp.empty(mean.shape, mean.dtype), xp.zeros(mean.shape[0], mean.dtype)
    _launch("reparameterize_forward", (*contiguous(mean, logvar, noise), z, kl), z)
    return z, kl


def reparameterize_backward(dz: Any | None, dkl: Any | None, mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
    xp = array_module(mean)
    dmean, dlogvar = xp.empty(mean.shape, mean.dtype), xp.empty(mean.shape, mean.dtype)
    dz, dkl = (None if x is None else contiguous(x)[0] for x in (dz, dkl))
    _launch("reparameterize_backward", (dz, dkl, *contiguous(mean, logvar, noise), dmean, dlogvar), dmean)
    return dmean, dlogvar


def _launch(name: str, arrays: tuple[Any, ...], like: Any) -> None:
    """One warp for each of the B rows."""
    B, L = like.shape
    if like.size:
        rows = [x for x in arrays if x is not None and x.ndim == 2]
        wide = whole(*rows) if L * like.itemsize % WIDTH == 0 else np.int32(0)
        run = kernel(SOURCE, name, like, TYPE=type_name(like.dtype))
        run(grid(B, THREADS // 32), (THREADS,), (*arrays, np.uint64(B), np.uint64(L), wide))
