"""Dropout, the specification: NumPy or CuPy, in float64, rounded once.

    kept = uniform >= p              uniform and p in float32
    out  = x / (1 - p) where kept, else 0                dx = dout / (1 - p) where kept, else 0
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module
from ..random.reference import philox_uniform


def dropout_forward(x: Any, p: float, seed: int, position: int) -> Any:
    xp = array_module(x)
    kept = philox_uniform(x.shape, seed, position, xp.dtype(xp.float32), xp) >= xp.float32(p)
    scaled = x.astype(xp.float64) / (1 - p if p < 1 else 1)
    return xp.asarray(xp.where(kept, scaled, 0.0), dtype=x.dtype)


def dropout_backward(dout: Any, p: float, seed: int, position: int) -> Any:
    return dropout_forward(dout, p, seed, position)
