"""The GPU's memory. CuPy keeps what arrays gave back in a pool, so what other programs see is the pool, not the arrays.

used     by arrays that exist
held     by the pool, what is used included: in the course of a training its largest need so far
free     on the GPU, for anybody
total    all of it
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ..errors import MEMORY_ADVICE
from .found import find_cupy


class Memory(NamedTuple):
    """Bytes."""

    used: int
    held: int
    free: int
    total: int

    def __str__(self) -> str:
        return (
            f"{size(self.used)} used by arrays, {size(self.held)} held by the pool, {size(self.free)} free of "
            f"{size(self.total)}"
        )


def memory() -> Memory:
    """Of the current GPU."""
    cupy = find_cupy()
    pool = cupy.get_default_memory_pool()
    free, total = cupy.cuda.runtime.memGetInfo()
    return Memory(int(pool.used_bytes()), int(pool.total_bytes()), int(free), int(total))


def free_memory() -> None:
    """Give what no array uses back to the GPU: for another program, or between models. The next arrays take longer."""
    find_cupy().get_default_memory_pool().free_all_blocks()


def out_of_memory(error: Any) -> str:
    """What CuPy's OutOfMemoryError means, as one sentence."""
    asked = getattr(error, "_size", None)
    if asked is None and (found := re.search(r"allocating ([\d,]+) bytes", str(error))):
        asked = int(found[1].replace(",", ""))
    wanted = f"{size(asked)} more were asked for" if asked is not None else "more was asked for"
    try:
        have = f" ({memory()})"
    except Exception:  # the message is about something else than this
        have = ""
    return f"the GPU's memory is full: {wanted}{have}; {MEMORY_ADVICE}"


def size(count: int) -> str:
    """Bytes in words.

    >>> size(3 << 29), size(5000), size(12)
    ('1.5 GiB', '4.9 KiB', '12 bytes')
    """
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
