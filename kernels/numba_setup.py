"""Where every Numba kernel gets `njit` and `prange`: `from ..numba_setup import njit, prange`.

GNU OpenMP, which runs Numba's threads, lets idle threads spin for a long time before they sleep. OpenBLAS has threads
of its own that spin too, and on a few cores the two starve each other: a matrix product and a kernel called in turn,
0.24 ms of work, take 8 ms on two cores. A spin count of 1000 ends that (0.32 ms) and costs a kernel launch 2 us. The
variable is read when the threads start, so it has to be set before Numba is imported; a value that the user
chose stays.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from numba import njit, prange

__all__ = ["njit", "prange"]
