"""Tensor maps: what TMA, Hopper's copy unit, has to know of a tensor in global memory.

    q_map = TensorMap(q, box=(1, 64, 64))      # q (heads, T, D): boxes of 64 rows and 64 columns of one head
    run(grid, block, (q_map, ...))             # the kernel takes `const __grid_constant__ TensorMap`

A kernel names the corner of a box in elements, innermost dimension first, and TMA copies it to shared memory, or back.
Parts of a box outside the tensor arrive as zeros and are not stored. For a GPU the driver (libcuda) encodes the map;
the simulator gets a struct of its own with the same content. Source: "CUDA Driver API", cuTensorMapEncodeTiled.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ..arrays import array_module

_ENCODED = np.dtype([("opaque", np.uint64, 16)])  # a CUtensorMap
_SIMULATED = np.dtype(  # sim::TensorMap in kernels/simulator/hopper.h
    [("address", np.uint64), ("size", np.uint64, 4), ("stride", np.uint64, 4), ("box", np.uint32, 4)]
    + [("rank", np.uint32), ("element", np.uint32), ("swizzle", np.uint32), ("is_float", np.uint32)]
    + [("rest", np.uint32, 6)]
)
_DRIVER_TYPES = {"float16": 6, "float32": 7, "bfloat16": 9}  # CUtensorMapDataType
_DRIVER_SWIZZLES = {0: 0, 128: 3}  # CUtensorMapSwizzle
_L2_PROMOTION = 2  # fetch 128 bytes at a time into L2


class TensorMap:
    """An argument of a kernel: boxes of `array`, which has 3 or 4 dimensions and is contiguous.

    box: its size in each dimension, as in array.shape, at most 256. swizzle: 128 (bytes; then the box's last
    dimension has at most 128 bytes), or 0. float32, float16 and bfloat16; rows must begin at multiples of 16 bytes.
    """

    def __init__(self, array: Any, box: tuple[int, ...], swizzle: int = 128) -> None:
        if array.ndim not in (3, 4) or len(box) != array.ndim:
            raise ValueError(f"TensorMap: box {box} and array {array.shape} must both have 3 or 4 dimensions")
        if not array.flags.c_contiguous:
            raise ValueError(f"TensorMap: the array must be contiguous; it has strides {array.strides}")
        if array.dtype.name not in _DRIVER_TYPES:
            raise TypeError(f"TensorMap: float32, float16 or bfloat16, got {array.dtype}")
        if swizzle not in _DRIVER_SWIZZLES:
            raise ValueError(f"TensorMap: swizzle is 128 or 0, got {swizzle}")
        item = array.dtype.itemsize
        if swizzle and box[-1] * item > swizzle:
            raise ValueError(f"TensorMap: with {swizzle}-byte swizzle a box has at most as many in its rows, got {box}")
        if not all(1 <= n <= 256 for n in box) or box[-1] * item % 16:
            raise ValueError(f"TensorMap: sides of a box are 1 to 256 and its rows multiples of 16 bytes, got {box}")
        if address_of(array) % 16 or array.shape[-1] * item % 16:
            raise ValueError("TensorMap: the array and each of its rows must begin at a multiple of 16 bytes")
        self.array, self.box, self.swizzle = array, tuple(box), swizzle

    def kernel_argument(self, simulated: bool) -> np.ndarray:
        """The 128 bytes that the kernel gets, as a structured array of size 1."""
        how = (address_of(self.array), self.array.shape, self.array.dtype.name, self.box, self.swizzle)
        return _simulated(*how) if simulated else _encoded(*how)

    def of(self, array: Any) -> TensorMap:
        """The same boxes of another array: a copy of this one elsewhere."""
        return TensorMap(array, self.box, self.swizzle)


def address_of(array: Any) -> int:
    """Of its first element, in the memory where it is."""
    return int(array.ctypes.data) if array_module(array) is np else int(array.data.ptr)


def _simulated(address: int, shape: tuple[int, ...], dtype: str, box: tuple[int, ...], swizzle: int) -> np.ndarray:
    rank, element = len(shape), 4 if dtype == "float32" else 2
    size = (*reversed(shape), 1)[:4]
    stride = [element]
    for n in size[:3]:
        stride.append(stride[-1] * n)
    sides = (*reversed(box), 1)[:4]
    return np.array(
        [(address, size, stride, sides, rank, element, swizzle, dtype == "float32", (0,) * 6)], _SIMULATED
    )


@lru_cache(maxsize=4096)
def _encoded(address: int, shape: tuple[int, ...], dtype: str, box: tuple[int, ...], swizzle: int) -> np.ndarray:
    rank, item = len(shape), 4 if dtype == "float32" else 2
    size = list(reversed(shape))
    strides = [item * int(np.prod(size[: i + 1], dtype=np.int64)) for i in range(rank - 1)]  # of all but the innermost
    room = np.zeros(128 + 64, np.uint8)  # the driver wants the map at a multiple of 64 bytes
    start = -room.ctypes.data % 64
    status = _driver().cuTensorMapEncodeTiled(
        ctypes.c_void_p(room.ctypes.data + start),
        ctypes.c_int(_DRIVER_TYPES[dtype]),
        ctypes.c_uint32(rank),
        ctypes.c_void_p(address),
        (ctypes.c_uint64 * rank)(*size),
        (ctypes.c_uint64 * (rank - 1))(*strides),
        (ctypes.c_uint32 * rank)(*reversed(box)),
        (ctypes.c_uint32 * rank)(*[1] * rank),  # element strides
        ctypes.c_int(0),  # no interleaving
        ctypes.c_int(_DRIVER_SWIZZLES[swizzle]),
        ctypes.c_int(_L2_PROMOTION),
        ctypes.c_int(0),  # zeros outside
    )
    if status:
        raise RuntimeError(
            f"the CUDA driver refuses a tensor map (error {status}): {shape} {dtype} at {address:#x}, box {box}"
        )
    return room[start : start + 128].copy().view(_ENCODED)


@cache
def _driver() -> Any:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise RuntimeError(f"TMA needs the CUDA driver's library {name}: {error}") from error
