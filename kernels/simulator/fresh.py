"""New arrays that show when they are read before they were written."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np

# Of each 16 bits; a NaN as float16, as bfloat16 and, twice, as float32. memory.h looks for it. Not one that signals:
# copying it must raise no warning.
POISON = 0x7FE5


def poison(x: np.ndarray) -> np.ndarray:
    """Fills a new array, whose elements lie densely in memory."""
    if x.nbytes >= 2 and not x.dtype.hasobject:
        memory = memoryview((ctypes.c_char * (x.nbytes & ~1)).from_address(x.ctypes.data))
        np.frombuffer(memory.cast("B"), np.uint16)[...] = POISON
    return x


def _poisoned(make: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(make)
    def empty(*args: Any, **kwargs: Any) -> Any:
        x = make(*args, **kwargs)
        return poison(x) if type(x) is np.ndarray else x

    return empty


@contextmanager
def poisoned_arrays() -> Iterator[None]:
    """Inside the block numpy.empty and empty_like fill their arrays with NaN that the checked simulator knows.

    A kernel that reads them before anyone has written them is then found, whatever memory held before.
    """
    before = {name: getattr(np, name) for name in ("empty", "empty_like")}
    for name, make in before.items():
        setattr(np, name, _poisoned(make))
    try:
        yield
    finally:
        for name, make in before.items():
            setattr(np, name, make)
