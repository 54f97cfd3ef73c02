"""Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3, SC'11).

A counter and a key go in, four random 32-bit words come out, and nothing is remembered in between: word i of a stream
is known from (seed, position, i) alone. So any part of an array can be made by any thread, on any device, any time, and
the numbers are the same; a dropout mask need not be stored, it is made again.

    word i of (seed, position) = word i % 4 of philox(counter = position + i // 4, key = seed)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dispatch import implementation


def philox_bits(count: int, seed: int, position: int = 0, *, xp: Any = np, impl: str | None = None) -> Any:
    """The first `count` random words of (seed, position): a uint32 array (count,). They take (count + 3) // 4 counters.

    seed, position: integers from 0 to 2^64 - 1 (counters wrap around). xp: the array library, NumPy or CuPy.

    >>> [hex(word) for word in philox_bits(4, 0)]            # the known answer of the paper
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    (count,), dtype = _check("philox_bits", count, seed, position, np.float32)
    return implementation("random", impl, xp.empty(0, dtype)).philox_bits(count, seed, position, xp)


def philox_uniform(
    shape: Any, seed: int, position: int = 0, dtype: Any = np.float32, *, xp: Any = np, impl: str | None = None
) -> Any:
    """Uniform numbers in [0, 1): the upper 24 bits of each word, times 2^-24. float16 takes 11 and bfloat16 8 bits,
    or they would round up to 1.

    shape: an int or a tuple; the words fill it in C order. The same bits on every device.
    """
    shape, dtype = _check("philox_uniform", shape, seed, position, dtype)
    return implementation("random", impl, xp.empty(0, dtype)).philox_uniform(shape, seed, position, dtype, xp)


def philox_normal(
    shape: Any, seed: int, position: int = 0, dtype: Any = np.float32, *, mean: float = 0.0, std: float = 1.0,
    xp: Any = np, impl: str | None = None,
) -> Any:  # fmt: skip
    """Normal numbers by Box and Muller (1958), of two halves of the stream, u1 and u2, which are `half` words long:

        half = (size + 1) // 2          radius = sqrt(-2 log u1)          angle = 2 pi u2
        first half of the result: radius cos(angle), second half: radius sin(angle), times std, plus mean

    u1 = (word + 1/2) / 2^32 is never 0, so |normal| < 6.77. They take (2 half + 3) // 4 counters. Computed in float64,
    rounded once; implementations differ by the rounding of log, cos and sin; the number of threads changes nothing.
    """
    shape, dtype = _check("philox_normal", shape, seed, position, dtype)
    module = implementation("random", impl, xp.empty(0, dtype))
    return module.philox_normal(shape, seed, position, dtype, float(mean), float(std), xp)


def _check(kernel: str, shape: Any, seed: int, position: int, dtype: Any) -> tuple[tuple[int, ...], np.dtype]:
    shape, dtype = (shape,) if isinstance(shape, int | np.integer) else tuple(shape), np.dtype(dtype)
    if any(n < 0 for n in shape):
        raise ValueError(f"{kernel}: a shape has no negative sizes, got {shape}")
    if dtype.kind != "f" and dtype.name != "bfloat16":
        raise TypeError(f"{kernel}: dtype must be a floating one, got {dtype}")
    check_key(kernel, seed, position)
    return shape, dtype


def check_key(kernel: str, seed: int, position: int) -> None:
    """ValueError unless both are integers of 64 bits without a sign."""
    if not (0 <= seed < 2**64 and 0 <= position < 2**64):
        raise ValueError(f"{kernel}: seed and position are integers from 0 to 2**64 - 1; got {seed} and {position}")
