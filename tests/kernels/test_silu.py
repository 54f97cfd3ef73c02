"""SiLU and SwiGLU: against the formula in long doubles, finite differences, limits and PyTorch."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import silu_backward, silu_forward, swiglu_backward, swiglu_forward


def example(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray((scale * rng.normal(size=shape)).astype(dtype)) for scale in (4, 1, 1)]  # gate, up, dout


def oracle(x, precision):
    """silu and its derivative by tanh, which shares nothing with the kernels' exponentials."""
    x = x.astype(precision)
    s = (1 + np.tanh(x / 2)) / 2
    return x * s, s * (1 + x * (1 - np.tanh(x / 2)) / 2)


def check_example(shape, dtype, seed, impl):
    x, up, dout = example(shape, dtype, seed)
    (silu, slope), (plain, plain_slope) = oracle(x, np.longdouble), oracle(x, dtype.type)
    check.accurate(silu_forward(x, impl=impl), silu, plain, bound=4)
    check.accurate(silu_backward(dout, x, impl=impl), dout * slope, dout * plain_slope, bound=4, factor=3)
    check.accurate(swiglu_forward(x, up, impl=impl), silu * up, plain * up, bound=8)
    dgate, dup = swiglu_backward(dout, x, up, impl=impl)
    check.accurate(dgate, dout * up * slope, dout * up * plain_slope, bound=8, factor=3)
    check.accurate(dup, dout * silu, dout * plain, bound=8, factor=3)


@pytest.mark.parametrize("shape", [(3, 7, 257), (1, 1), (0, 5), (), (11,), (3, 9001)], ids=str)
def test_matches_the_formula(shape, dtype, impl):
    check_example(shape, dtype, 0, impl)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=3), st.integers(0, 2**31))
def test_matches_the_formula_for_any_shape(shape, seed):
    for impl in ("reference", "cpu"):
        check_example(shape, np.dtype(np.float32), seed, impl)


def test_any_strides(layout, dtype, impl):
    x, up, dout = example((6, 7, 9), dtype)
    for f, arguments in (
        (silu_forward, (x,)), (silu_backward, (dout, x)),
        (swiglu_forward, (x, up)), (swiglu_backward, (dout, x, up)),
    ):  # fmt: skip
        expected = f(*arguments, impl=impl)
        got = check.pure(lambda *a, f=f: f(*a, impl=impl), *map(layout, arguments))
        for a, b in zip(got, expected if isinstance(expected, tuple) else (expected,), strict=True):
            np.testing.assert_array_equal(a, b)


def test_gradients_against_finite_differences(impl):
    x, up, dout = example((5, 6), np.float64)
    numerical = check.central_difference(lambda a: float((dout * silu_forward(a, impl=impl)).sum()), x)
    np.testing.assert_allclose(silu_backward(dout, x, impl=impl), numerical, atol=1e-8)
    dgate, dup = swiglu_backward(dout, x, up, impl=impl)
    numerical = check.central_difference(lambda a: float((dout * swiglu_forward(a, up, impl=impl)).sum()), x)
    np.testing.assert_allclose(dgate, numerical, atol=1e-8)
    numerical = check.central_difference(lambda a: float((dout * swiglu_forward(x, a, impl=impl)).sum()), up)
    np.testing.assert_allclose(dup, numerical, atol=1e-8)


@pytest.mark.parametrize("size", [1, 7, 15, 17, 100])
def test_what_lies_around_the_arrays_does_not_matter(size, dtype):
    x, up, dout = example(size, dtype)
    check.ignores_surroundings(lambda a: silu_forward(a, impl="cpu"), x)
    check.ignores_surroundings(lambda *a: silu_backward(*a, impl="cpu"), dout, x)
    check.ignores_surroundings(lambda *a: swiglu_forward(*a, impl="cpu"), x, up)
    check.ignores_surroundings(lambda *a: swiglu_backward(*a, impl="cpu"), dout, x, up)


def test_same_bits_for_any_number_of_threads():
    x, up, dout = example(100_003, np.float32)
    check.same_for_any_threads(lambda: silu_forward(x, impl="cpu"))
    check.same_for_any_threads(lambda: silu_backward(dout, x, impl="cpu"))
    check.same_for_any_threads(lambda: swiglu_forward(x, up, impl="cpu"))
    check.same_for_any_threads(lambda: swiglu_backward(dout, x, up, impl="cpu"))


def test_limits_without_warnings(dtype, impl):
    largest = np.finfo(dtype).max
    x = np.array([-np.inf, -largest, -1e38, -1000, 0, 1000, 1e38, largest, np.inf], dtype)
    np.testing.assert_array_equal(silu_forward(x, impl=impl), np.maximum(x, 0))
    np.testing.assert_array_equal(silu_backward(np.full_like(x, 2), x, impl=impl), 2.0 * (x > 0) + (x == 0))
    nan = np.array([np.nan], dtype)
    assert np.isnan(silu_forward(nan, impl=impl)).all()
    assert np.isnan(silu_backward(np.ones(1, dtype), nan, impl=impl)).all()
    assert all(np.isnan(g).all() for g in swiglu_backward(np.ones(1, dtype), nan, nan, impl=impl))


def test_the_left_tail_keeps_its_digits(dtype, impl):
    x = np.linspace(-80, -0.1, 1001).astype(dtype)
    wide = x.astype(np.longdouble)
    exact = wide / (1 + np.exp(-wide))
    np.testing.assert_allclose(silu_forward(x, impl=impl), exact, rtol=5 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: silu_backward(x[:1], x), ValueError, r"dout has shape \(1,\), expected \(3,\)"),
        (lambda x: swiglu_forward(x, x[:1]), ValueError, r"up has shape \(1,\), expected \(3,\), that of gate"),
        (lambda x: silu_forward(x.astype(np.int32)), TypeError, "floating dtype, got int32"),
        (lambda x: swiglu_backward(x, x, x.astype(np.float64)), TypeError, "up is float64 but gate is float32"),
    ],
)
def test_errors_say_what_was_given(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones(3, np.float32))


@pytest.mark.oracle
def test_agrees_with_pytorch(dtype, impl):
    torch = pytest.importorskip("torch")
    x, up, dout = example((3, 7, 65), dtype)
    gate, other = (torch.tensor(a, requires_grad=True) for a in (x, up))
    expected = torch.nn.functional.silu(gate) * other
    grads = torch.autograd.grad(expected, (gate, other), torch.tensor(dout))
    atol = 50 * np.finfo(dtype).eps  # products up to about 40
    np.testing.assert_allclose(swiglu_forward(x, up, impl=impl), expected.detach().numpy(), rtol=0, atol=atol)
    for a, b in zip(swiglu_backward(dout, x, up, impl=impl), grads, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=atol)
