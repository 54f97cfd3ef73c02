"""Binary cross-entropy on a GPU: loads and launches binary_cross_entropy.cu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.elements import WIDTH, contiguous, grid, launch, whole

SOURCE = Path(__file__).with_name("binary_cross_entropy.cu")
VARIANTS = [(SOURCE, {"TYPE": name}, "sm_75") for name in ("float", "bf16", "f16")]

ROW_THREADS = 128  # of the block that sums a row: 784 pixels are one or two packs for each


def bce_forward(logits: Any, targets: Any, rows: bool) -> Any:
    xp, dtype = array_module(logits), logits.dtype
    x, y = contiguous(logits, targets)
    if not rows:
        loss = xp.empty(logits.shape, dtype)
        launch(kernel(SOURCE, "bce_elements", loss, TYPE=type_name(dtype)), (x, y, loss))
        return loss
    loss, N = xp.zeros(logits.shape[:-1], dtype), logits.shape[-1]
    if x.size:
        wide = whole(x, y) if N * dtype.itemsize % WIDTH == 0 else np.int32(0)
        run = kernel(SOURCE, "bce_rows", loss, TYPE=type_name(dtype))
        run(grid(loss.size, 1), (ROW_THREADS,), (x, y, loss, np.uint64(loss.size), np.uint64(N), wide))
    return loss


def bce_backward(dloss: Any, logits: Any, targets: Any) -> Any:
    (x, y, d), dx = contiguous(logits, targets, dloss), array_module(logits).empty(logits.shape, logits.dtype)
    N = 1 if dloss.ndim == logits.ndim else logits.shape[-1]
    run = kernel(SOURCE, "bce_backward", dx, TYPE=type_name(dx.dtype))
    launch(run, (x, y, d, dx), np.uint64(N))
    return dx
