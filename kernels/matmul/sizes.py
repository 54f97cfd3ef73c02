"""Sizes of the blocks, and the workspace that holds them.

Words are the numbers of a packed block: float32, float64, or int32 that hold two bfloat16 (see tiles.py).
"""

from __future__ import annotations

import numba
import numpy as np

from .. import simd

ROWS, WIDEST = simd.TILE_ROWS, simd.TILE_VECTORS  # a tile: rows x vectors

DEPTH = 384  # words along k of a packed block
B_WORDS = DEPTH * 384  # of a packed block of B: 590 KB as float32, fits into L2 (1 MB) ...
BLOCK_ROWS = 96  # ... with as many rows of A, 96 x 384 x 4 B = 147 KB; 16 to 96 are alike, and turned A likes more
ROW_WORDS = DEPTH + 16  # from a packed row of A to the next: a power of two would put all rows into the same cache sets
FEW = 4  # rows of A: up to so many are not worth packing a B that would have to be turned

_ROOM = WIDEST * 16 * 16  # a transposed square may stick out of the last panel
A_AT = B_WORDS + _ROOM
SQUARE_AT = A_AT + BLOCK_ROWS * ROW_WORDS
WORK = SQUARE_AT + 16 * 16  # words of one thread's workspace
TILE_WORK = 2 * 8 * 4 * 16  # numbers beside it: a tile that sticks out of C, or a square and its sums; a row of zeros
ZEROS_AT = 8 * 4 * 16

_kept: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}


def workspace(dtype: np.dtype, words: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(threads, WORK) words, (threads, TILE_WORK) numbers, and a (1, 1) view of the zeros among them.

    Made once for each dtype and kept: 0.7 MB a thread for float32. The kernels hold Python's lock while they run, so
    no two products use it at the same time.
    """
    kept = _kept.get(words.char)
    if kept is None:
        threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        tiles = aligned(threads * TILE_WORK, dtype).reshape(threads, TILE_WORK)
        tiles[:] = 0
        kept = aligned(threads * WORK, words).reshape(threads, WORK), tiles, tiles[:1, ZEROS_AT : ZEROS_AT + 1]
        _kept[words.char] = kept
    return kept


def aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """An empty array that begins at a cache line: a vector across two lines is loaded twice."""
    dtype = np.dtype(dtype)
    raw = np.empty(size * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * dtype.itemsize].view(dtype)
