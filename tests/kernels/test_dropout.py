"""Dropout: the mask of the library's uniform numbers, bit for bit, the same in both passes, on any layout."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import dropout_backward, dropout_forward
from minillm import random

BOTH = pytest.mark.parametrize("f", [dropout_forward, dropout_backward])


def example(shape, dtype, seed=0):
    return np.asarray(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def check_example(f, shape, dtype, p, seed, position, impl):
    x = example(shape, dtype)
    kept = random.uniform_at(x.shape, seed, position) >= p
    got = f(x, p, seed, position, impl=impl)
    share = 1 - p if p < 1 else 1
    exact = np.where(kept, x.astype(np.longdouble) / share, 0)
    np.testing.assert_array_equal(got != 0, kept & (x != 0))
    plain = np.where(kept, x / dtype.type(share), 0).astype(dtype)
    check.accurate(got, exact, plain, bound=np.abs(x).max(initial=0) / share)


@BOTH
@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), max_size=3),
    p=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.999, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**63),
)
def test_the_mask_is_that_of_the_uniform_numbers(f, shape, p, seed, position):
    for impl in ("reference", "cpu"):
        check_example(f, tuple(shape), np.dtype(np.float32), p, seed, position, impl)


@BOTH
@pytest.mark.parametrize("shape", [(3, 7, 257), (70_003,), (1,), (0, 5), ()], ids=str)
def test_large_and_small_shapes(f, shape, dtype, impl):
    check_example(f, shape, dtype, 0.3, 2**64 - 1, 2**32 - 5, impl)


@BOTH
def test_a_probability_between_two_steps_of_the_uniform_numbers(f, impl):
    u = random.uniform_at((5000,), 3, 4)
    for p in (float(u[7]), float(np.nextafter(u[7], 1)), float(u[7]) + 1e-12, 2.0**-24, 1e-30, 1 - 2.0**-24):
        kept = f(np.ones(5000, np.float32), p, 3, 4, impl=impl) != 0
        np.testing.assert_array_equal(kept, u >= p)


@BOTH
def test_any_strides(f, layout, dtype, impl):
    x = example((6, 7, 9), dtype)
    (out,) = check.pure(lambda a: f(a, 0.4, 1, 2, impl=impl), layout(x))
    np.testing.assert_array_equal(out, f(x, 0.4, 1, 2, impl=impl))


@BOTH
@pytest.mark.parametrize("size", [1, 15, 17, 2047, 2051])
def test_what_lies_around_the_array_does_not_matter(f, size, dtype):
    check.ignores_surroundings(lambda a: f(a, 0.4, 1, 2, impl="cpu"), example(size, dtype))


@BOTH
def test_same_bits_for_any_number_of_threads(f):
    check.same_for_any_threads(lambda: f(example((100_003,), np.float32), 0.4, 1, 2, impl="cpu"))


def test_what_is_dropped_is_zero_whatever_it_was(dtype, impl):
    x = np.full(1000, np.nan, dtype)
    out = dropout_forward(x, 0.5, 0, impl=impl)
    np.testing.assert_array_equal(np.isnan(out), random.uniform_at((1000,), 0, 0) >= 0.5)
    assert (out[~np.isnan(out)] == 0).all()
    assert not dropout_forward(x, 1.0, 0, impl=impl).any()


def test_the_expectation_stays(impl):
    out = dropout_forward(np.ones(100_000, np.float32), 0.3, 5, impl=impl)
    assert abs(out.mean(dtype=np.float64) - 1) < 5 * np.sqrt(0.3 / 0.7 / 100_000)


@BOTH
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones(3), 1.5, 0), ValueError, "p is the probability of a zero, from 0 to 1; got 1.5"),
        ((np.ones(3), float("nan"), 0), ValueError, "got nan"),
        ((np.ones(3), 0.5, -1), ValueError, "seed and position are integers from 0"),
        ((np.ones(3, int), 0.5, 0), TypeError, "floating dtype, got int64"),
        (([1.0], 0.5, 0), TypeError, "x must be an array, got list"),
    ],
)
def test_errors_say_what_was_given(f, arguments, error, message):
    with pytest.raises(error, match=message):
        f(*arguments)
