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

import kernels

from . import capture
from .device import array_module_of


def random_bits(count: int, seed: int, position: int, xp: Any = np) -> Any:
    """`count` random 32-bit words (uint64 array) that (seed, position) stand for.

    >>> [hex(int(w)) for w in random_bits(4, 0, 0)]     # the paper's known answer
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    return kernels.philox_bits(count, seed, position, xp=xp).astype(xp.uint64)


def uniform_at(shape: tuple[int, ...], seed: int, position: int, dtype: Any = np.float32, xp: Any = np) -> Any:
    """Uniform in [0, 1) with 24 random bits (float16: 11), as (seed, position) determine them."""
    return kernels.philox_uniform(shape, seed, position, dtype, xp=xp)


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
        if capture.recorded:
            capture.refuse(
                "random numbers are drawn at a seed and a position",
                "set dropout to 0, or draw outside and pass them in",
            )
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
        half = (math.prod(shape) + 1) // 2
        return kernels.philox_normal(shape, *self.reserve(2 * half), dtype, mean=mean, std=std, xp=xp)

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
