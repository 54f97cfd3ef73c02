"""Offset and window as small integers: Numba's and CUDA's have 64 and 32 bits, Python's have no end."""

from __future__ import annotations


def small(T: int, S: int, offset: int, window: int | None) -> tuple[int, int | None]:
    """Another (offset, window) that hides the same keys: |both| <= 2 (T + S) + 3, window None or at least 1.

    Only i + offset (where causal stops) and i + offset - window (where the window starts) matter, and those only as far
    as the keys 0 .. S - 1 reach from the queries 0 .. T - 1: so the two sums are clipped, not their parts.

    >>> small(1, 1, 10, 20), small(4, 4, 0, None), small(4, 4, 0, 10**12)
    ((2, 6), (0, None), (0, 10))
    """
    high = max(-T, min(offset, S + 1))
    if window is None:
        return high, None
    return high, high - max(-T - S - 2, min(offset - window, S))
