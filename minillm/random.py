"""Counter-based random numbers: one seed gives the same numbers on every device and in any order of threads.

Philox4x32-10 (Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3, SC'11) turns a counter and a key into
four random 32-bit words: random access, no state but the position. A `Generator` is a key and a position; the words
that a draw uses are known from (seed, position) alone, so a dropout mask need not be stored: it can be made again.

Uniform numbers and masks are the same bits on NumPy and CuPy. Normal numbers go through log, cos and sin, whose last
bit may differ between libraries.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np

from .device import array_module_of

_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1: what the key grows by each round
_MASK = 0xFFFFFFFF


def philox(counter: Any, key: int, xp: Any = np) -> tuple[Any, Any, Any, Any]:
    """Four uint64 arrays that hold 32 random bits each, for an array of uint64 counters and a 64-bit key.

    >>> [hex(int(w[0])) for w in philox(np.zeros(1, np.uint64), 0)]     # the paper's known answer
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    low, shift = xp.uint64(_MASK), xp.uint64(32)
    m0, m1 = xp.uint64(_MULTIPLY[0]), xp.uint64(_MULTIPLY[1])
    c0, c1 = counter & low, counter >> shift
    c2 = xp.zeros_like(c0)
    c3 = xp.zeros_like(c0)
    k0, k1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        p0, p1 = c0 * m0, c2 * m1  # 32 x 32 -> 64 bits
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ xp.uint64(k0), p1 & low, (p0 >> shift) ^ c3 ^ xp.uint64(k1), p0 & low
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def random_bits(count: int, seed: int, position: int, xp: Any = np) -> Any:
    """`count` random 32-bit words (uint64 array) that (seed, position) stand for."""
    blocks = (count + 3) // 4
    counter = xp.arange(blocks, dtype=xp.uint64) + xp.uint64(position)
    return xp.stack(philox(counter, seed, xp), axis=1).reshape(-1)[:count]


def uniform_at(shape: tuple[int, ...], seed: int, position: int, dtype: Any = np.float32, xp: Any = np) -> Any:
    """Uniform in [0, 1) with 24 random bits (float16: 11), as (seed, position) determine them."""
    digits = 11 if np.dtype(dtype).itemsize == 2 else 24  # more would round up to 1
    bits = random_bits(math.prod(shape), seed, position, xp) >> xp.uint64(32 - digits)
    wide = xp.float64 if np.dtype(dtype) == np.float64 else xp.float32
    return (bits.astype(wide) * (2.0**-digits)).astype(dtype).reshape(shape)


_generators: weakref.WeakSet[Generator] = weakref.WeakSet()  # all there are: what a checkpoint has to replay


class Generator:
    """A seed and a position in its stream. Every draw moves the position by the counters it used.

    >>> a, b = Generator(7), Generator(7)
    >>> bool((a.uniform((2, 3)) == b.uniform((2, 3))).all())
    True
    """

    def __init__(self, seed: int = 0):
        self.manual_seed(seed)
        _generators.add(self)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed` (0 <= seed < 2**64) again."""
        if not 0 <= int(seed) < 2**64:
            raise ValueError(f"a seed is an integer from 0 to 2**64 - 1; got {seed}")
        self.seed, self.position = int(seed), 0
        return self

    def get_state(self) -> tuple[int, int]:
        return self.seed, self.position

    def set_state(self, state: tuple[int, int]) -> None:
        self.seed, self.position = int(state[0]), int(state[1])

    def reserve(self, count: int) -> tuple[int, int]:
        """(seed, position) of `count` words that no other draw will use."""
        at = self.seed, self.position
        self.position += (count + 3) // 4
        return at

    def uniform(
        self, shape: Any = (), low: float = 0.0, high: float = 1.0, dtype: Any = np.float32, device: str = "cpu"
    ) -> Any:
        """Array of uniform numbers in [low, high); rounding may reach high itself where high - low is not a power of
        2."""
        shape, xp = _shape(shape), array_module_of(device)
        u = uniform_at(shape, *self.reserve(math.prod(shape)), dtype=dtype, xp=xp)
        return u if (low, high) == (0.0, 1.0) else u * (high - low) + low

    def normal(
        self, shape: Any = (), mean: float = 0.0, std: float = 1.0, dtype: Any = np.float32, device: str = "cpu"
    ) -> Any:
        """Array of normal numbers by Box and Muller (1958): sqrt(-2 log u1) cos(2 pi u2), and the sine beside it."""
        shape, xp = _shape(shape), array_module_of(device)
        count = math.prod(shape)
        half = (count + 1) // 2
        bits = random_bits(2 * half, *self.reserve(2 * half), xp=xp)
        u1 = (bits[:half].astype(xp.float64) + 0.5) * 2.0**-32  # never 0
        angle = bits[half:].astype(xp.float64) * (2.0 * math.pi * 2.0**-32)
        radius = xp.sqrt(-2.0 * xp.log(u1))
        z = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])[:count]
        return (z * std + mean).astype(dtype).reshape(shape)

    def integers(self, low: int, high: int, shape: Any = (), device: str = "cpu") -> Any:
        """int64 array, uniform over low <= n < high; high - low at most 2**32."""
        if not 0 < high - low <= 2**32:
            raise ValueError(f"integers: need low < high and a span of at most 2**32; got low={low}, high={high}")
        shape, xp = _shape(shape), array_module_of(device)
        count = math.prod(shape)
        bits = random_bits(count, *self.reserve(count), xp=xp)
        return (((bits * xp.uint64(high - low)) >> xp.uint64(32)).astype(xp.int64) + low).reshape(shape)

    def permutation(self, n: int, device: str = "cpu") -> Any:
        """The numbers 0 .. n-1 in random order, int64."""
        xp = array_module_of(device)
        seed, position = self.reserve(2 * n)
        bits = random_bits(2 * n, seed, position, xp)
        return xp.argsort((bits[:n] << xp.uint64(32)) | bits[n:])  # 64-bit keys: ties are out of the question


def _shape(shape: Any) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Seed the generator that layers, dropout and initialisers draw from; NumPy's own is never touched."""
    return default_generator.manual_seed(seed)


def get_rng_state() -> tuple[int, int]:
    """(seed, position) of the default generator."""
    return default_generator.get_state()


def set_rng_state(state: tuple[int, int]) -> None:
    """Put the default generator back to a state from `get_rng_state`."""
    default_generator.set_state(state)


def all_states() -> list[tuple[Generator, tuple[int, int]]]:
    """Every generator with its state."""
    return [(g, g.get_state()) for g in _generators]


def set_all_states(states: list[tuple[Generator, tuple[int, int]]]) -> None:
    """Put generators back to states from `all_states`."""
    for generator, state in states:
        generator.set_state(state)
