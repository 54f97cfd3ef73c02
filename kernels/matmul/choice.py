"""Where a product goes: to our kernel or to NumPy's BLAS. The one place that decides it."""

from __future__ import annotations

import numpy as np


def ours(dtype: np.dtype) -> bool:
    """Whether a product of arrays of this dtype runs on our kernel: float32 and float64 always do."""
    return dtype.char in "fd"
