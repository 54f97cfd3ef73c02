"""Softmax and log-softmax: against the formula in extended precision, finite differences and PyTorch."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward


def example(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (3 * rng.normal(size=shape)).astype(dtype), rng.normal(size=shape).astype(dtype)


def oracle(x, precision):
    """(p, log p), from sums of exp(x_j - x_i): no maximum is subtracted, and p_i stands in no other's place."""
    x = x.astype(precision)
    if x.size == 0:
        return x, x
    log_p = -np.log(np.exp(x[..., None, :] - x[..., :, None]).sum(axis=-1))
    return np.exp(log_p), log_p


def oracle_backward(dout, out, precision):
    """With the Jacobians written out: dp_i/dx_j = p_i (delta_ij - p_j), and d log p_i / dx_j = delta_ij - p_j."""
    dout, (p, _) = dout.astype(precision), out
    eye = np.eye(p.shape[-1], dtype=precision)
    log_jacobian = eye - p[..., None, :]  # (..., i, j)
    return (
        np.einsum("...i,...ij->...j", dout, p[..., None] * log_jacobian),
        np.einsum("...i,...ij->...j", dout, log_jacobian),
    )


def check_example(x, dout, impl):
    outs = softmax_forward(x, impl=impl), log_softmax_forward(x, impl=impl)
    exact, plain = (oracle(x, p) for p in (np.longdouble, x.dtype.type))
    for got, e, p, bound in zip(outs, exact, plain, (1, 20), strict=True):
        check.accurate(got, e, p, bound=bound)
    grads = softmax_backward(dout, outs[0], impl=impl), log_softmax_backward(dout, outs[1], impl=impl)
    exact, plain = (oracle_backward(dout, tuple(o.astype(p) for o in (outs[0], outs[0])), p)
                    for p in (np.longdouble, x.dtype.type))  # fmt: skip
    size = max(1.0, float(abs(dout).sum(axis=-1).max(initial=0)))
    for got, e, p in zip(grads, exact, plain, strict=True):
        check.accurate(got, e, p, bound=size, factor=3)


@pytest.mark.parametrize("shape", [(3, 7, 257), (1, 1), (0, 5), (5,), (70, 3), (2, 0, 4), (9, 65), (40, 16)], ids=str)
def test_matches_the_formula(shape, dtype, impl):
    check_example(*example(shape, dtype), impl)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=2), st.integers(1, 150), st.integers(0, 2**31))
def test_matches_the_formula_for_any_shape(rows, N, seed):
    for impl in ("reference", "cpu"):
        check_example(*example((*rows, N), np.float32, seed), impl)


def test_rows_of_a_vocabulary(dtype, impl):
    x, dout = example((2, 50_257), dtype)
    wide = x.astype(np.longdouble)
    e = np.exp(wide)
    p = e / e.sum(axis=1, keepdims=True)
    eps = np.finfo(dtype).eps
    out = softmax_forward(x, impl=impl)
    np.testing.assert_allclose(out, p, rtol=16 * eps)  # x - max is off by eps / 2 * 24, exp by 2 ulp
    np.testing.assert_allclose(log_softmax_forward(x, impl=impl), np.log(p), rtol=0, atol=24 * eps)
    dx = softmax_backward(dout, out, impl=impl)
    exact = out * (dout - (out.astype(np.longdouble) * dout).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(dx, exact, rtol=0, atol=8 * eps * p.max())


def test_any_strides(layout, dtype, impl):
    x, dout = example((6, 7, 19), dtype)
    for forward, backward in ((softmax_forward, softmax_backward), (log_softmax_forward, log_softmax_backward)):
        expected = forward(x, impl=impl)
        (got,) = check.pure(lambda a, f=forward: f(a, impl=impl), layout(x))
        np.testing.assert_allclose(got, expected, rtol=0, atol=20 * np.finfo(dtype).eps)  # NumPy: in memory order
        (got,) = check.pure(lambda a, b, f=backward: f(a, b, impl=impl), layout(dout), layout(expected))
        exact = backward(dout, expected, impl=impl)
        np.testing.assert_allclose(got, exact, rtol=0, atol=50 * np.finfo(dtype).eps)


def test_nothing_but_the_row_counts(dtype):
    """A row alone gives the bits that it gives among others, whatever stands before and behind it."""
    x, dout = example((11, 37), dtype)
    around = np.full((13, 37), np.nan, dtype)
    around[1:-1] = x
    for forward in (softmax_forward, log_softmax_forward):
        whole = forward(x, impl="cpu")
        np.testing.assert_array_equal(forward(around, impl="cpu")[1:-1], whole)
        for i in range(11):
            np.testing.assert_array_equal(forward(around[i + 1], impl="cpu"), whole[i])


def test_gradients_against_finite_differences(impl):
    x, dout = example((4, 5), np.float64)
    for forward, backward in ((softmax_forward, softmax_backward), (log_softmax_forward, log_softmax_backward)):
        dx = backward(dout, forward(x, impl=impl), impl=impl)
        numerical = check.central_difference(lambda a, f=forward: float((dout * f(a, impl=impl)).sum()), x)
        np.testing.assert_allclose(dx, numerical, atol=1e-8)


@pytest.mark.parametrize("shape", [(1, 40_000), (700, 33), (3, 5)], ids=str)
def test_same_bits_for_any_number_of_threads(shape):
    x, dout = example(shape, np.float32)
    for forward, backward in ((softmax_forward, softmax_backward), (log_softmax_forward, log_softmax_backward)):
        out = forward(x, impl="cpu")
        check.same_for_any_threads(lambda f=forward: f(x, impl="cpu"))
        check.same_for_any_threads(lambda f=backward, o=out: f(dout, o, impl="cpu"))


def test_large_and_masked_logits(dtype, impl):
    x = np.array([[1e4, 1e4, 0], [-1e4, -np.inf, -1e4], [3e38, -3e38, 0]], dtype)
    np.testing.assert_array_equal(softmax_forward(x, impl=impl), [[0.5, 0.5, 0], [0.5, 0, 0.5], [1, 0, 0]])
    log_p = log_softmax_forward(x[:2], impl=impl)
    half = np.log(0.5)
    np.testing.assert_allclose(log_p, [[half, half, half - 1e4], [half, -np.inf, half]], rtol=1e-6)
    dx = log_softmax_backward(np.ones_like(log_p), log_p, impl=impl)
    np.testing.assert_allclose(dx, [[-0.5, -0.5, 1], [-0.5, 1, -0.5]], atol=1e-6)


@pytest.mark.parametrize("N", [1, 3, 16, 50, 200])
def test_rows_without_a_right_answer_are_nan(dtype, impl, N):
    rows = np.zeros((4, N), dtype)
    rows[0], rows[1, N // 2], rows[2, -1] = -np.inf, np.nan, np.inf
    for forward in (softmax_forward, log_softmax_forward):
        with np.errstate(invalid="ignore"):  # inf - inf
            out = forward(rows, impl=impl)
        assert np.isnan(out[:3]).any(axis=1).all()
        assert np.isnan(out[:2]).all()
        assert np.isfinite(out[3]).all()


def test_a_number_alone_is_a_row_of_one(impl):
    assert softmax_forward(np.array(3.0), impl=impl) == 1
    assert log_softmax_forward(np.array(3.0), impl=impl) == 0
    assert softmax_backward(np.array(2.0), np.array(1.0), impl=impl) == 0


def test_errors_say_what_was_given():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(TypeError, match="floating dtype, got int64"):
        softmax_forward(np.ones((2, 3), np.int64))
    with pytest.raises(TypeError, match="x must be an array, got list"):
        log_softmax_forward([1.0])
    with pytest.raises(ValueError, match=r"dout has shape \(3,\), expected \(2, 3\)"):
        softmax_backward(x[0], x)
    with pytest.raises(TypeError, match="dout is float64 but out is float32"):
        log_softmax_backward(x.astype(float), x)


@pytest.mark.oracle
def test_agrees_with_pytorch(dtype, impl):
    torch = pytest.importorskip("torch")
    x, dout = example((3, 7, 65), dtype)
    atol = 20 * np.finfo(dtype).eps
    for forward, backward, theirs in (
        (softmax_forward, softmax_backward, torch.softmax),
        (log_softmax_forward, log_softmax_backward, torch.log_softmax),
    ):
        z = torch.tensor(x, requires_grad=True)
        expected = theirs(z, -1)
        (grad,) = torch.autograd.grad(expected, z, torch.tensor(dout))
        out = forward(x, impl=impl)
        np.testing.assert_allclose(out, expected.detach().numpy(), rtol=0, atol=atol)
        np.testing.assert_allclose(backward(dout, out, impl=impl), grad.numpy(), rtol=0, atol=5 * atol)
