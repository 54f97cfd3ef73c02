"""GELU and erf: against the standard library's erf, finite differences, limits and PyTorch."""

from __future__ import annotations

import math

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import erf, erfc, gelu_backward, gelu_forward
from kernels.numba_math import exp

BOTH = pytest.mark.parametrize("approximate", ["none", "tanh"])


def example(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (3 * rng.normal(size=shape)).astype(dtype), rng.normal(size=shape).astype(dtype)


def oracle(x, approximate, precision):
    """(out, derivative); the erf of the standard library is good to float64, which bounds the exactness of "none"."""
    x = x.astype(precision)
    if approximate == "none":
        phi = (1 + np.reshape([math.erf(float(v) / math.sqrt(2)) for v in x.flat], x.shape).astype(precision)) / 2
        slope = np.exp(-(x**2) / 2) / np.sqrt(2 * precision(math.pi))
    else:
        k = np.sqrt(2 / precision(math.pi))
        u = k * (x + precision(0.044715) * x**3)
        phi = (1 + np.tanh(u)) / 2
        slope = k * (1 + 3 * precision(0.044715) * x**2) * (1 - np.tanh(u)) * (1 + np.tanh(u)) / 2
    return x * phi, phi + x * slope


def check_example(x, dout, approximate, impl):
    exact, plain = (oracle(x, approximate, p) for p in (np.longdouble, x.dtype.type))
    check.accurate(gelu_forward(x, approximate, impl=impl), exact[0], plain[0], bound=3)
    dx = gelu_backward(dout, x, approximate, impl=impl)
    check.accurate(dx, dout * exact[1], dout * plain[1], bound=10, factor=3)


@BOTH
@pytest.mark.parametrize("shape", [(3, 7, 257), (1, 1), (0, 5), (), (11,)], ids=str)
def test_matches_the_formula(shape, dtype, approximate, impl):
    check_example(*(np.asarray(a) for a in example(shape, dtype)), approximate, impl)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=3), st.sampled_from(["none", "tanh"]), st.integers(0, 2**31))
def test_matches_the_formula_for_any_shape(shape, approximate, seed):
    for impl in ("reference", "cpu"):
        check_example(*(np.asarray(a) for a in example(shape, np.float32, seed)), approximate, impl)


@BOTH
def test_any_strides(layout, dtype, approximate, impl):
    x, dout = example((6, 7, 9), dtype)
    (out,) = check.pure(lambda a: gelu_forward(a, approximate, impl=impl), layout(x))
    np.testing.assert_array_equal(out, gelu_forward(x, approximate, impl=impl))
    (dx,) = check.pure(lambda a, b: gelu_backward(a, b, approximate, impl=impl), layout(dout), layout(x))
    np.testing.assert_array_equal(dx, gelu_backward(dout, x, approximate, impl=impl))


@BOTH
def test_gradient_against_finite_differences(approximate, impl):
    x, dout = example((5, 6), np.float64)
    numerical = check.central_difference(lambda a: float((dout * gelu_forward(a, approximate, impl=impl)).sum()), x)
    np.testing.assert_allclose(gelu_backward(dout, x, approximate, impl=impl), numerical, atol=1e-8)


@BOTH
@pytest.mark.parametrize("size", [1, 15, 17, 100])
def test_what_lies_around_the_arrays_does_not_matter(size, dtype, approximate):
    x, dout = example((size,), dtype)
    check.ignores_surroundings(lambda a: gelu_forward(a, approximate, impl="cpu"), x)
    check.ignores_surroundings(lambda a, b: gelu_backward(a, b, approximate, impl="cpu"), dout, x)


@BOTH
def test_same_bits_for_any_number_of_threads(approximate):
    x, dout = example((100_003,), np.float32)
    check.same_for_any_threads(lambda: gelu_forward(x, approximate, impl="cpu"))
    check.same_for_any_threads(lambda: gelu_backward(dout, x, approximate, impl="cpu"))


@BOTH
def test_limits_without_warnings(dtype, approximate, impl):
    largest = np.finfo(dtype).max
    x = np.array([-np.inf, -largest, -1e38, -41, 0, 41, 1e38, largest, np.inf], dtype)
    out = gelu_forward(x, approximate, impl=impl)
    np.testing.assert_array_equal(out, np.maximum(x, 0))
    dx = gelu_backward(np.full_like(x, 2), x, approximate, impl=impl)
    np.testing.assert_array_equal(dx, 2.0 * (x > 0) + (x == 0))
    nan = np.array([np.nan], dtype)
    assert np.isnan(gelu_forward(nan, approximate, impl=impl)).all()
    assert np.isnan(gelu_backward(np.ones(1, dtype), nan, approximate, impl=impl)).all()


def test_the_left_tail_keeps_its_digits(impl):
    x = np.array([-4.0, -6.0, -9.0])  # 1 + erf(x / sqrt(2)) has no correct digit left at -9
    exact = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(gelu_forward(x, impl=impl), exact, rtol=1e-13)


def test_the_left_tail_of_float32_is_relatively_accurate():
    for low, rtol in ((-5, 1e-5), (-6, 4e-5), (-9, 2e-3)):  # 1 + erf(x / sqrt(2)) in float32 is 0 from -5.5 on
        x = np.linspace(low, -0.01, 2001, dtype=np.float32)
        exact = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.tolist()]
        np.testing.assert_allclose(gelu_forward(x, impl="cpu"), exact, rtol=rtol)


@BOTH
def test_at_zero(dtype, approximate, impl):
    zero = np.zeros(1, dtype)
    assert gelu_forward(zero, approximate, impl=impl) == 0
    assert gelu_backward(zero + 1, zero, approximate, impl=impl) == 0.5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: gelu_forward(x, "sigmoid"), ValueError, "approximate must be .* got 'sigmoid'"),
        (lambda x: gelu_backward(x[:1], x), ValueError, r"dout has shape \(1,\), expected \(3,\)"),
        (lambda x: gelu_backward(x.astype(np.float64), x), TypeError, "dout is float64 but x is float32"),
        (lambda x: gelu_forward(x.astype(np.int32)), TypeError, "floating dtype, got int32"),
    ],
)
def test_errors_say_what_was_given(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones(3, np.float32))


@pytest.mark.parametrize("function", [erf, erfc])
def test_erf_and_erfc_match_the_standard_library(function, dtype):
    ranges = [np.linspace(-30, 26, 20_001), [-0.46875, 0.46875, 4, -4, 0, 1e-300, 1e-20], np.linspace(0.4, 0.5, 1001)]
    x = np.concatenate(ranges).astype(dtype)
    exact = np.array([getattr(math, function.__name__)(v) for v in x.tolist()])
    got = function(x)
    assert got.dtype == dtype
    normal = abs(exact) > np.finfo(dtype).tiny
    # The C library's own error in erfc reaches a few eps in its tail, where erfc(x) magnifies x by 2 x^2.
    np.testing.assert_allclose(got[normal], exact[normal], rtol=max(np.finfo(dtype).eps, 2e-14))
    assert (abs(got[~normal]) <= np.finfo(dtype).tiny).all()


def test_erf_at_the_ends(dtype):
    x = np.array([-np.inf, -np.finfo(dtype).max, 0, np.finfo(dtype).max, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(erf(x), [-1, -1, 0, 1, 1, np.nan])
    np.testing.assert_array_equal(erfc(x), [2, 2, 1, 0, 0, np.nan])
    assert erf(x[2].reshape(())).shape == ()


def test_exp_of_the_numba_kernels_matches_the_standard_library():
    x = np.concatenate([np.linspace(-708, 709, 5001), np.linspace(-1, 1, 1001)]).tolist()
    np.testing.assert_allclose([exp(v) for v in x], [math.exp(v) for v in x], rtol=2 * np.finfo(float).eps)
    ends = [-np.inf, -1e300, -709, -0.0, 710, 1e300, np.inf, np.nan]
    np.testing.assert_array_equal([exp(v) for v in ends], [0, 0, 0, 1, np.inf, np.inf, np.inf, np.nan])


@pytest.mark.oracle
@BOTH
def test_agrees_with_pytorch(dtype, approximate, impl):
    torch = pytest.importorskip("torch")
    x, dout = example((3, 7, 65), dtype)
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.gelu(tensor, approximate=approximate)
    (grad,) = torch.autograd.grad(expected, tensor, torch.tensor(dout))
    atol = 100 * np.finfo(dtype).eps  # |x| <= 12; PyTorch's 1 - tanh^2 is multiplied by up to 0.1 x^3
    np.testing.assert_allclose(gelu_forward(x, approximate, impl=impl), expected.detach().numpy(), rtol=0, atol=atol)
    np.testing.assert_allclose(gelu_backward(dout, x, approximate, impl=impl), grad.numpy(), rtol=0, atol=atol)
