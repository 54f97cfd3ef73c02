"""Counter-based random numbers: the published answers, independence, statistics, state."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import minillm
from minillm.random import Generator, random_bits
from minillm.testing import strict

strict.install()

# The known answer of philox4x32-10 for a zero counter and key (Random123's table)
ZERO = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


def scalar_philox(counter, key):
    """Philox4x32-10 in Python integers, straight from section 3.3 of the paper; counter: four words, key: two."""
    c, k = list(counter), list(key)
    for r in range(10):
        if r:
            k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 % 2**32, (p0 >> 32) ^ c[3] ^ k[1], p0 % 2**32]
    return tuple(c)


def test_the_scalar_version_gives_the_published_answers():
    ones = 0xFFFFFFFF
    assert scalar_philox([0] * 4, [0] * 2) == ZERO
    assert scalar_philox([ones] * 4, [ones] * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert scalar_philox(pi, [0xA4093822, 0x299F31D0]) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


@pytest.mark.parametrize("counter", [0, 1, 2**32 - 1, 2**32, 0x85A308D3_243F6A88, 2**64 - 1])
@pytest.mark.parametrize("key", [0, 1, 2**32, 0x299F31D0_A4093822, 2**64 - 1])
def test_philox_is_the_scalar_version_on_arrays(counter, key):
    words = random_bits(4, key, counter)
    expected = scalar_philox([counter % 2**32, counter >> 32, 0, 0], [key % 2**32, key >> 32])
    assert tuple(int(w) for w in words) == expected


def test_words_come_in_blocks_of_four_and_from_any_position():
    many = random_bits(40, 5, 0)
    assert np.array_equal(random_bits(7, 5, 3), many[12:19])
    assert tuple(int(w) for w in random_bits(4, 0, 0)) == ZERO


def test_one_seed_fixes_everything_and_two_draws_differ():
    def draws(seed):
        g = Generator(seed)
        return [g.uniform(9), g.uniform(9), g.normal(9), g.integers(0, 100, 9), g.permutation(9)]

    a, b, c = draws(1), draws(1), draws(2)
    assert all(np.array_equal(x, y) for x, y in zip(a, b))
    assert not any(np.array_equal(x, y) for x, y in zip(a[:4], c[:4]))
    assert not np.array_equal(a[0], a[1])
    assert not np.intersect1d(a[0], a[1]).size


def test_no_two_draws_share_words():
    g = Generator(3)
    used = []
    for draw in (
        lambda: g.uniform(5),
        lambda: g.normal(7),
        lambda: g.integers(0, 9, 3),
        lambda: g.permutation(11),
        lambda: g.uniform(),
    ):
        before = g.position
        draw()
        used.append((before, g.position))
        assert g.position > before
    assert all(a[1] == b[0] for a, b in itertools.pairwise(used))


def test_uniform_statistics_and_range():
    u = Generator(0).uniform(200_000, dtype=np.float64)
    assert u.min() >= 0 and u.max() < 1
    n = u.size
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * n)
    counts = np.histogram(u, 100, (0, 1))[0]
    chi2 = ((counts - n / 100) ** 2 / (n / 100)).sum()
    assert 99 - 6 * math.sqrt(198) < chi2 < 99 + 6 * math.sqrt(198)  # six standard deviations
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / math.sqrt(n)
    v = Generator(0).uniform(1000, -3, 5)
    assert v.dtype == np.float32 and -3 <= v.min() < -2.9 and 4.9 < v.max() <= 5


def test_neighbouring_seeds_are_independent():
    draws = np.stack([Generator(s).uniform(5000, dtype=np.float64) for s in range(4)])
    correlation = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlation).max() < 5 / math.sqrt(5000)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100_001])
def test_normal_statistics(count):
    z = Generator(1).normal(count, 2.0, 3.0, dtype=np.float64)
    assert z.shape == (count,) and np.isfinite(z).all()
    if count > 1000:
        assert abs(z.mean() - 2) < 5 * 3 / math.sqrt(count)
        assert abs(z.std() / 3 - 1) < 5 / math.sqrt(2 * count)
        s = (z - 2) / 3
        assert abs((s**3).mean()) < 5 * math.sqrt(15 / count) and abs((s**4).mean() - 3) < 5 * math.sqrt(96 / count)
        assert abs(np.corrcoef(s[: count // 2], s[-(count // 2) :])[0, 1]) < 5 / math.sqrt(
            count / 2
        )  # the cosines, the sines


def test_integers_cover_their_range_evenly():
    n = Generator(2).integers(-3, 4, 70_000)
    assert n.dtype == np.int64 and set(np.unique(n)) == set(range(-3, 4))
    counts = np.bincount(n + 3)
    assert np.abs(counts - 10_000).max() < 6 * math.sqrt(10_000)
    assert Generator(0).integers(0, 2**32, 4).max() < 2**32
    for low, high in ((0, 0), (3, 1), (0, 2**32 + 1)):
        with pytest.raises(ValueError, match="low < high"):
            Generator(0).integers(low, high)


def test_permutations_hold_every_number_once_and_are_even():
    assert np.array_equal(np.sort(Generator(0).permutation(1000)), np.arange(1000))
    firsts = [Generator(s).permutation(4)[0] for s in range(800)]
    assert np.abs(np.bincount(firsts) - 200).max() < 6 * math.sqrt(200)
    assert Generator(0).permutation(0).shape == (0,)


def test_state_can_be_kept_and_put_back():
    minillm.manual_seed(4)
    minillm.rand(3)
    state = minillm.get_rng_state()
    a = minillm.randn(5).numpy()
    minillm.set_rng_state(state)
    assert np.array_equal(minillm.randn(5).numpy(), a)
    assert state[0] == 4
    own = Generator(9)
    b = minillm.randn(5, generator=own).numpy()
    assert np.array_equal(b, Generator(9).normal(5)) and own.position > 0
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match="seed"):
            minillm.manual_seed(seed)


def test_numpys_global_state_is_never_touched():
    before = str(np.random.get_state())
    minillm.manual_seed(1)
    from minillm import functional as F
    from minillm import models, nn

    minillm.rand(3), minillm.randn(3), minillm.randint(0, 5, (3,)), minillm.randperm(5)
    F.dropout(minillm.ones(10), 0.5)
    nn.Linear(3, 4), nn.Embedding(3, 4)
    models.VAE(4, (3,), 2).loss(minillm.rand(2, 4)).backward()
    models.GPT(5, context=4, layers=1, heads=1, width=4).generate([1], 2)
    assert str(np.random.get_state()) == before


def test_every_device_has_the_same_numbers():
    for draw in ("uniform", "normal"):
        a, b = (getattr(Generator(6), draw)((3, 5), device=d) for d in ("cpu", "strict"))
        assert np.array_equal(a, b.get()) and a.dtype == b.dtype == np.float32


def test_shapes_and_dtypes():
    g = Generator(0)
    for shape in ((), 3, (2, 3), (0,), (2, 0)):
        expected = (shape,) if isinstance(shape, int) else shape
        for array in (g.uniform(shape), g.normal(shape), g.integers(0, 3, shape)):
            assert np.shape(array) == expected
    assert g.uniform(3, dtype=np.float64).dtype == g.normal(3, dtype=np.float64).dtype == np.float64
    assert minillm.rand(2, 3).shape == minillm.randn((2, 3)).shape == (2, 3)
