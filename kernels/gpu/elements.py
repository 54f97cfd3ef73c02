"""Launches the kernels that go through arrays element by element; `elements.cuh` is their side of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import array_module
from .launch import Kernel

THREADS = 256  # in a block
BLOCKS = 4096  # at most: some for every multiprocessor of every GPU; each thread then takes several packs
WIDTH = 16  # bytes of a pack


def launch(run: Kernel, arrays: tuple[Any, ...], *others: Any) -> None:
    """run(arrays..., u64 n, int whole, others...), n the size of the first array and of all that go along with it."""
    n = arrays[0].size
    if n:
        run(grid(packs(n, arrays[0])), (THREADS,), (*arrays, np.uint64(n), whole(*arrays), *others))


def packs(n: int, like: Any) -> int:
    """How many packs of 16 bytes n elements of the dtype of `like` fill, the last perhaps in part."""
    return -(-n * int(like.itemsize) // WIDTH)


def grid(packs: int, threads: int = THREADS) -> tuple[int]:
    """Enough blocks for a pack in each thread, but no more than BLOCKS."""
    return (min(BLOCKS, -(-packs // threads)),)


def whole(*arrays: Any) -> np.int32:
    """1 where all arrays (None counts for nothing) lie at multiples of 16 bytes."""
    return np.int32(all(address(x) % WIDTH == 0 for x in arrays if x is not None))


def address(x: Any) -> int:
    """Where the first element lies: on the GPU, or in main memory for a NumPy array."""
    return int(x.ctypes.data if array_module(x) is np else x.data.ptr)


def contiguous(*arrays: Any) -> tuple[Any, ...]:
    """The arrays in C order, copied where they were not."""
    return tuple(x if x.flags.c_contiguous else array_module(x).ascontiguousarray(x) for x in arrays)
