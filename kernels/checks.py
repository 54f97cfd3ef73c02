"""What every kernel asks of its arguments, once, before an implementation runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import array_module, is_array

_FLOAT32 = np.dtype(np.float32)


def check_arrays(kernel: str, **arrays: Any) -> None:
    """TypeError unless the arrays, those that are not None, belong to one library and share one floating dtype."""
    first, first_name = None, ""
    for name, x in arrays.items():
        if x is None or (first is not None and type(x) is type(first) and x.dtype == first.dtype):
            continue
        if not is_array(x):
            raise TypeError(f"{kernel}: {name} must be an array, got {type(x).__name__}; make one with numpy.asarray")
        if first is None:
            first, first_name = x, name
            if x.dtype.kind != "f" and x.dtype.name != "bfloat16":
                raise TypeError(f"{kernel}: {name} must be of a floating dtype, got {x.dtype}; convert it with .astype")
        elif x.dtype != first.dtype:
            raise TypeError(
                f"{kernel}: {name} is {x.dtype} but {first_name} is {first.dtype}; convert one of them with .astype"
            )
        elif array_module(x) is not array_module(first):
            raise TypeError(
                f"{kernel}: {name} belongs to {array_module(x).__name__} but {first_name} to "
                f"{array_module(first).__name__}; move one of them"
            )


def wide_dtype(dtype: Any) -> Any:
    """The dtype of what a kernel has one of for each row (means, losses): the arrays', but float32 beside 16 bits."""
    return _FLOAT32 if dtype.itemsize == 2 else dtype


def check_wide(kernel: str, like_name: str, like: Any, **arrays: Any) -> None:
    """TypeError unless the arrays, those that are not None, belong to the library of `like` and have its wide dtype."""
    wide = wide_dtype(like.dtype)
    for name, x in arrays.items():
        if x is not None and is_array(x) and like.dtype.itemsize == 2 and x.dtype != wide:
            of = f"{like_name} is {like.dtype}, with which numbers of rows are {wide}"
            raise TypeError(f"{kernel}: {name} is {x.dtype} but {of}; convert it with .astype")
    if wide == like.dtype:
        check_arrays(kernel, **{like_name: like}, **arrays)
    else:
        check_arrays(kernel, **arrays)


def check_shape(kernel: str, name: str, x: Any, shape: tuple[int, ...], means: str) -> None:
    """ValueError unless x is None or has this shape; `means` says where the shape comes from."""
    if x is not None and x.shape != shape:
        raise ValueError(f"{kernel}: {name} has shape {x.shape}, expected {shape}, {means}")


def contiguous(x: np.ndarray) -> np.ndarray:
    """x itself where Numba can take it as it is, else a copy of it in C order.

    To Numba a strided, a read-only and an unaligned array are types of their own, and each new type compiles the
    kernel again, for seconds. A copy is quicker.
    """
    return x if x.flags.carray else np.array(x, order="C")
