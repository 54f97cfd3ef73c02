"""What the C library does with freed memory while a model trains.

glibc takes a large block (more than 128 KB at first, up to 32 MB later) straight from the kernel and gives it back when
it is freed. A training step frees its arrays and asks for the same ones in the next step, and the kernel zeroes every
page again: a page fault for each 4 KB. With several 3 MB arrays alive, to allocate and fill one took 0.92 ms; with
freed memory kept, 0.22 ms.
"""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # names of mallopt's options in malloc.h


@cache
def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, for the rest of the process; False where the C library is not glibc.

    Called when the first optimizer is made. Memory that was needed once then stays with the process.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  # AttributeError: another C library
    except (OSError, TypeError, AttributeError):
        return False
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    return all(libc.mallopt(option, value) == 1 for option, value in settings)
