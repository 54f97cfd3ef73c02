"""Philox4x32-10 in Numba: plain loops over 64-bit integers, which LLVM turns into vectors of 8 counters each.

Words of 32 bits live in the lower halves of 64-bit integers, where a product keeps all its 64 bits. Upper halves are
left dirty: a product looks at lower halves only, and `& LOW` in front of it costs nothing.
"""

from __future__ import annotations

import numpy as np

from ..numba_setup import njit
from . import reference

LOW, HIGH = np.uint64(reference.LOW), np.uint64(32)
M0, M1, W0, W1 = (np.uint64(n) for n in (reference.M0, reference.M1, reference.W0, reference.W1))
CHUNK = 2048  # words that are made at a time: 8 KB, so that they stay in the first-level cache


@njit
def fill(pairs, counter, seed):
    """The words of counter, counter + 1, ...: pairs (2 n,) uint64 take those of n counters, two words in each.

    pairs.view(np.uint32) holds the 4 n words in order. counter, seed: uint64.
    """
    for j in range(pairs.size // 2):
        c = counter + np.uint64(j)
        c0, c1, c2, c3 = c, c >> HIGH, np.uint64(0), np.uint64(0)
        k0, k1 = seed & LOW, seed >> HIGH
        for _ in range(10):
            p0, p1 = (c0 & LOW) * M0, (c2 & LOW) * M1
            c0, c1, c2, c3 = (p1 >> HIGH) ^ c1 ^ k0, p1, (p0 >> HIGH) ^ c3 ^ k1, p0
            k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
        pairs[2 * j] = (c0 & LOW) | (c1 << HIGH)
        pairs[2 * j + 1] = (c2 & LOW) | (c3 << HIGH)
