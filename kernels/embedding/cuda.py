"""Embedding on a GPU: loads and launches embedding.cu.

An id outside the table: NumPy arrays (the simulator) give an IndexError, as everywhere. On a GPU the host would have to
wait for the device to see it; there its row is NaN, and its gradient goes nowhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import array_module
from ..gpu import kernel, type_name
from ..gpu.rows import LARGEST_GRID, WARPS, check_length, flat, packs_of
from . import outside

SOURCE = Path(__file__).with_name("embedding.cu")
VARIANTS = [(SOURCE, {"TYPE": name, "PACKS": 4}, "sm_75") for name in ("float", "bf16")]
PIECE, COLUMNS = 32, 256  # as in embedding.cu


def embedding_forward(indices: Any, weight: Any) -> Any:
    xp, (V, D) = array_module(weight), weight.shape
    out, ids = xp.empty((*indices.shape, D), weight.dtype), _ids(indices, V)
    if out.size:
        check_length("embedding_forward", D)
        run = _kernel("embedding_forward", weight, D)
        blocks = -(-ids.size // WARPS)
        arrays = ids, xp.ascontiguousarray(weight), out
        run((blocks,), (32 * WARPS,), (*arrays, np.int64(ids.size), np.int64(V), np.int32(D)))
    return out


def embedding_backward(dout: Any, indices: Any, count: int, padding: int, out: Any) -> Any:
    xp, D = array_module(dout), dout.shape[-1]
    ids = _ids(indices, count)
    direct = out is not None and out.flags.c_contiguous
    table = out if direct else xp.zeros((count, D), dout.dtype) if out is None else out.copy(order="C")
    if dout.size:
        pieces, strips = -(-ids.size // PIECE), -(-D // COLUMNS)
        if strips > 65535 or pieces > LARGEST_GRID:
            raise ValueError(f"embedding_backward: dout {dout.shape} is too large for one launch of the CUDA kernel")
        order = xp.argsort(ids, kind="stable")
        ids, ends = ids[order], xp.empty((pieces, 2, D, 2), np.float32)
        grid, sizes = (pieces, strips), (np.int64(ids.size), np.int64(count), np.int32(D), np.int64(padding))
        _kernel("sum_pieces", dout, D)(grid, (COLUMNS,), (flat(dout), order, ids, table, ends, *sizes))
        _kernel("join_pieces", dout, D)(grid, (COLUMNS,), (ids, table, ends, *sizes))
    if out is None or direct:
        return table
    out[...] = table
    return out


def _kernel(name: str, x: Any, D: int) -> Any:
    packs = 4 if packs_of(D, x.itemsize) > 64 else 1
    return kernel(SOURCE, name, x, TYPE=type_name(x.dtype), PACKS=packs)


def _ids(indices: Any, count: int) -> Any:
    ids = flat(indices)
    if type(ids) is np.ndarray:
        bad = (ids < 0) | (ids >= count)
        if bad.any():
            raise outside(ids[bad][0], count)
    return ids.astype(np.int64, copy=False)
