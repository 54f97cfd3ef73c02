"""All parameters in one buffer, decay by segment, and the norm of a gradient: against steps by hand and math.fsum."""

from __future__ import annotations

import math

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import adamw_flat, adamw_step, global_norm
from kernels.adamw import clip_factor

KERNEL = "adamw"  # the folder; the norm is beside it
HYPER = {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "step": 3}


def example(size, dtype, seed=0):
    rng = np.random.default_rng(seed)
    param, grad, exp_avg = (rng.normal(size=size).astype(dtype) for _ in range(3))
    return param, grad, exp_avg, rng.uniform(size=size).astype(dtype)


def flat(arrays, **kw):
    """(param, exp_avg, exp_avg_sq) after a step on copies."""
    param, grad, exp_avg, exp_avg_sq = (a.copy() for a in arrays)
    assert adamw_flat(param, grad, exp_avg, exp_avg_sq, **HYPER, **kw) is None
    np.testing.assert_array_equal(grad, arrays[1])
    return param, exp_avg, exp_avg_sq


def by_hand(arrays, segments, scale, decoupled, impl):
    """The same by a call of adamw_step for each segment and each gap."""
    arrays = [a.copy() for a in arrays]
    at = 0
    for start, stop, decay in [*segments, (arrays[0].size, arrays[0].size, 0.0)]:
        for a, b, d in ((at, start, 0.0), (start, stop, decay)):
            part = [x[a:b] for x in arrays]
            adamw_step(*part, **HYPER, weight_decay=d, grad_scale=scale, decoupled=decoupled, impl=impl)
        at = stop
    return arrays[0], arrays[2], arrays[3]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 200), st.lists(st.integers(0, 200), max_size=6), st.booleans(), st.integers(0, 2**31))
def test_segments_are_steps_of_their_own(size, cuts, decoupled, seed):
    arrays = example(size, np.float32, seed)
    cuts = sorted(min(c, size) for c in cuts)[: len(cuts) // 2 * 2]
    segments = [(a, b, 0.1 * (i + 1)) for i, (a, b) in enumerate(zip(cuts[::2], cuts[1::2]))]
    for impl in ("reference", "cpu"):
        got = flat(arrays, weight_decay=segments, scale=0.3, decoupled=decoupled, impl=impl)
        for a, b in zip(got, by_hand(arrays, segments, 0.3, decoupled, impl), strict=True):
            np.testing.assert_array_equal(a, b)  # the same bits


def test_every_implementation_agrees_on_a_large_buffer(dtype):
    arrays = example(50_021, dtype)
    segments = ((5, 20_000, 0.1), (20_000, 20_001, 3.0), (33_333, 50_021, 0.2))
    expected = flat(arrays, weight_decay=segments, scale=0.3, impl="reference")
    for a, b in zip(flat(arrays, weight_decay=segments, scale=0.3, impl="cpu"), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=32 * np.finfo(dtype).eps)  # values up to about 4


def test_one_number_decays_everything(dtype, impl):
    arrays = example(37, dtype)
    for a, b in zip(flat(arrays, weight_decay=0.1, impl=impl), flat(arrays, weight_decay=[(0, 37, 0.1)], impl=impl)):
        np.testing.assert_array_equal(a, b)


def test_nothing_around_the_buffers_is_touched(dtype):
    arrays = example(41, dtype)
    framed = [np.full(41 + 32, np.nan, dtype) for _ in arrays]
    for frame, a in zip(framed, arrays):
        frame[16:-16] = a
    adamw_flat(*(f[16:-16] for f in framed), **HYPER, weight_decay=[(3, 7, 0.1)], impl="cpu")
    for frame, a in zip((framed[0], *framed[2:]), flat(arrays, weight_decay=[(3, 7, 0.1)], impl="cpu")):
        np.testing.assert_array_equal(frame[16:-16], a)
        assert np.isnan(frame[:16]).all() and np.isnan(frame[-16:]).all()


def test_same_bits_for_any_number_of_threads(dtype):
    arrays = example(100_003, dtype)
    check.same_for_any_threads(lambda: flat(arrays, weight_decay=[(7, 70_001, 0.1)], impl="cpu"))
    check.same_for_any_threads(lambda: np.array([global_norm(arrays[0], impl="cpu")]))


@pytest.mark.parametrize(
    ("decay", "message"),
    [
        ([(0, 3, 0.1), (2, 5, 0.1)], r"segment \(2, 5, 0.1\) must lie within 3 .. 6"),
        ([(0, 7, 0.1)], r"segment \(0, 7, 0.1\) must lie within 0 .. 6"),
        ([(4, 3, 0.1)], "rising order"),
        ([(4, 3)], r"is \(start, stop, decay\), got \(4, 3\)"),
    ],
)
def test_segments_that_do_not_fit_are_errors(decay, message):
    with pytest.raises(ValueError, match=message):
        flat(example(6, np.float64), weight_decay=decay)


def test_a_buffer_is_flat():
    with pytest.raises(ValueError, match=r"param has shape \(2, 3\), expected \(N,\)"):
        adamw_flat(*np.ones((4, 2, 3)), **HYPER)


# ------------------------------------------------------------------------------------------------ norm


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=3), st.floats(-30, 30), st.integers(0, 2**31))
def test_the_norm_of_any_shape(shape, exponent, seed):
    x = (np.random.default_rng(seed).normal(size=shape) * 10.0**exponent).astype(np.float32)
    exact = math.sqrt(math.fsum(float(v) ** 2 for v in x.flat))
    for impl in ("reference", "cpu"):
        got = global_norm(np.asarray(x), impl=impl)
        assert type(got) is float
        assert got == pytest.approx(exact, rel=1e-14, abs=0)


def test_the_norm_of_a_large_array_of_any_strides(layout, dtype, impl):
    x = np.random.default_rng(0).normal(size=(200, 301)).astype(dtype)
    exact = math.sqrt(math.fsum(float(v) ** 2 for v in x.flat))
    assert global_norm(layout(x), impl=impl) == pytest.approx(exact, rel=1e-13)


def test_squares_out_of_range(impl):
    for size in (1e200, 1e-200, 1e-310):
        assert global_norm(np.full(4, size), impl=impl) == pytest.approx(2 * size, rel=1e-12)
    assert global_norm(np.full(4, 3e38, np.float32), impl=impl) == pytest.approx(6e38, rel=1e-6)
    assert global_norm(np.full(4, 1e-45, np.float32), impl=impl) == pytest.approx(2 * float(np.float32(1e-45)))


def test_the_norm_of_nothing_of_zeros_of_inf_and_of_nan(dtype, impl):
    for values, expected in (([], 0), ([0, 0], 0), ([1, -np.inf], np.inf), ([np.inf, np.nan], np.nan)):
        np.testing.assert_equal(global_norm(np.array(values, dtype), impl=impl), float(expected))


def test_the_clip_factor():
    assert clip_factor(0.5, 1.0) == 1.0
    assert clip_factor(4.0, 1.0) == pytest.approx(0.25, rel=1e-6)
    assert clip_factor(math.inf, 1.0) == 0.0
    assert math.isnan(clip_factor(math.nan, 1.0))
    with pytest.raises(ValueError, match="limit of the norm must be 0 or more, got -1"):
        clip_factor(1.0, -1)
