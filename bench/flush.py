"""Cold caches: stream through more memory than they hold, on every core."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.numba_setup import njit, prange

from .machine import caches


@njit(parallel=True)
def _touch(x):
    for row in prange(x.shape[0]):
        x[row] += 1.0


def flusher() -> Callable[[], None]:
    """A function that leaves nothing of what was there before in L1 to L3."""
    size = 2 * max(caches().get("L3", 32 << 20), 16 << 20)
    x = np.zeros((64, size // 64 // 4), np.float32)
    return lambda: _touch(x)
