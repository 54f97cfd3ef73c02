"""Rotary embedding: against complex rotation, invariants, finite differences; heads that lie in (B, T, H, D)."""

from __future__ import annotations

import kernel_checks as check
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import pytest_generate_tests  # noqa: F401

from kernels import rotary_backward, rotary_forward


def example(B, H, T, D, dtype, seed=0):
    rng = np.random.default_rng(seed)
    angle = np.arange(T)[:, None] * 100.0 ** (-np.arange(D // 2) / max(D // 2, 1)) + 0.3
    return rng.normal(size=(B, H, T, D)).astype(dtype), np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def oracle(x, cos, sin, precision):
    """Pairs as complex numbers, turned by a product."""
    half, complex_ = x.shape[-1] // 2, np.result_type(precision, np.complex64)
    z = x[..., :half].astype(precision) + complex_.type(1j) * x[..., half:].astype(precision)
    z = z * (cos.astype(precision) + complex_.type(1j) * sin.astype(precision))
    return np.concatenate([z.real, z.imag], axis=-1)


def check_example(shape, dtype, seed, impl):
    x, cos, sin = example(*shape, dtype, seed)
    for f, s in ((rotary_forward, sin), (rotary_backward, -sin)):
        check.accurate(f(x, cos, sin, impl=impl), oracle(x, cos, s, np.longdouble), oracle(x, cos, s, dtype.type))


SHAPES = [(2, 3, 5, 8), (1, 1, 1, 2), (2, 2, 3, 62), (2, 0, 3, 4), (1, 2, 3, 0), (3, 2, 70, 128)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_a_rotation_of_complex_numbers(shape, dtype, impl):
    check_example(shape, dtype, 0, impl)


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 9)), st.integers(0, 40), st.integers(0, 2**31))
def test_is_a_rotation_for_any_shape(shape, half, seed):
    for impl in ("reference", "cpu"):
        check_example((*shape, 2 * half), np.dtype(np.float32), seed, impl)


def test_any_strides(layout, dtype, impl):
    x, cos, sin = example(2, 3, 5, 12, dtype)
    for f in (rotary_forward, rotary_backward):
        (out,) = check.pure(lambda *a, f=f: f(*a, impl=impl), *map(layout, (x, cos, sin)))
        np.testing.assert_array_equal(out, f(x, cos, sin, impl=impl))


def test_heads_are_turned_where_they_lie(dtype, impl):
    x, cos, sin = example(2, 3, 5, 12, dtype)
    packed = np.full((2, 5, 4, 3, 12), np.nan, dtype)  # (B, T, q/k/v/..., H, D), as one projection gives them
    packed[:, :, 1] = x.transpose(0, 2, 1, 3)
    views = (packed[:, :, 1].transpose(0, 2, 1, 3), np.flip(np.flip(x, (0, 2)).copy(), (0, 2)))
    for view in views:
        np.testing.assert_array_equal(rotary_forward(view, cos, sin, impl=impl), rotary_forward(x, cos, sin, impl=impl))


def test_backward_turns_back(dtype, impl):
    x, cos, sin = example(2, 3, 5, 12, dtype)
    back = rotary_backward(rotary_forward(x, cos, sin, impl=impl), cos, sin, impl=impl)
    np.testing.assert_allclose(back, x, rtol=0, atol=20 * np.finfo(dtype).eps)


def test_gradient_against_finite_differences(impl):
    x, cos, sin = example(1, 2, 3, 4, np.float64)
    dout = np.random.default_rng(1).normal(size=x.shape)
    numerical = check.central_difference(lambda a: float((dout * rotary_forward(a, cos, sin, impl=impl)).sum()), x)
    np.testing.assert_allclose(rotary_backward(dout, cos, sin, impl=impl), numerical, atol=1e-8)


def test_products_depend_on_the_distance_only(impl):
    T, D = 20, 16
    angle = np.arange(T)[:, None] * 10000.0 ** (-np.arange(D // 2) / (D // 2))
    q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, D))
    turned = [rotary_forward(np.repeat(a, T, 2), np.cos(angle), np.sin(angle), impl=impl)[0, 0] for a in (q, k)]
    scores = turned[0] @ turned[1].T
    for distance in range(T):
        np.testing.assert_allclose(np.diag(scores, distance), scores[0, distance], atol=1e-12)


@pytest.mark.parametrize("D", [2, 14, 30, 34])
def test_what_lies_around_the_arrays_does_not_matter(D, dtype):
    check.ignores_surroundings(lambda *a: rotary_forward(*a, impl="cpu"), *example(2, 2, 3, D, dtype))


def test_same_bits_for_any_number_of_threads():
    x, cos, sin = example(3, 5, 70, 64, np.float32)
    check.same_for_any_threads(lambda: rotary_forward(x, cos, sin, impl="cpu"))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 3, 4), (3, 2), (3, 2)), r"x has shape \(2, 3, 4\), expected \(B, H, T, D\)"),
        (((1, 2, 3, 5), (3, 2), (3, 2)), r"x has shape \(1, 2, 3, 5\), .* even D"),
        (((1, 2, 3, 4), (4, 2), (3, 2)), r"cos has shape \(4, 2\), expected \(3, 2\)"),
        (((1, 2, 3, 4), (3, 2), (3, 4)), r"sin has shape \(3, 4\), expected \(3, 2\)"),
    ],
)
def test_errors_say_what_was_given(shapes, message):
    with pytest.raises(ValueError, match=message):
        rotary_forward(*map(np.ones, shapes))
    with pytest.raises(TypeError, match="cos is float32 but x is float64"):
        rotary_forward(np.ones((1, 1, 3, 4)), np.ones((3, 2), np.float32), np.ones((3, 2)))
