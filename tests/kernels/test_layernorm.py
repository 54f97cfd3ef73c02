"""LayerNorm: both implementations against the formula in extended precision, finite differences and PyTorch."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import layernorm_backward, layernorm_forward

EPS = 1e-5


def example(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x, dout = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    weight, bias = (rng.normal(size=shape[-1]).astype(dtype) for _ in range(2))
    return x, weight, bias, dout


def oracle(x, weight, bias, precision):
    x, weight, bias = (a.astype(precision) for a in (x, weight, bias))
    mean = np.mean(x, axis=-1)
    rstd = (np.var(x, axis=-1) + precision(EPS)) ** precision(-0.5)
    return (x - mean[..., None]) * rstd[..., None] * weight + bias, mean, rstd


def oracle_backward(dout, x, weight, precision):
    """With the Jacobian of each row written out: d xhat_j / d x_k = rstd * (delta_jk - (1 + xhat_j xhat_k) / N)."""
    N = x.shape[-1]
    ones, zeros = np.ones(N, x.dtype), np.zeros(N, x.dtype)
    xhat, _, rstd = oracle(x, ones, zeros, precision)
    dout, weight = dout.astype(precision), weight.astype(precision)
    jacobian = np.eye(N, dtype=precision) - (1 + xhat[..., :, None] * xhat[..., None, :]) / precision(N)
    dx = rstd[..., None] * np.einsum("...j,...jk->...k", dout * weight, jacobian)
    rows = tuple(range(x.ndim - 1))
    return dx, (dout * xhat).sum(axis=rows), dout.sum(axis=rows)


def check_example(x, weight, bias, dout, impl):
    forward = layernorm_forward(x, weight, bias, EPS, impl=impl)
    exact, plain = (oracle(x, weight, bias, p) for p in (np.longdouble, x.dtype.type))
    for got, e, p in zip(forward, exact, plain, strict=True):
        check.accurate(got, e, p, bound=10)
    backward = layernorm_backward(dout, x, weight, *forward[1:], impl=impl)
    exact, plain = (oracle_backward(dout, x, weight, p) for p in (np.longdouble, x.dtype.type))
    scale = max(float(forward[2].max(initial=0)), 1.0)  # rstd: 316 where a row is constant
    for got, e, p, bound in zip(backward, exact, plain, (100 * scale, 10 * scale, 10), strict=True):
        check.accurate(got, e, p, bound=bound, factor=3)


@pytest.mark.parametrize("shape", [(3, 7, 257), (1, 1), (0, 5), (5,), (70, 3), (2, 0, 4)], ids=str)
def test_matches_the_formula(shape, dtype, impl):
    check_example(*example(shape, dtype), impl)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=2), st.integers(1, 70), st.integers(0, 2**31))
def test_matches_the_formula_for_any_shape(rows, N, seed):
    for impl in ("reference", "cpu"):
        check_example(*example((*rows, N), np.float32, seed), impl)


def test_any_strides(layout, dtype, impl):
    x, weight, bias, dout = example((6, 7, 9), dtype)
    expected = layernorm_forward(x, weight, bias, impl=impl)
    moved = [layout(a) for a in (x, weight, bias)]
    got = check.pure(lambda *a: layernorm_forward(*a, impl=impl), *moved)
    for a, b in zip(got, expected, strict=True):  # NumPy sums in memory order, so not bitwise
        np.testing.assert_allclose(a, b, rtol=0, atol=50 * np.finfo(dtype).eps)
    saved = (dout, x, weight, *expected[1:])
    expected = layernorm_backward(*saved, impl=impl)
    got = check.pure(lambda *a: layernorm_backward(*a, impl=impl), *map(layout, saved))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=50 * np.finfo(dtype).eps)


def test_gradients_against_finite_differences(impl):
    x, weight, bias, dout = example((4, 5), np.float64)

    def loss(x, weight, bias):
        return float((dout * layernorm_forward(x, weight, bias, impl=impl)[0]).sum())

    _, mean, rstd = layernorm_forward(x, weight, bias, impl=impl)
    dx, dweight, dbias = layernorm_backward(dout, x, weight, mean, rstd, impl=impl)
    np.testing.assert_allclose(dx, check.central_difference(lambda a: loss(a, weight, bias), x), atol=1e-8)
    np.testing.assert_allclose(dweight, check.central_difference(lambda a: loss(x, a, bias), weight), atol=1e-8)
    np.testing.assert_allclose(dbias, check.central_difference(lambda a: loss(x, weight, a), bias), atol=1e-8)


@pytest.mark.parametrize("rows", [1, 100, 3001])
def test_same_bits_for_any_number_of_threads(rows):
    x, weight, bias, dout = example((rows, 33), np.float32)
    _, mean, rstd = layernorm_forward(x, weight, bias)
    check.same_for_any_threads(lambda: layernorm_forward(x, weight, bias, impl="cpu"))
    check.same_for_any_threads(lambda: layernorm_backward(dout, x, weight, mean, rstd, impl="cpu"))


@pytest.mark.parametrize("shape", [(2, 50_257), (40, 1000)], ids=str)
def test_same_bits_for_long_rows_and_a_residual(shape):
    x, weight, bias, dout = example(shape, np.float32)
    _, mean, rstd, total = layernorm_forward(x, weight, bias, residual=dout)
    check.same_for_any_threads(lambda: layernorm_forward(x, weight, bias, residual=dout, impl="cpu"))
    saved = (dout, total, weight, mean, rstd)
    check.same_for_any_threads(lambda: layernorm_backward(*saved, dresidual=x, impl="cpu"))


def test_the_residual_is_added_first_and_returned(dtype, impl):
    x, weight, bias, dout = example((5, 37), dtype)
    residual = example((5, 37), dtype, seed=1)[0]
    *forward, total = layernorm_forward(x, weight, bias, EPS, residual=residual, impl=impl)
    np.testing.assert_array_equal(total, x + residual)
    eps = 8 * np.finfo(dtype).eps
    for got, e in zip(forward, layernorm_forward(total, weight, bias, EPS, impl=impl), strict=True):
        np.testing.assert_allclose(got, e, rtol=eps, atol=eps)
    saved = (dout, total, weight, *forward[1:])
    dx, dweight, dbias = layernorm_backward(*saved, impl=impl)
    into = weight.copy(), bias.copy()
    fused, *same = layernorm_backward(*saved, dresidual=residual, dweight=into[0], dbias=into[1], impl=impl)
    assert same[0] is into[0] and same[1] is into[1]
    np.testing.assert_allclose(fused, dx + residual, rtol=0, atol=eps * abs(dx).max())
    np.testing.assert_allclose(into[0], dweight + weight, rtol=0, atol=eps * abs(dweight).max())
    np.testing.assert_allclose(into[1], dbias + bias, rtol=0, atol=eps * abs(dbias).max())


def test_the_residual_in_any_strides(layout, dtype, impl):
    x, weight, bias, dout = example((6, 7, 9), dtype)
    expected = layernorm_forward(x, weight, bias, residual=dout, impl=impl)
    got = check.pure(lambda a, r: layernorm_forward(a, weight, bias, residual=r, impl=impl), layout(x), layout(dout))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=50 * np.finfo(dtype).eps)
    saved = (dout, expected[3], weight, expected[1], expected[2])
    expected = layernorm_backward(*saved, dresidual=x, impl=impl)
    got = check.pure(lambda r: layernorm_backward(*saved, dresidual=r, impl=impl), layout(x))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=50 * np.finfo(dtype).eps)


def test_gradients_with_a_residual_against_finite_differences(impl):
    x, weight, bias, dout = example((4, 5), np.float64)
    residual = example((4, 5), np.float64, seed=1)[0]

    def loss(x):
        out, *_, total = layernorm_forward(x, weight, bias, residual=residual, impl=impl)
        return float((dout * out + residual * total).sum())

    _, mean, rstd, total = layernorm_forward(x, weight, bias, residual=residual, impl=impl)
    dx, _, _ = layernorm_backward(dout, total, weight, mean, rstd, dresidual=residual, impl=impl)
    np.testing.assert_allclose(dx, check.central_difference(loss, x), atol=1e-8)


@pytest.mark.parametrize("size", [1e-25, 1e-21, 1e-3, 1e15, 1e25, 3e37])
def test_sizes_whose_squares_float32_does_not_hold(size, impl):
    x = (size * np.array([[1, -2, 3] * 9, [2, 1, -1] * 9])).astype(np.float32)
    out, mean, rstd = layernorm_forward(x, None, None, 0.0, impl=impl)
    wide = x.astype(np.longdouble)
    np.testing.assert_allclose(mean, wide.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(rstd, wide.std(axis=1) ** -1, rtol=1e-6)
    xhat = (wide - wide.mean(axis=1, keepdims=True)) / wide.std(axis=1, keepdims=True)
    np.testing.assert_allclose(out, xhat, rtol=1e-5)


@pytest.mark.parametrize("outlier", [1e4, 1e7, 1e10])
def test_an_outlier_hides_nothing(outlier, impl):
    x = np.random.default_rng(0).normal(size=(6, 300)).astype(np.float32)
    x[np.arange(6), [0, 1, 63, 64, 150, 299]] = outlier
    out, mean, rstd = layernorm_forward(x, None, None, impl=impl)
    exact = oracle(x, np.ones(300, np.float32), np.zeros(300, np.float32), np.longdouble)
    for got, e in zip((out, mean, rstd), exact, strict=True):
        np.testing.assert_allclose(got, e, rtol=1e-5, atol=1e-6)


def test_a_row_alone_gives_the_bits_that_it_gives_among_others(dtype):
    x, weight, bias, dout = example((13, 150), dtype)
    around = np.full((15, 150), np.nan, dtype)
    around[1:-1] = x
    whole = layernorm_forward(x, weight, bias, impl="cpu")
    dx = layernorm_backward(dout, x, weight, *whole[1:], impl="cpu")[0]
    for i in range(13):
        alone = layernorm_forward(around[i + 1], weight, bias, impl="cpu")
        for a, b in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(a, b[i])
        np.testing.assert_array_equal(
            layernorm_backward(dout[i], around[i + 1], weight, *alone[1:], impl="cpu")[0], dx[i]
        )


def test_nan_stays_in_its_row(dtype, impl):
    x, weight, bias, _ = example((4, 70), dtype)
    clean = layernorm_forward(x, weight, bias, impl=impl)
    x[1, 69] = np.nan
    for got, e in zip(layernorm_forward(x, weight, bias, impl=impl), clean, strict=True):
        np.testing.assert_array_equal(np.delete(got, 1, 0), np.delete(e, 1, 0))
        assert np.isnan(got[1]).all()


def test_no_weight_and_no_bias_are_ones_and_zeros(impl):
    x, _, _, dout = example((4, 6), np.float32)
    ones, zeros = np.ones(6, np.float32), np.zeros(6, np.float32)
    expected = layernorm_forward(x, ones, zeros, impl=impl)
    for got, e in zip(layernorm_forward(x, None, None, impl=impl), expected, strict=True):
        np.testing.assert_array_equal(got, e)
    got, expected = (layernorm_backward(dout, x, w, *expected[1:], impl=impl) for w in (None, ones))
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)


def test_the_variance_does_not_cancel(dtype, impl):
    x = (40000 + np.arange(5)).astype(dtype)  # mean of squares minus square of mean is wrong by 100 % in float32
    out, mean, rstd = layernorm_forward(x, None, None, impl=impl)
    assert mean == 40002
    np.testing.assert_allclose(rstd, (2 + 1e-5) ** -0.5, rtol=1e-6)
    np.testing.assert_allclose(out, np.arange(-2, 3) * (2 + 1e-5) ** -0.5, rtol=1e-6)


def test_a_long_row_far_from_zero(impl):
    x = (40000 + np.random.default_rng(0).normal(size=(1, 65_536))).astype(np.float32)
    out, mean, rstd = layernorm_forward(x, None, None, impl=impl)
    np.testing.assert_allclose(mean, x.mean(dtype=np.float64), rtol=1e-7)
    np.testing.assert_allclose(1 / rstd**2, x.var(dtype=np.float64) + 1e-5, rtol=1e-6)
    assert abs(out.mean(dtype=np.float64)) < 1e-6


def test_eps_stands_inside_the_root(dtype, impl):
    out, _, rstd = layernorm_forward(np.full((2, 3), 7, dtype), None, None, 0.25, impl=impl)
    np.testing.assert_array_equal(rstd, 2)
    np.testing.assert_array_equal(out, 0)


def test_many_rows_are_summed_accurately(impl):
    x, _, _, dout = example((60_000, 2), np.float32)
    dout = dout + np.float32(1)  # dbias near 60000: float32 sums one by one lose four digits
    _, mean, rstd = layernorm_forward(x, None, None, impl=impl)
    _, _, dbias = layernorm_backward(dout, x, None, mean, rstd, impl=impl)
    np.testing.assert_allclose(dbias, dout.sum(axis=0, dtype=np.float64), rtol=1e-7)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((2, 0), np.float32)}, ValueError, r"\(2, 0\).*N >= 1"),
        ({"weight": np.ones(4, np.float32)}, ValueError, r"weight has shape \(4,\), expected \(3,\)"),
        ({"bias": np.ones((2, 3), np.float32)}, ValueError, r"bias has shape \(2, 3\), expected \(3,\)"),
        ({"weight": np.ones(3)}, TypeError, "weight is float64 but x is float32"),
        ({"x": np.ones((2, 3), int)}, TypeError, "floating dtype, got int64"),
        ({"x": [[1.0, 2.0, 3.0]]}, TypeError, "x must be an array, got list"),
    ],
)
def test_errors_say_what_was_given(change, error, message):
    arguments = {"x": np.ones((2, 3), np.float32), "weight": None, "bias": None} | change
    with pytest.raises(error, match=message):
        layernorm_forward(**arguments)


def test_backward_checks_the_saved_arrays():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"mean has shape \(3,\), expected \(2,\)"):
        layernorm_backward(x, x, None, np.ones(3, np.float32), np.ones(2, np.float32))


@pytest.mark.oracle
def test_agrees_with_pytorch(dtype, impl):
    torch = pytest.importorskip("torch")
    x, weight, bias, dout = example((3, 7, 65), dtype)
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    expected = torch.nn.functional.layer_norm(inputs[0], (65,), *inputs[1:])
    grads = torch.autograd.grad(expected, inputs, torch.tensor(dout))
    out, mean, rstd = layernorm_forward(x, weight, bias, impl=impl)
    got = (out, *layernorm_backward(dout, x, weight, mean, rstd, impl=impl))
    for a, b in zip(got, (expected.detach(), *grads), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=100 * np.finfo(dtype).eps)  # sums of 21 terms near 3
