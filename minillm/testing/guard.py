"""Arrays with forbidden memory beside them: a kernel that reads or writes one element too far is stopped at once.

NaN around an input shows a read whose value matters. A page without permissions shows every read, also one whose result
is thrown away: the process gets a segmentation fault there, with a traceback if `faulthandler` is on. So run the kernel
in a process of its own:

    # guard_mine.py                                   python -X faulthandler guard_mine.py
    from minillm.testing import guarded, guarded_allocations
    x = guarded(np.arange(37, dtype=np.float32))    # the byte after the last element is forbidden
    with guarded_allocations():                     # so are those after what np.empty and its like return
        mine(x)
        mine(guarded(x, before=True))               # the byte before the first one is

Linux and macOS only.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_PAGE = mmap.PAGESIZE
_kept: list[mmap.mmap] = []  # never unmapped: an array may outlive everything


def guarded(x: Any, before: bool = False) -> np.ndarray:
    """A copy of x in C order that ends at a page without permissions (before=True: that starts behind one)."""
    x = np.asarray(x)
    pages = -(-max(x.nbytes, 1) // _PAGE)
    memory = mmap.mmap(-1, (pages + 2) * _PAGE)
    _kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        if ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + page * _PAGE), ctypes.c_size_t(_PAGE), 0):
            raise OSError("mprotect failed: this system gives no page without permissions")
    offset = _PAGE if before else (pages + 1) * _PAGE - x.nbytes
    copy = np.frombuffer(memory, x.dtype, x.size, offset).reshape(x.shape)
    copy[...] = x
    return copy


@contextmanager
def guarded_allocations() -> Iterator[None]:
    """In the block np.empty, zeros, ones, full and their *_like give guarded arrays (of NumPy arrays only)."""
    names = ("empty", "zeros", "ones", "full", "empty_like", "zeros_like", "ones_like", "full_like")
    originals = {name: getattr(np, name) for name in names}

    def protect(make: Any) -> Any:
        def made(*args: Any, **settings: Any) -> Any:
            array = make(*args, **settings)
            return guarded(array) if type(array) is np.ndarray and array.dtype.kind in "fiub" else array

        return made

    try:
        for name, make in originals.items():
            setattr(np, name, protect(make))
        yield
    finally:
        for name, make in originals.items():
            setattr(np, name, make)


__all__ = ["guarded", "guarded_allocations"]
