"""Philox4x32-10 and the numbers made of it, the specification: xp is NumPy or CuPy.

    round:  (c0, c1, c2, c3) = (high(c2 * M1) ^ c1 ^ k0,  low(c2 * M1),  high(c0 * M0) ^ c3 ^ k1,  low(c0 * M0))
            (k0, k1) = (k0 + W0, k1 + W1)                                     ten times, all words of 32 bits
    start:  c0, c1 = low and high word of the counter, c2 = c3 = 0;  k0, k1 = low and high word of the key

    uniform = (word >> 8) / 2^24             float16: (word >> 21) / 2^11, bfloat16: (word >> 24) / 2^8
    normal  = sqrt(-2 log u1) * cos(2 pi u2) and the sine,  u1 = (word + 1/2) / 2^32,  u2 = word / 2^32
"""

from __future__ import annotations

import math
from typing import Any

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85  # golden ratio and sqrt(3), less 1: what the key grows by
LOW = 0xFFFFFFFF


def philox_bits(count: int, seed: int, position: int, xp: Any) -> Any:
    u64 = xp.uint64
    low, high = u64(LOW), u64(32)
    counter = xp.arange((count + 3) // 4, dtype=u64) + u64(position)
    c0, c1, c2, c3 = counter & low, counter >> high, counter & u64(0), counter & u64(0)
    k0, k1 = seed & LOW, seed >> 32
    for _ in range(10):
        p0, p1 = c0 * u64(M0), c2 * u64(M1)  # 32 x 32 -> 64 bits
        c0, c1, c2, c3 = (p1 >> high) ^ c1 ^ u64(k0), p1 & low, (p0 >> high) ^ c3 ^ u64(k1), p0 & low
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return xp.stack((c0, c1, c2, c3), axis=1).reshape(-1)[:count].astype(xp.uint32)


def philox_uniform(shape: tuple[int, ...], seed: int, position: int, dtype: Any, xp: Any) -> Any:
    digits = {"float16": 11, "bfloat16": 8}.get(dtype.name, 24)  # that the type holds
    words = philox_bits(math.prod(shape), seed, position, xp) >> xp.uint32(32 - digits)
    return (words.astype(xp.float64) * 2.0**-digits).astype(dtype).reshape(shape)


def philox_normal(
    shape: tuple[int, ...], seed: int, position: int, dtype: Any, mean: float, std: float, xp: Any
) -> Any:
    size = math.prod(shape)
    half = (size + 1) // 2
    words = philox_bits(2 * half, seed, position, xp).astype(xp.float64)
    radius = xp.sqrt(-2.0 * xp.log((words[:half] + 0.5) * 2.0**-32))
    angle = words[half:] * (2.0 * math.pi * 2.0**-32)
    z = xp.concatenate((radius * xp.cos(angle), radius * xp.sin(angle)))[:size]
    return (z * std + mean).astype(dtype).reshape(shape)
