"""Philox: the known answers of its authors, a version in Python integers, and the distributions of the numbers."""

from __future__ import annotations

import math

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import philox_bits, philox_normal, philox_uniform
from minillm import random

KERNEL = "random"  # the folder
SEEDS = st.integers(0, 2**64 - 1)


def philox_in_integers(counter, key):
    """Four words of one counter, a step of the definition at a time."""
    c = [counter % 2**32, counter >> 32, 0, 0]
    k = [key % 2**32, key >> 32]
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [b >> 32 ^ c[1] ^ k[0], b % 2**32, a >> 32 ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "words"),  # from the authors' file of known answers, those with c2 = c3 = 0
    [(0, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])],
)
def test_known_answers(counter, key, words, impl):
    assert philox_bits(4, key, counter, impl=impl).tolist() == words
    assert philox_in_integers(counter, key) == words


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 70), SEEDS, SEEDS)
def test_bits_are_those_of_the_definition(count, seed, position):
    expected = [w for j in range(-(-count // 4)) for w in philox_in_integers((position + j) % 2**64, seed)][:count]
    for impl in ("reference", "cpu"):
        got = philox_bits(count, seed, position, impl=impl)
        assert got.dtype == np.uint32
        assert got.tolist() == expected
        uniform = philox_uniform(count, seed, position, impl=impl)
        assert uniform.tolist() == [(w >> 8) / 2**24 for w in expected]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=3), SEEDS, st.integers(0, 2**63), st.sampled_from(["f2", "f4", "f8"]))
def test_uniform_numbers_are_those_of_the_library_bit_for_bit(shape, seed, position, dtype):
    expected = random.uniform_at(tuple(shape), seed, position, dtype)
    for impl in ("reference",) if dtype == "f2" else ("reference", "cpu"):
        got = philox_uniform(tuple(shape), seed, position, dtype, impl=impl)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_a_large_array_is_the_same_bits_too(dtype, impl):
    expected = random.uniform_at((70_003,), 5, 7, dtype)
    np.testing.assert_array_equal(philox_uniform(70_003, 5, 7, dtype, impl=impl), expected)
    assert philox_bits(70_003, 5, 7, impl=impl).tolist() == random.random_bits(70_003, 5, 7).tolist()


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.integers(0, 50), st.integers(4000, 4200)), SEEDS, st.integers(0, 2**63))
def test_normal_numbers_are_those_of_the_library_up_to_rounding(size, seed, position):
    generator = random.Generator(seed)
    generator.set_state((seed, position))
    expected = generator.normal(size, mean=0.5, std=2.0, dtype=np.float64)
    for impl in ("reference", "cpu"):
        got = philox_normal(size, seed, position, np.float64, mean=0.5, std=2.0, impl=impl)
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-14)  # angles up to 2 pi are rounded by 4e-16
    reference = philox_normal(size, seed, position, np.float64, impl="reference")
    np.testing.assert_allclose(philox_normal(size, seed, position, np.float64, impl="cpu"), reference, atol=1e-14)
    single = philox_normal(size, seed, position, np.float32, mean=0.5, std=2.0, impl="cpu")
    np.testing.assert_allclose(single, expected, rtol=1.2e-7, atol=1e-13)
    assert single.dtype == np.float32


def test_the_extremes_of_the_normal_numbers():
    from kernels.random.normal import box_muller

    ends = [0, 1, 2**32 - 1, 2**32 - 2, 2**31, 2**30, 2**29, 2**29 - 1, 3 * 2**29, 3 * 2**30, 2**31 - 1]
    words, others = (np.array(a, np.uint32).reshape(-1) for a in np.meshgrid(ends, ends))
    first, second = np.empty(words.size), np.empty(words.size)
    box_muller(words, others, first, second, 0.0, 1.0)
    for w, o, x, y in zip(words.tolist(), others.tolist(), first, second):
        u = (w + 0.5) / 2**32
        radius = math.sqrt(-2 * (math.log(u) if u < 0.5 else math.log1p(u - 1)))
        turns = o / 2**32
        assert x == pytest.approx(radius * math.cos(2 * math.pi * turns), rel=1e-14, abs=2e-15)
        assert y == pytest.approx(radius * math.sin(2 * math.pi * turns), rel=1e-14, abs=4e-15)


def test_moments(impl):
    n = 200_000
    u, z = philox_uniform(n, 1, impl=impl).astype(np.float64), philox_normal(n, 1, impl=impl).astype(np.float64)
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert abs((z[: n // 2] * z[n // 2 :]).mean()) < 5 / math.sqrt(n / 2)  # cosines and sines


def test_same_bits_for_any_number_of_threads():
    check.same_for_any_threads(lambda: philox_bits(100_001, 1, 2, impl="cpu"))
    check.same_for_any_threads(lambda: philox_uniform(100_001, 1, 2, impl="cpu"))
    check.same_for_any_threads(lambda: philox_normal(100_001, 1, 2, impl="cpu"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: philox_uniform(3, -1), ValueError, "seed and position are integers from 0 .* got -1 and 0"),
        (lambda: philox_uniform(3, 0, 2**64), ValueError, "got 0 and 18446744073709551616"),
        (lambda: philox_normal((3, -1), 0), ValueError, r"no negative sizes, got \(3, -1\)"),
        (lambda: philox_normal(3, 0, dtype=np.int32), TypeError, "dtype must be a floating one, got int32"),
    ],
)
def test_errors_say_what_was_given(call, error, message):
    with pytest.raises(error, match=message):
        call()
