"""How kernels that go through arrays element by element are cut for threads.

An array is cut into blocks of one size, so that results do not depend on the number of threads. Up to two blocks one
thread does all the work: it takes a few microseconds, and waking another one costs 1 to 2.
"""

from __future__ import annotations

from .numba_setup import njit

BLOCK = 8192  # elements; 32 KB of float32. A multiple of the lanes of every vector: only the last block has a rest
SMALL = 2 * BLOCK


@njit
def count(size):
    """The number of blocks of `size` elements."""
    return (size + BLOCK - 1) // BLOCK


@njit
def end(block, size):
    """One past the last element of block number `block`; the first is block * BLOCK."""
    return min((block + 1) * BLOCK, size)
