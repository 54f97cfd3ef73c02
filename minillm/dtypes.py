"""Which dtype comes out. Floating literals are float32; mixed operands follow PyTorch's promotion."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.arrays import is_array

float16, float32, float64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
uint8, int32, int64 = np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.int64)
DEFAULT = float32


def is_floating(dtype: Any) -> bool:
    """True for float and complex dtypes: the ones that can have a gradient."""
    return np.dtype(dtype).kind in "fc" or np.dtype(dtype).name == "bfloat16"


def promote(arrays: list) -> list:
    """Operands of several dtypes, cast to one: a float beats any integer, an array with dimensions any 0-d one.

    NumPy alone makes float64 of float32 * int64, and of a float32 array times a 0-d float64 array.
    """
    dtypes = [(is_floating(a.dtype), a.ndim > 0, a.dtype) for a in arrays if is_array(a) and a.dtype != np.bool_]
    if any(floating for floating, _, _ in dtypes):
        dtypes = [d for d in dtypes if d[0]]
    dtypes = [d for d in dtypes if d[1]] or dtypes
    if not dtypes:
        return arrays
    dtype = np.result_type(*[d for _, _, d in dtypes])
    return [a.astype(dtype) if is_array(a) and a.dtype not in (dtype, np.bool_) else a for a in arrays]
