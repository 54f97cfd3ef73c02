"""RMSNorm: both implementations against the formula in extended precision, finite differences and PyTorch."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import rmsnorm_backward, rmsnorm_forward

EPS = 1e-5


def example(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x, dout, other = (rng.normal(size=shape).astype(dtype) for _ in range(3))
    return x, rng.normal(size=shape[-1]).astype(dtype), dout, other


def oracle(x, weight, precision):
    x, weight = x.astype(precision), weight.astype(precision)
    rstd = (np.mean(x * x, axis=-1) + precision(EPS)) ** precision(-0.5)
    return x * rstd[..., None] * weight, rstd


def oracle_backward(dout, x, weight, precision):
    """With the Jacobian of each row written out: d xhat_j / d x_k = rstd * (delta_jk - xhat_j xhat_k / N)."""
    N = x.shape[-1]
    xhat, rstd = oracle(x, np.ones(N, x.dtype), precision)
    dout, weight = dout.astype(precision), weight.astype(precision)
    jacobian = np.eye(N, dtype=precision) - xhat[..., :, None] * xhat[..., None, :] / precision(N)
    dx = rstd[..., None] * np.einsum("...j,...jk->...k", dout * weight, jacobian)
    return dx, (dout * xhat).sum(axis=tuple(range(x.ndim - 1)))


def check_example(x, weight, dout, impl):
    forward = rmsnorm_forward(x, weight, EPS, impl=impl)
    exact, plain = (oracle(x, weight, p) for p in (np.longdouble, x.dtype.type))
    scale = max(float(forward[1].max(initial=0)), 1.0)  # rstd
    for got, e, p, bound in zip(forward, exact, plain, (10, scale), strict=True):
        check.accurate(got, e, p, bound=bound)
    backward = rmsnorm_backward(dout, x, weight, forward[1], impl=impl)
    exact, plain = (oracle_backward(dout, x, weight, p) for p in (np.longdouble, x.dtype.type))
    for got, e, p, bound in zip(backward, exact, plain, (20 * scale, 10), strict=True):
        check.accurate(got, e, p, bound=bound, factor=3)


@pytest.mark.parametrize("shape", [(3, 7, 257), (1, 1), (0, 5), (5,), (70, 3), (2, 0, 4), (9, 65), (2, 4000)], ids=str)
def test_matches_the_formula(shape, dtype, impl):
    x, weight, dout, _ = example(shape, dtype)
    if shape[-1] < 1000:  # the oracle's Jacobians are N by N
        check_example(x, weight, dout, impl)
    else:
        got, exact = rmsnorm_forward(x, weight, EPS, impl=impl), oracle(x, weight, np.longdouble)
        for g, e in zip(got, exact, strict=True):
            np.testing.assert_allclose(g, e, rtol=8 * np.finfo(dtype).eps)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=2), st.integers(1, 70), st.integers(0, 2**31))
def test_matches_the_formula_for_any_shape(rows, N, seed):
    for impl in ("reference", "cpu"):
        check_example(*example((*rows, N), np.float32, seed)[:3], impl)


def test_the_residual_is_added_first_and_returned(dtype, impl):
    x, weight, dout, other = example((5, 37), dtype)
    out, rstd, total = rmsnorm_forward(x, weight, EPS, residual=other, impl=impl)
    np.testing.assert_array_equal(total, x + other)
    for got, e in zip((out, rstd), rmsnorm_forward(total, weight, EPS, impl=impl), strict=True):
        np.testing.assert_allclose(got, e, rtol=8 * np.finfo(dtype).eps)
    dx, dweight = rmsnorm_backward(dout, total, weight, rstd, impl=impl)
    given = weight.copy()
    fused, same = rmsnorm_backward(dout, total, weight, rstd, dresidual=other, dweight=given, impl=impl)
    assert same is given
    atol = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(fused, dx + other, rtol=0, atol=atol * abs(dx).max())
    np.testing.assert_allclose(given, dweight + weight, rtol=0, atol=atol * abs(dweight).max())


def test_sums_are_added_into_arrays_of_any_strides(layout, dtype, impl):
    x, weight, dout, _ = example((5, 12), dtype)
    _, rstd = rmsnorm_forward(x, weight, EPS, impl=impl)
    expected = weight + rmsnorm_backward(dout, x, weight, rstd, impl=impl)[1]
    given = layout(weight.copy())
    if not given.flags.writeable:
        with pytest.raises(ValueError, match="read-only"):
            rmsnorm_backward(dout, x, weight, rstd, dweight=given, impl=impl)
    else:
        assert rmsnorm_backward(dout, x, weight, rstd, dweight=given, impl=impl)[1] is given
        np.testing.assert_allclose(given, expected, rtol=0, atol=50 * np.finfo(dtype).eps)


def test_any_strides(layout, dtype, impl):
    x, weight, dout, other = example((6, 7, 9), dtype)
    expected = rmsnorm_forward(x, weight, EPS, residual=other, impl=impl)
    moved = [layout(a) for a in (x, weight, other)]
    got = check.pure(lambda a, w, r: rmsnorm_forward(a, w, EPS, residual=r, impl=impl), *moved)
    for a, b in zip(got, expected, strict=True):  # NumPy sums in memory order, so not bitwise
        np.testing.assert_allclose(a, b, rtol=0, atol=50 * np.finfo(dtype).eps)
    saved = (dout, x, weight, expected[1], other)
    backward = lambda d, a, w, s, r: rmsnorm_backward(d, a, w, s, dresidual=r, impl=impl)  # noqa: E731
    for a, b in zip(check.pure(backward, *map(layout, saved)), backward(*saved), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=50 * np.finfo(dtype).eps)


def test_gradients_against_finite_differences(impl):
    x, weight, dout, other = example((4, 5), np.float64)

    def loss(x, weight):
        out, _, total = rmsnorm_forward(x, weight, EPS, residual=other, impl=impl)
        return float((dout * out + other * total).sum())

    _, rstd, total = rmsnorm_forward(x, weight, EPS, residual=other, impl=impl)
    dx, dweight = rmsnorm_backward(dout, total, weight, rstd, dresidual=other, impl=impl)
    np.testing.assert_allclose(dx, check.central_difference(lambda a: loss(a, weight), x), atol=1e-8)
    np.testing.assert_allclose(dweight, check.central_difference(lambda a: loss(x, a), weight), atol=1e-8)


@pytest.mark.parametrize("shape", [(1, 33), (100, 33), (3001, 33), (3, 50_257)], ids=str)
def test_same_bits_for_any_number_of_threads(shape):
    x, weight, dout, other = example(shape, np.float32)
    _, rstd = rmsnorm_forward(x, weight, EPS, impl="cpu")
    check.same_for_any_threads(lambda: rmsnorm_forward(x, weight, EPS, residual=other, impl="cpu"))
    check.same_for_any_threads(lambda: rmsnorm_backward(dout, x, weight, rstd, dresidual=other, impl="cpu"))


def test_no_weight_is_ones(impl):
    x, _, dout, _ = example((4, 6), np.float32)
    ones = np.ones(6, np.float32)
    expected = rmsnorm_forward(x, ones, EPS, impl=impl)
    for got, e in zip(rmsnorm_forward(x, None, EPS, impl=impl), expected, strict=True):
        np.testing.assert_array_equal(got, e)
    got, expected = (rmsnorm_backward(dout, x, w, expected[1], impl=impl) for w in (None, ones))
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)


@pytest.mark.parametrize("size", [1e-25, 1e-21, 1e-3, 1e15, 1e25, 3e37])
def test_sizes_whose_squares_float32_does_not_hold(size, impl):
    x = (size * np.array([[1, -2, 3] * 9, [2, 1, -1] * 9])).astype(np.float32)
    out, rstd = rmsnorm_forward(x, None, 0.0, impl=impl)
    exact = (x.astype(np.longdouble) ** 2).mean(axis=1) ** -0.5
    np.testing.assert_allclose(rstd, exact, rtol=1e-6)
    np.testing.assert_allclose(out, x * exact[:, None], rtol=1e-6)


def test_eps_stands_inside_the_root(dtype, impl):
    out, rstd = rmsnorm_forward(np.zeros((2, 3), dtype), None, 0.25, impl=impl)
    np.testing.assert_array_equal(rstd, 2)
    np.testing.assert_array_equal(out, 0)


def test_a_row_alone_gives_the_bits_that_it_gives_among_others(dtype):
    x, weight, dout, _ = example((13, 150), dtype)
    around = np.full((15, 150), np.nan, dtype)
    around[1:-1] = x
    out, rstd = rmsnorm_forward(x, weight, EPS, impl="cpu")
    dx = rmsnorm_backward(dout, x, weight, rstd, impl="cpu")[0]
    for i in range(13):
        alone = rmsnorm_forward(around[i + 1], weight, EPS, impl="cpu")
        np.testing.assert_array_equal(alone[0], out[i])
        np.testing.assert_array_equal(alone[1], rstd[i])
        np.testing.assert_array_equal(
            rmsnorm_backward(dout[i], around[i + 1], weight, alone[1], impl="cpu")[0], dx[i]
        )


def test_nan_stays_in_its_row(dtype, impl):
    x, weight, _, _ = example((4, 70), dtype)
    clean = rmsnorm_forward(x, weight, EPS, impl=impl)
    x[1, 69] = np.nan
    for got, e in zip(rmsnorm_forward(x, weight, EPS, impl=impl), clean, strict=True):
        np.testing.assert_array_equal(np.delete(got, 1, 0), np.delete(e, 1, 0))
        assert np.isnan(got[1]).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((2, 0), np.float32)}, ValueError, r"\(2, 0\).*N >= 1"),
        ({"weight": np.ones(4, np.float32)}, ValueError, r"weight has shape \(4,\), expected \(3,\)"),
        ({"residual": np.ones(3, np.float32)}, ValueError, r"residual has shape \(3,\), expected \(2, 3\)"),
        ({"weight": np.ones(3)}, TypeError, "weight is float64 but x is float32"),
        ({"x": np.ones((2, 3), int)}, TypeError, "floating dtype, got int64"),
    ],
)
def test_errors_say_what_was_given(change, error, message):
    with pytest.raises(error, match=message):
        rmsnorm_forward(**{"x": np.ones((2, 3), np.float32), "weight": None, "eps": EPS} | change)


@pytest.mark.oracle
def test_agrees_with_pytorch(dtype, impl):
    torch = pytest.importorskip("torch")
    x, weight, dout, _ = example((3, 7, 65), dtype)
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, weight)]
    expected = torch.nn.functional.rms_norm(inputs[0], (65,), inputs[1], EPS)
    grads = torch.autograd.grad(expected, inputs, torch.tensor(dout))
    out, rstd = rmsnorm_forward(x, weight, EPS, impl=impl)
    got = (out, *rmsnorm_backward(dout, x, weight, rstd, impl=impl))
    for a, b in zip(got, (expected.detach(), *grads), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=100 * np.finfo(dtype).eps)  # sums of 21 terms near 3
