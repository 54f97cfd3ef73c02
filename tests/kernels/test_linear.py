"""Linear layer with activation: against the formulas in higher precision, finite differences, layouts and threads."""

from __future__ import annotations

import math

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import has_bf16, linear_backward, linear_forward
from kernels.matmul.reference import round_to_bf16

ACTIVATIONS = [None, "relu", "relu2", "gelu", "gelu_tanh", "silu"]
EVERY = pytest.mark.parametrize("activation", ACTIVATIONS)
SHAPES = [  # of x, and how many features come out
    ((3, 7), 5), ((1, 1), 1), ((2, 3, 33), 50), ((130, 70), 49), ((300, 17), 100), ((9, 500), 3), ((0, 4), 3),
    ((4, 0), 3), ((5,), 4),
]  # fmt: skip
needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this CPU has no AVX512_BF16")


def example(x_shape, out_features, dtype=np.float32, seed=0):
    """x, weight, bias, dout"""
    rng = np.random.default_rng(seed)
    shapes = [x_shape, (out_features, x_shape[-1]), (out_features,), (*x_shape[:-1], out_features)]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def erf(x):
    return np.reshape([math.erf(float(v)) for v in x.flat], x.shape).astype(x.dtype)


def function_and_slope(z, activation):
    """f(z), f'(z) in the precision of z, from their textbook forms."""
    one = z.dtype.type(1)
    if activation is None:
        return z, one
    if activation == "relu":
        return np.maximum(z, 0), (z > 0).astype(z.dtype)
    if activation == "relu2":
        return np.maximum(z, 0) ** 2, 2 * np.maximum(z, 0)
    if activation == "silu":
        s = one / (one + np.exp(-z))
        return z * s, s + z * s * (one - s)
    if activation == "gelu":
        phi = (one + erf(z / np.sqrt(2 * one))) / 2
        return z * phi, phi + z * np.exp(-(z**2) / 2) / np.sqrt(2 * one * math.pi)
    k = np.sqrt(2 * one / math.pi)
    t = np.tanh(k * (z + z.dtype.type(0.044715) * z**3))
    return z * (one + t) / 2, (one + t) / 2 + z * (one - t**2) / 2 * k * (one + z.dtype.type(0.134145) * z**2)


def forward(x, weight, bias, activation, precision):
    x, weight = x.astype(precision), weight.astype(precision)
    pre = x @ weight.T + (0 if bias is None else bias.astype(precision))
    return function_and_slope(pre, activation)[0], pre


def backward(dout, x, weight, pre, activation, precision):
    dout, x, weight, pre = (a.astype(precision) for a in (dout, x, weight, pre))
    dpre = dout * function_and_slope(pre, activation)[1]
    rows = dpre.reshape(math.prod(dpre.shape[:-1]), dpre.shape[-1])
    return dpre @ weight, rows.T @ x.reshape(rows.shape[0], x.shape[-1]), rows.sum(axis=0)


def size(x):
    return np.max(abs(x), initial=0)


def check_forward(x, weight, bias, activation, impl):
    out, pre = linear_forward(x, weight, bias, activation=activation, impl=impl)
    exact, plain = (forward(x, weight, bias, activation, p) for p in (np.longdouble, x.dtype.type))
    steep = 2 * size(exact[1]) if activation == "relu2" else 1  # what an error of pre grows to in f(pre)
    check.accurate(out, exact[0], plain[0], bound=max(steep, 1) * size(exact[1]))
    assert (pre is None) == (activation in (None, "relu"))
    if pre is not None:
        check.accurate(pre, exact[1], plain[1], bound=size(exact[1]))
    return out, pre


def check_backward(dout, x, weight, pre, out, activation, impl, **settings):
    grads = linear_backward(dout, x, weight, pre, out, activation=activation, impl=impl, **settings)
    z = dout if activation is None else out if activation == "relu" else pre
    exact, plain = (backward(dout, x, weight, z, activation, p) for p in (np.longdouble, x.dtype.type))
    for got, e, p in zip(grads, exact, plain, strict=True):
        check.accurate(got, e, p, bound=size(e) + 1, factor=3)
    return grads


@EVERY
@pytest.mark.parametrize(("x_shape", "out_features"), SHAPES, ids=str)
def test_matches_the_formulas(x_shape, out_features, activation, dtype, impl):
    x, weight, bias, dout = example(x_shape, out_features, dtype)
    out, pre = check_forward(x, weight, bias, activation, impl)
    check_forward(x, weight, None, activation, impl)
    check_backward(dout, x, weight, pre, out, activation, impl)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 60), st.integers(0, 60), st.sampled_from(ACTIVATIONS), st.integers(0, 99))
def test_matches_the_formulas_for_any_size(rows, features, out_features, activation, seed):
    x, weight, bias, dout = example((rows, features), out_features, seed=seed)
    out, pre = check_forward(x, weight, bias, activation, "cpu")
    check_backward(dout, x, weight, pre, out, activation, "cpu")


@EVERY
def test_any_strides(layout, dtype, activation, impl):
    x, weight, bias, dout = example((4, 5, 33), 20, dtype)
    out, pre = linear_forward(layout(x), layout(weight), layout(bias), activation=activation, impl=impl)
    same, same_pre = linear_forward(x, weight, bias, activation=activation, impl="cpu")
    steep = 2 * size(same_pre) if activation == "relu2" else 1
    check.accurate(out, same.astype(np.longdouble), same, bound=max(steep, 1) * size(same))
    kept = [None if a is None else layout(a) for a in (same_pre, same)]
    arrays = layout(dout), layout(x), layout(weight)
    check.pure(lambda *abc: linear_backward(*abc, *kept, activation=activation, impl=impl), *arrays)
    check_backward(*arrays, *kept, activation, impl)


@EVERY
def test_gradients_against_finite_differences(activation, impl):
    x, weight, bias, dout = example((5, 4), 3, np.float64)
    out, pre = linear_forward(x, weight, bias, activation=activation, impl=impl)
    grads = linear_backward(dout, x, weight, pre, out, activation=activation, impl=impl)
    for i in range(3):

        def loss(a, i=i):
            arguments = [x, weight, bias]
            arguments[i] = a
            return float((dout * linear_forward(*arguments, activation=activation, impl=impl)[0]).sum())

        np.testing.assert_allclose(grads[i], check.central_difference(loss, [x, weight, bias][i]), atol=1e-8)


@EVERY
def test_adds_into_given_gradients(activation, dtype, impl):
    x, weight, bias, dout = example((70, 33), 20, dtype)
    out, pre = linear_forward(x, weight, bias, activation=activation, impl=impl)
    _, dweight, dbias = linear_backward(dout, x, weight, pre, out, activation=activation, impl=impl)
    held_weight, held_bias = np.ones_like(weight), np.ones_like(bias)
    got = linear_backward(
        dout, x, weight, pre, out, activation=activation, dweight=held_weight, dbias=held_bias, impl=impl
    )  # fmt: skip
    assert got[1] is held_weight and got[2] is held_bias
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(held_weight, dweight + 1, atol=4 * eps * size(dweight), rtol=2 * eps)
    np.testing.assert_allclose(held_bias, dbias + 1, atol=4 * eps * size(dbias), rtol=2 * eps)


def test_only_what_is_needed(impl):
    x, weight, bias, dout = example((6, 5), 4)
    all_three = linear_backward(dout, x, weight, impl=impl)
    for i in range(3):
        grads = linear_backward(dout, x, weight, needs=tuple(j == i for j in range(3)), impl=impl)
        assert [g is None for g in grads] == [j != i for j in range(3)]
        np.testing.assert_array_equal(grads[i], all_three[i])
    assert linear_forward(x, weight, bias, activation="gelu", keep_pre=False, impl=impl)[1] is None


@EVERY
@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=needs_bf16)])
def test_same_bits_for_any_number_of_threads(activation, bf16):
    x, weight, bias, dout = example((500, 130), 200)
    out, pre = linear_forward(x, weight, bias, activation=activation)
    check.same_for_any_threads(lambda: linear_forward(x, weight, bias, activation=activation, bf16=bf16)[0])
    check.same_for_any_threads(lambda: linear_backward(dout, x, weight, pre, out, activation=activation, bf16=bf16))


@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a != "relu2"])  # a square overflows
def test_limits_without_warnings(activation, dtype, impl):
    """Far from 0 the activations are 0 or the identity, and so are their slopes; NaN stays NaN."""
    z = np.array([-np.inf, -np.finfo(dtype).max, -1e5, -200, 0, 200, 1e5, np.finfo(dtype).max, np.inf], dtype)
    if activation is None:
        return
    one = np.ones((1, 1), dtype)
    out, pre = linear_forward(z[:, None], one, activation=activation, impl=impl)
    np.testing.assert_allclose(out[:, 0], np.maximum(z, 0), rtol=0, atol=1e-80)  # silu(-200) is -3e-85
    dout = np.full_like(out, 2)
    _, _, dbias = linear_backward(dout, one + 0 * np.zeros_like(out), one, pre, out, activation=activation, impl=impl)
    assert dbias[0] == 2 * 4 + 2 * (0.5 if activation != "relu" else 0)
    nan = linear_forward(np.full((1, 1), np.nan, dtype), one, activation=activation, impl=impl)[0]
    assert np.isnan(nan).all()


@needs_bf16
@EVERY
def test_bf16_is_linear_of_rounded_numbers(activation):
    x, weight, bias, dout = example((130, 70), 49)
    rounded_x, rounded_weight = round_to_bf16(x), round_to_bf16(weight)
    out, pre = linear_forward(x, weight, bias, activation=activation, bf16=True)
    exact, plain = (forward(rounded_x, rounded_weight, bias, activation, p) for p in (np.longdouble, np.float32))
    check.accurate(out, exact[0], plain[0], bound=size(exact[1]))
    dx, dweight, dbias = linear_backward(dout, x, weight, pre, out, activation=activation, bf16=True)
    reference = linear_backward(dout, x, weight, pre, out, activation=activation, bf16=True, impl="reference")
    float32 = linear_backward(dout, x, weight, pre, out, activation=activation)
    for got, same, other in zip((dx, dweight), reference, float32):
        # where dpre lies on the edge between two bfloat16 numbers, one ulp of it decides: far below the rounding itself
        assert size(got - same) < 0.2 * size(same - other) < 0.01 * size(same)
    np.testing.assert_allclose(dbias, float32[2], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w: linear_forward(x, w.T), ValueError, r"x \(2, 3\) and weight \(3, 4\) do not fit"),
        (lambda x, w: linear_forward(x, w, w[0]), ValueError, r"bias has shape \(3,\), expected \(4,\)"),
        (lambda x, w: linear_forward(x, w, activation="tanh"), ValueError, "activation must be one of .* got 'tanh'"),
        (lambda x, w: linear_forward(x, w.astype(np.float64)), TypeError, "weight is float64 but x is float32"),
        (lambda x, w: linear_forward(x.astype("d"), w.astype("d"), bf16=True), TypeError, "bf16=True takes float32"),
        (lambda x, w: linear_backward(x, x, w), ValueError, r"dout has shape \(2, 3\), expected \(2, 4\)"),
        (lambda x, w: linear_backward(x @ w.T, x, w, activation="gelu"), ValueError, "'gelu' needs pre"),
        (lambda x, w: linear_backward(x @ w.T, x, w, activation="relu"), ValueError, "'relu' needs out"),
        (lambda x, w: linear_backward(x @ w.T, x, w, dweight=w), ValueError, "dweight .* shares memory"),
    ],
)
def test_errors_say_what_was_given(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((2, 3), np.float32), np.ones((4, 3), np.float32))
