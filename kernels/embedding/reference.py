"""Embedding, the specification: NumPy or CuPy; the backward pass in float64, rounded once.

    out[i] = weight[indices[i]]                    dweight[v] = sum of dout[i] over all i with indices[i] = v
"""

from __future__ import annotations

from typing import Any

from ..arrays import array_module
from . import outside


def embedding_forward(indices: Any, weight: Any) -> Any:
    _check_range(indices, weight.shape[0])
    return weight[indices]


def embedding_backward(dout: Any, indices: Any, count: int, padding: int, out: Any) -> Any:
    xp = array_module(dout)
    _check_range(indices, count)
    table = xp.zeros((count, dout.shape[-1]), xp.float64)
    xp.add.at(table, indices, dout.astype(xp.float64))
    if padding >= 0:
        table[padding] = 0
    if out is None:
        return table.astype(dout.dtype)
    out[...] = out.astype(xp.float64) + table
    return out


def _check_range(indices: Any, count: int) -> None:
    bad = (indices < 0) | (indices >= count)
    if bool(bad.any()):
        raise outside(indices[bad].reshape(-1)[0], count)
