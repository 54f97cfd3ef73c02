"""The checker itself: what a naive one misses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillm
from minillm import functional as F
from minillm.testing import GradcheckError, check_vjp, gradcheck, taylor_slope
from minillm.testing.causes import suspect
from minillm.testing.numeric import slope

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4))


def check(forward, vjp, inputs, **settings):
    return check_vjp(forward, vjp, inputs, raise_exception=False, **settings)


def square(x):
    return x * x


def square_vjp(dout, x):
    return 2 * x * dout


# ------------------------------------------------------------------------------------------- the numerical side


@given(st.floats(-3, 3, allow_subnormal=False))
@settings(max_examples=50, deadline=None)
def test_differences_are_good_to_1e_10_and_know_their_error(x):
    for f, df in ((np.exp, np.exp), (np.sin, np.cos), (lambda t: t**3, lambda t: 3 * t**2)):
        s = slope(lambda t, f=f: np.array([f(x + t)]), 4e-3 * max(abs(x), 0.1))
        error = abs(float(s.value[0]) - df(x))
        assert not s.kink[0]
        assert error <= 1e-9 * max(1, abs(df(x)))
        assert error <= 10 * s.error[0] + 1e-18


def test_a_kink_is_seen_at_the_point_and_not_beside_it():
    assert slope(lambda t: np.array([abs(t)])).kink[0]
    beside = slope(lambda t: np.array([abs(1e-4 + t)]))
    assert not beside.kink[0] and beside.value[0] == pytest.approx(1)
    assert slope(lambda t: np.array([float(t >= 0)])).kink[0]  # a jump
    assert not slope(lambda t: np.array([t**2])).kink[0]


def test_taylor_slope_is_2_for_right_and_1_for_wrong():
    x, v = RNG.standard_normal(5), RNG.standard_normal(5)
    f = lambda h: float(np.log(np.exp(x + h * v).sum()))  # noqa: E731
    right = float((np.exp(x) / np.exp(x).sum()) @ v)
    assert taylor_slope(f, right) == pytest.approx(2, abs=0.1)
    assert taylor_slope(f, right * 1.01) < 1.7
    assert taylor_slope(lambda h: 3 * h, 3.0) == math.inf


# ------------------------------------------------------------------------------------------- nothing is vacuous


def test_zeros_do_not_pass_for_softmax():
    softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # noqa: E731
    zero = lambda dout, x: np.zeros_like(x)  # noqa: E731
    assert not check(softmax, zero, [X])
    blind = check(softmax, zero, [X], cotangents=[np.ones((3, 4))], limit=0)
    assert any("uniform cotangents" in w for w in blind.warnings)


def test_nothing_compared_is_a_failure():
    assert not check(square, square_vjp, [np.zeros((0, 3))])
    assert check(square, square_vjp, [np.zeros((0, 3))], allow_empty=True)
    assert not check(lambda n: n * 2.0, lambda d, n: None, [np.arange(3)])
    on_kinks = check(np.abs, lambda d, x: d * np.sign(x), [np.zeros(3)])
    assert not on_kinks and "kink" in str(on_kinks)


def test_none_is_a_failure_unless_the_derivative_is_zero():
    assert not check(square, lambda d, x: None, [X])
    constant = check(lambda x, y: y * 2, lambda d, x, y: (None, 2 * d), [X, X + 1], alias=True)
    assert constant and any("numerical derivative is 0 too" in n for n in constant.notes)


def test_nan_is_never_equal_to_anything():
    assert not check(square, lambda d, x: np.full_like(x, np.nan), [X])
    assert not check(lambda x: np.log(x - 10), lambda d, x: d / (x - 10), [X])
    nothing = check(np.log, lambda d, x: d / x, [np.array([-1.0, 2.0])])
    assert not nothing and "NaN" in str(nothing)


def test_a_kink_is_named_and_the_rest_is_checked():
    x = np.array([-1.0, 0.0, 2.0])
    good = check(lambda x: np.maximum(x, 0), lambda d, x: d * (x > 0), [x])
    assert good and good.inputs[0].kinks == [(1,)] and "kink at index (1,): skipped" in str(good)
    assert not check(lambda x: np.maximum(x, 0), lambda d, x: d * (x > 3), [x])


# ---------------------------------------------------------------------------------------- more than the numbers


def test_the_second_run_must_be_the_same_bits():
    calls = iter(range(100))
    report = check(square, lambda d, x: 2 * x * d * (1 + 2e-16 * next(calls)), [X])
    assert any("same bits" in p for p in report.problems)


def test_writes_are_noticed():
    def writes_input(d, x):
        g = 2 * x * d
        x += 1
        return g

    def writes_cotangent(d, x):
        d *= 2
        return x * d

    assert any("input 0 was written" in p for p in check(square, writes_input, [X]).problems)
    assert any("cotangent 0 was written" in p for p in check(square, writes_cotangent, [X]).problems)


def test_shared_memory_and_views_are_noticed():
    twice = check(lambda x, y: x + y, lambda d, x, y: (d.copy(),) * 2, [X, X + 1])
    assert any("shares memory with the gradient of input 0" in p for p in twice.problems)
    assert any("shares memory with cotangent" in p for p in check(lambda x: x + 1, lambda d, x: d, [X]).problems)
    assert check(lambda x: x + 1, lambda d, x: d, [X], alias=True)
    view = check(lambda x: x.sum(), lambda d, x: np.broadcast_to(d, x.shape), [X])
    assert any("broadcast view" in p for p in view.problems)


def test_shapes_and_dtypes():
    wrong = check(lambda x, b: x + b, lambda d, x, b: (d.copy(), d.copy()), [X, np.ones(4)])
    assert any("missing sum over broadcast dims" in p for p in wrong.problems)
    assert any("float32" in p for p in check(square, lambda d, x: (2 * x * d).astype(np.float32), [X]).problems)
    assert any("2 gradients for 1 inputs" in p for p in check(square, lambda d, x: (x, x), [X]).problems)


def test_float32_inputs_are_converted_and_a_warning_says_so():
    report = check(square, square_vjp, [X.astype(np.float32)])
    assert report and any("float32" in w for w in report.warnings)
    low = check(square, square_vjp, [X], dtype=np.float32)
    assert low and low.inputs[0].dtype == "float32" and low.inputs[0].ulp_error < 1000


def test_random_functions_are_refused_unless_they_repeat():
    report = check(lambda x: x * RNG.standard_normal(), lambda d, x: d, [X])
    assert any("two calls gave different outputs" in p for p in report.problems)
    state = minillm.get_rng_state()
    assert gradcheck(lambda x: F.dropout(x, 0.5) * x, [X])
    assert minillm.get_rng_state() == state


# --------------------------------------------------------------------------------------------------- the report


def test_causes():
    n = RNG.standard_normal((3, 4))
    assert "sign" in suspect(-n, n)
    assert "half" in suspect(n / 2, n)
    assert "12 times too small" in suspect(n / 12, n)
    assert "constant factor 1.7" in suspect(1.7 * n, n)
    assert "transposed" in suspect(n.T.copy().reshape(3, 4), n)
    assert "dim 1" in suspect(n[:, ::-1], n)
    assert "permuted" in suspect(RNG.permutation(n.reshape(-1)).reshape(n.shape), n)
    assert "swapped" in suspect(n, RNG.standard_normal((3, 4)), [n])
    assert "does not depend" in suspect(n, 0 * n)
    assert "not finite" in suspect(n * np.inf, n)


def test_a_forgotten_sum_is_named():
    report = check(lambda x, b: x * b, lambda d, x, b: (d * b, (d * x)[0]), [X, RNG.standard_normal(4)])
    assert "missing sum over the broadcast dim 0" in report.inputs[1].cause


def test_the_text_holds_what_one_needs():
    report = check(square, lambda d, x: -2 * x * d, [X], name="square")
    text = str(report)
    for part in (
        "FAILED: square",
        "input 0, float64 (3, 4)",
        "worst at index",
        "analytic",
        "numerical",
        "ulp",
        "relative",
        "step",
        "own error",
        "sign",
    ):
        assert part in text
    assert report.inputs[0].index is not None and not report.ok and not bool(report)
    with pytest.raises(GradcheckError, match="sign is flipped"):
        check_vjp(square, lambda d, x: -2 * x * d, [X])


# --------------------------------------------------------------------------------------------- with the engine


def test_orders_1_to_4():
    for order in (1, 2, 3, 4):
        assert gradcheck(lambda x: F.tanh(x) * x, [np.array([0.3, -0.7])], order=order).order == order
    with pytest.raises(ValueError, match="order"):
        gradcheck(F.exp, [X], order=0)


def test_inputs_of_all_sorts():
    ids = np.array([0, 2, 2])
    assert gradcheck(lambda w, i: F.embedding(i, w), [X, ids])
    assert gradcheck(lambda t, n: t * n, [minillm.tensor(X), 2])
    assert gradcheck(F.exp, 0.5)
    assert gradcheck(lambda x: (F.exp(x), F.sin(x)), [X])
    assert gradcheck(lambda x: (F.exp(x), F.sin(x)), [X], order=2)
    with pytest.raises(TypeError, match="must return a Tensor"):
        gradcheck(lambda x: 3, [X])
    with pytest.raises(TypeError, match="complex"):
        gradcheck(F.exp, [X + 1j])


def test_the_same_tensor_in_several_places():
    assert gradcheck(lambda x: x * x + F.matmul(x, x), [X[:, :3]])
    assert gradcheck(lambda x: F.scaled_dot_product_attention(x, x, x), [X], order=2)


def test_in_float32_kernels_can_be_checked_without_the_engine():
    import kernels

    w, b = RNG.standard_normal(4), RNG.standard_normal(4)

    def backward(dout, x, w, b):
        _, mean, rstd = kernels.layernorm_forward(x, w, b)
        return kernels.layernorm_backward(dout, x, w, mean, rstd)

    for dtype in (np.float64, np.float32):
        assert check_vjp(
            lambda *a: kernels.layernorm_forward(*a)[0],
            backward,
            [X, w, b],
            dtype=dtype,
            rtol=1e-3 if dtype == np.float32 else None,
        )
