"""Binary cross-entropy of logits: against probabilities in long doubles, closed forms, finite differences, PyTorch."""

from __future__ import annotations

import math

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import bce_backward, bce_forward


def example(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    logits, targets, dloss = 4 * rng.normal(size=shape), rng.uniform(size=shape), rng.normal(size=shape)
    if targets.size:
        targets.reshape(-1)[::3] = rng.integers(0, 2, targets.reshape(-1)[::3].shape)
    return [np.asarray(a, dtype) for a in (logits, targets, dloss)]


def oracle(x, y, precision):
    """(loss, derivative) from log p and log(1 - p) by logaddexp."""
    x, y = x.astype(precision), y.astype(precision)
    loss = y * np.logaddexp(precision(0), -x) + (1 - y) * np.logaddexp(precision(0), x)
    return loss, (1 + np.tanh(x / 2)) / 2 - y


def check_example(shape, dtype, seed, impl):
    x, y, dloss = example(shape, dtype, seed)
    exact, plain = (oracle(x, y, p) for p in (np.longdouble, dtype.type))
    check.accurate(bce_forward(x, y, impl=impl), exact[0], plain[0], bound=8)
    check.accurate(bce_backward(dloss, x, y, impl=impl), dloss * exact[1], dloss * plain[1], bound=3, factor=3)
    if x.ndim:
        sums = bce_forward(x, y, rows=True, impl=impl)
        check.accurate(sums, exact[0].sum(axis=-1), np.asarray(plain[0].sum(axis=-1)), bound=4 * x.shape[-1] ** 0.5)
        d = np.asarray(np.random.default_rng(seed).normal(size=x.shape[:-1]), dtype)
        got = bce_backward(d, x, y, impl=impl)
        check.accurate(got, d[..., None] * exact[1], d[..., None] * plain[1], bound=3, factor=3)


@pytest.mark.parametrize("shape", [(3, 7, 257), (1, 1), (0, 5), (5, 0), (), (11,), (40, 784)], ids=str)
def test_matches_the_formula(shape, dtype, impl):
    check_example(shape, dtype, 0, impl)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=2), st.integers(0, 600), st.integers(0, 2**31))
def test_matches_the_formula_for_any_shape(shape, N, seed):
    for impl in ("reference", "cpu"):
        check_example((*shape, N), np.dtype(np.float32), seed, impl)


def test_any_strides(layout, dtype, impl):
    x, y, dloss = example((6, 7, 9), dtype)
    calls = [
        (lambda *a: bce_forward(*a, impl=impl), (x, y)),
        (lambda *a: bce_backward(*a, impl=impl), (dloss, x, y)),
        (lambda *a: bce_backward(*a, impl=impl), (dloss[..., 0], x, y)),
    ]
    for f, arguments in calls:
        (got,) = check.pure(f, *map(layout, arguments))
        np.testing.assert_array_equal(got, f(*arguments))
    (got,) = check.pure(lambda *a: bce_forward(*a, rows=True, impl=impl), layout(x), layout(y))
    expected = bce_forward(x, y, rows=True, impl=impl)  # NumPy sums in memory order, so not bitwise
    np.testing.assert_allclose(got, expected, rtol=0, atol=50 * np.finfo(dtype).eps)


def test_gradient_against_finite_differences(impl):
    x, y, dloss = example((5, 6), np.float64)
    numerical = check.central_difference(lambda a: float((dloss * bce_forward(a, y, impl=impl)).sum()), x)
    np.testing.assert_allclose(bce_backward(dloss, x, y, impl=impl), numerical, atol=1e-8)
    d = dloss[:, 0]
    numerical = check.central_difference(lambda a: float((d * bce_forward(a, y, rows=True, impl=impl)).sum()), x)
    np.testing.assert_allclose(bce_backward(d, x, y, impl=impl), numerical, atol=1e-8)


@pytest.mark.parametrize("size", [1, 7, 15, 17, 300])
def test_what_lies_around_the_arrays_does_not_matter(size, dtype):
    x, y, dloss = example((3, size), dtype)
    check.ignores_surroundings(lambda *a: bce_forward(*a, impl="cpu"), x, y)
    check.ignores_surroundings(lambda *a: bce_forward(*a, rows=True, impl="cpu"), x, y)
    check.ignores_surroundings(lambda *a: bce_backward(*a, impl="cpu"), dloss, x, y)
    check.ignores_surroundings(lambda *a: bce_backward(*a, impl="cpu"), dloss[:, 0].copy(), x, y)


def test_same_bits_for_any_number_of_threads():
    x, y, dloss = example((101, 1001), np.float32)
    for rows in (True, False):
        check.same_for_any_threads(lambda rows=rows: bce_forward(x, y, rows=rows, impl="cpu"))
    check.same_for_any_threads(lambda: bce_backward(dloss, x, y, impl="cpu"))
    check.same_for_any_threads(lambda: bce_backward(dloss[:, 0], x, y, impl="cpu"))


def test_large_logits_without_warnings(dtype, impl):
    x = np.array([1000, -1000, 1000, -1000, 1e30, -1e30, 0], dtype)
    y = np.array([1, 0, 0, 1, 0.5, 0.5, 0.5], dtype)
    expected = np.array([0, 0, 1000, 1000, 0.5e30, 0.5e30, math.log(2)], dtype)
    np.testing.assert_allclose(bce_forward(x, y, impl=impl), expected, rtol=1e-6)
    np.testing.assert_array_equal(bce_backward(np.ones_like(x), x, y, impl=impl), [0, 0, 1, -1, 0.5, -0.5, 0])
    nan = np.array([np.nan], dtype)
    assert np.isnan(bce_forward(nan, nan * 0 + 1, impl=impl)).all()
    assert np.isnan(bce_forward(np.ones(1, dtype), nan, rows=True, impl=impl)).all()


def test_small_losses_keep_their_digits(dtype, impl):
    x = np.linspace(1, 80, 500).astype(dtype)
    exact = np.log1p(np.exp(-x.astype(np.longdouble)))
    got = bce_forward(-x, np.zeros_like(x), impl=impl)
    np.testing.assert_allclose(got, exact, rtol=6 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: bce_forward(x, x[:1]), ValueError, r"targets has shape \(1, 3\), expected \(2, 3\)"),
        (lambda x: bce_forward(x, x.astype(int)), TypeError, "targets is int64 but logits is float64"),
        (lambda x: bce_forward(np.ones(()), np.ones(()), rows=True), ValueError, "rows=True sums"),
        (lambda x: bce_backward(x[0], x, x), ValueError, r"dloss has shape \(3,\), expected \(2, 3\) .* or \(2,\)"),
    ],
)
def test_errors_say_what_was_given(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((2, 3)))


@pytest.mark.oracle
def test_agrees_with_pytorch(dtype, impl):
    torch = pytest.importorskip("torch")
    x, y, dloss = example((7, 65), dtype)
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(tensor, torch.tensor(y), reduction="none")
    (grad,) = torch.autograd.grad(expected, tensor, torch.tensor(dloss))
    atol = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(bce_forward(x, y, impl=impl), expected.detach().numpy(), rtol=0, atol=atol)
    np.testing.assert_allclose(bce_backward(dloss, x, y, impl=impl), grad.numpy(), rtol=0, atol=atol)
