"""Arithmetic, elementary functions, choices, comparisons: conventions, dtypes, layouts, broadcasting gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import minillm
from minillm import Tensor, tensor
from minillm import functional as F

FUNCTIONS = {
    "neg": (F.neg, np.negative),
    "square": (F.square, np.square),
    "reciprocal": (F.reciprocal, lambda x: 1 / x),
    "sqrt": (F.sqrt, np.sqrt),
    "rsqrt": (F.rsqrt, lambda x: 1 / np.sqrt(x)),
    "exp": (F.exp, np.exp),
    "expm1": (F.expm1, np.expm1),
    "log": (F.log, np.log),
    "log1p": (F.log1p, np.log1p),
    "sin": (F.sin, np.sin),
    "cos": (F.cos, np.cos),
    "tanh": (F.tanh, np.tanh),
    "sigmoid": (F.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "erf": (F.erf, np.vectorize(math.erf, otypes=[np.float64])),
    "abs": (F.abs, np.abs),
    "sign": (F.sign, np.sign),
    "floor": (F.floor, np.floor),
    "ceil": (F.ceil, np.ceil),
    "round": (F.round, np.round),
    "clamp": (lambda x: F.clamp(x, 0.7, 1.4), lambda x: np.clip(x, 0.7, 1.4)),
}
REAL = ["reciprocal", "sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "clamp"]


def gradient(function, *values):
    """The gradients of function(*values).sum() at float64 values."""
    inputs = [tensor(np.array(v, np.float64), requires_grad=True) for v in values]
    function(*inputs).sum().backward()
    grads = [x.grad.data for x in inputs]
    return grads[0] if len(grads) == 1 else grads


# ------------------------------------------------------------------------------- values, dtypes, layouts


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value_and_dtype(name, dtype):
    function, expected = FUNCTIONS[name]
    x = np.random.default_rng(0).uniform(0.5, 2.0, (3, 4)).astype(dtype)
    t = tensor(x, requires_grad=True)
    y = function(t)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.data, expected(x.astype(np.float64)), rtol=3e-6 if dtype == np.float32 else 1e-14)
    y.sum().backward()
    assert t.grad.dtype == dtype and t.grad.shape == x.shape
    plain = function(x)
    assert type(plain) is np.ndarray and plain.dtype == dtype and np.array_equal(plain, y.data)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_layout(name):
    """Transposed, reversed, stepped, broadcast, 0-d and empty inputs give what a contiguous copy gives."""
    function, _ = FUNCTIONS[name]
    base = np.random.default_rng(1).uniform(0.5, 2.0, (6, 4))
    views = [base.T, base[::-1, ::-1], base[::2, 1::2], base[:0]]
    views += [np.broadcast_to(base[0], (3, 4)), base[2, 3:].reshape(())]
    for view in views:
        strided, copied = tensor(view, requires_grad=True), tensor(view.copy(), requires_grad=True)
        y, z = function(strided), function(copied)
        assert y.shape == view.shape
        np.testing.assert_allclose(y.data, z.data, rtol=1e-14)
        y.sum().backward()
        z.sum().backward()
        np.testing.assert_allclose(strided.grad.data, copied.grad.data, rtol=1e-14)


@pytest.mark.parametrize("name", REAL)
def test_integers_give_float32(name):
    y = FUNCTIONS[name][0](tensor([1, 2]))
    assert y.dtype == np.float32


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n / n,
        lambda n: n / 2,
        lambda n: 1 / n,
        lambda n: n * 0.5,
        lambda n: 0.5 + n,
        lambda n: n - 0.5,
        lambda n: n**0.5,
        lambda n: F.maximum(n, 0.5),
        lambda n: F.where(n > 1, n, 0.5),
        lambda n: F.where(n > 1, 1.0, 0.0),
        lambda n: F.remainder(n, 1.5),
        lambda n: n * tensor([0.5, 0.5]),
    ],
)
def test_integers_meet_floats_as_in_pytorch(make):
    assert make(tensor([1, 2])).dtype == np.float32


def test_integers_stay_integers():
    n = tensor([1, 2])
    for y in (n + 1, n - n, n * 2, n**2, n.clamp(max=1), F.remainder(n, 2), F.where(n > 1, n, 0), F.floor_divide(n, 2)):
        assert y.dtype == np.int64


def test_a_numpy_scalar_does_not_widen():
    x = tensor([1.0, 2.0], requires_grad=True)
    y = np.float64(2.0) * x + np.float64(1.0)
    y = y / np.float64(3.0) ** np.int64(2)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == np.float32


def test_the_gradient_of_0_d_float64_is_float64():
    x = tensor(np.array(0.3), requires_grad=True)
    y = F.clamp(F.where(F.abs(F.exp(x)) > 0, F.maximum(F.exp(x), 0.1), 0.0), max=5.0)
    y.backward()
    assert x.grad.dtype == np.float64 and float(x.grad) == math.exp(0.3)


# ------------------------------------------------------------------------------------------- conventions


def test_ties_split_evenly():
    for function in (F.maximum, F.minimum):
        dx, dy = gradient(function, [1.0, 2.0, 3.0], [1.0, 5.0, 0.0])
        assert dx[0] == dy[0] == 0.5
        assert sorted([dx[1], dy[1]]) == sorted([dx[2], dy[2]]) == [0.0, 1.0]
    x = tensor([1.0, 2.0], requires_grad=True)
    F.maximum(x, x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_slopes_at_kinks():
    assert gradient(F.abs, [-2.0, 0.0, 2.0]).tolist() == [-1.0, 0.0, 1.0]
    assert gradient(lambda x: F.clamp(x, -1, 1), [-1.5, -1.0, 0.0, 1.0, 1.5]).tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    for flat in (F.sign, F.floor, F.ceil, F.round):
        assert gradient(flat, [-1.5, 0.0, 0.5]).tolist() == [0.0, 0.0, 0.0]


def test_round_goes_to_the_even_half():
    assert F.round(tensor([0.5, 1.5, 2.5, -0.5])).tolist() == [0.0, 2.0, 2.0, 0.0]


def test_where_keeps_nan_out_of_gradients():
    z = tensor([math.nan, math.inf, 1.0], requires_grad=True)
    F.where(tensor([False, False, True]), z * 2, 3.0).sum().backward()
    assert z.grad.tolist() == [0.0, 0.0, 2.0]
    safe = gradient(lambda x: F.where(x > 0, F.log(F.where(x > 0, x, 1.0)), 0.0), [-1.0, 0.0, 4.0])
    assert safe.tolist() == [0.0, 0.0, 0.25]
    x = tensor([1.0, 2.0], requires_grad=True)
    F.where(tensor([True, False]), x, 0.0).backward(tensor([1.0, math.nan]))
    assert x.grad.tolist() == [1.0, 0.0]


def test_masked_fill_cuts_the_gradient():
    x, mask = [[1.0, math.nan]], np.array([[False, True], [False, True]])
    filled = F.masked_fill(tensor(x), mask, -math.inf)
    assert filled.tolist() == [[1.0, -math.inf], [1.0, -math.inf]] and filled.dtype == np.float32
    assert gradient(lambda x: F.masked_fill(x, mask, 0.0), x).tolist() == [[2.0, 0.0]]
    _, dvalue = gradient(lambda x, value: F.masked_fill(x, mask, value), x, 5.0)
    assert dvalue == 2.0


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 2.0, 0.0])
def test_pow_at_base_0_and_below(exponent):
    x = np.array([-2.0, 0.0, 3.0])
    expected = [exponent * v ** (exponent - 1) if exponent != 0 else 0.0 for v in x]
    assert gradient(lambda x: x**exponent, x).tolist() == expected
    dx, _ = gradient(F.pow, x, np.full(3, float(exponent)))
    assert dx.tolist() == expected


def test_pow_gradient_of_the_exponent():
    _, de = gradient(F.pow, [0.0, 0.0, 2.0, -2.0], [2.0, 0.0, 3.0, 3.0])
    np.testing.assert_allclose(de, [0.0, 0.0, 8 * math.log(2), math.nan])
    x = tensor([-2.0, 0.0], requires_grad=True)
    (x ** tensor([3.0, 2.0])).sum().backward()  # a constant exponent: log of the base is not looked at
    assert x.grad.tolist() == [12.0, 0.0]
    np.testing.assert_allclose(gradient(lambda e: 2.0**e, [3.0]), [8 * math.log(2)])


def test_pow_second_and_third_derivatives_at_0():
    x = tensor([0.0, 2.0], requires_grad=True)
    first = minillm.gradients((x**2).sum(), x, create_graph=True)
    second = minillm.gradients(first.sum(), x, create_graph=True)
    assert second.tolist() == [2.0, 2.0]
    third = minillm.gradients((second * x).sum(), x)
    assert third.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out_values_are_finite_and_silent(dtype):
    x = np.array([-1000.0, -100.0, 0.0, 100.0, 1000.0], dtype)
    for function, slopes in [
        (F.sigmoid, [0.0, 0.0, 0.25, 0.0, 0.0]),
        (F.tanh, [0.0, 0.0, 1.0, 0.0, 0.0]),
        (F.erf, [0.0, 0.0, 2 / math.sqrt(math.pi), 0.0, 0.0]),
    ]:
        t = tensor(x, requires_grad=True)
        y = function(t)
        y.sum().backward()
        assert np.isfinite(y.data).all()
        np.testing.assert_allclose(t.grad.data, slopes, rtol=1e-6, atol=1e-35)
    np.testing.assert_allclose(F.sigmoid(tensor(np.array(-80.0, dtype))).item(), math.exp(-80), rtol=1e-5)


# ------------------------------------------------------------------------------------------- comparisons


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons(name):
    compare, a, b = getattr(F, name), np.array([1.0, 2.0, 3.0], np.float32), np.array([2.0, 2.0, 2.0], np.float32)
    expected = getattr(a, f"__{name}__")(b)
    for left, right in [(tensor(a), tensor(b)), (tensor(a), b), (a, tensor(b)), (tensor(a), 2), (tensor(a), 2.0)]:
        y = compare(left, right)
        assert isinstance(y, Tensor) and y.dtype == bool and np.array_equal(y.data, expected)
    assert np.array_equal(compare(a, b), expected)
    x = tensor(a, requires_grad=True)
    assert not compare(x, 2.0).requires_grad


def test_tests_and_logic():
    x = tensor([1.0, math.nan, math.inf, -math.inf])
    assert F.isnan(x).tolist() == [False, True, False, False]
    assert F.isinf(x).tolist() == [False, False, True, True]
    assert F.isfinite(x).tolist() == [True, False, False, False]
    a, b = tensor([True, True, False, False]), tensor([True, False, True, False])
    assert F.logical_and(a, b).tolist() == (a & b).tolist() == [True, False, False, False]
    assert F.logical_or(a, b).tolist() == (a | b).tolist() == [True, True, True, False]
    assert F.logical_not(a).tolist() == (~a).tolist() == [False, False, True, True]


def test_division_with_rest_has_the_sign_of_the_divisor():
    x, y = tensor([7.0, -7.0, 7.0, -7.0]), tensor([3.0, 3.0, -3.0, -3.0])
    assert F.floor_divide(x, y).tolist() == [2.0, -3.0, -3.0, 2.0]
    assert F.remainder(x, y).tolist() == [1.0, 2.0, -2.0, -1.0]


def test_casts():
    x = tensor([1.5, -2.5], requires_grad=True)
    y = F.to_dtype(x, "float64")
    assert y.dtype == np.float64
    (y * 3).sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [3.0, 3.0]
    n = F.to_dtype(x, np.int64)
    assert n.tolist() == [1, -2] and not n.requires_grad


# ------------------------------------------------------------------------------------------------ errors


def test_errors_say_what_to_do():
    x = tensor([[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="clamp: needs min, max or both"):
        F.clamp(x)
    with pytest.raises(TypeError, match="clamp: max is a number or None; got ndarray: use maximum, minimum"):
        F.clamp(x, max=np.ones(3))
    with pytest.raises(TypeError, match="where: condition must be bool; got float32"):
        F.where(x, x, 0.0)
    with pytest.raises(ValueError, match=r"(?s)mul: .*float32 \(1, 3\).*float32 \(2,\).*broadcasting aligns"):
        x * tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="exp"):
        F.exp(x, out=x)


def test_pytorch_and_numpy_names_for_arguments():
    x = tensor([1.0, 2.0])
    assert F.add(input=x, other=x).tolist() == [2.0, 4.0]
    assert F.pow(x, exponent=2).tolist() == [1.0, 4.0]


# ------------------------------------------------------------------------------ broadcasting, at random

BINARY = {
    "add": (F.add, lambda x, y: np.ones_like(x + y), lambda x, y: np.ones_like(x + y)),
    "sub": (F.sub, lambda x, y: np.ones_like(x + y), lambda x, y: -np.ones_like(x + y)),
    "mul": (F.mul, lambda x, y: y + 0 * x, lambda x, y: x + 0 * y),
    "div": (F.div, lambda x, y: 1 / y + 0 * x, lambda x, y: -x / y**2),
    "pow": (F.pow, lambda x, y: y * x ** (y - 1), lambda x, y: x**y * np.log(x)),
    "maximum": (F.maximum, lambda x, y: (x > y) + 0.5 * (x == y), lambda x, y: (y > x) + 0.5 * (x == y)),
    "minimum": (F.minimum, lambda x, y: (x < y) + 0.5 * (x == y), lambda x, y: (y < x) + 0.5 * (x == y)),
}


def laid_out(values: np.ndarray, layout: str) -> np.ndarray:
    """The same values in another memory layout."""
    if layout == "fortran":
        return np.array(values, order="F")
    if layout == "reversed":
        back = (slice(None, None, -1),) * values.ndim + (...,)
        return values[back].copy()[back]
    if layout == "stepped":
        wide = np.zeros([2 * n for n in values.shape])
        every_other = (slice(None, None, 2),) * values.ndim + (...,)
        wide[every_other] = values
        return wide[every_other]
    return values


def summed_to(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each element of g added to the input element that it was broadcast from: one addition at a time."""
    source = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), g.shape)
    return np.bincount(source.ravel(), weights=g.ravel(), minlength=math.prod(shape)).reshape(shape)


layouts = st.sampled_from(["contiguous", "fortran", "reversed", "stepped"])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(BINARY)),
    mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=3, min_side=0, max_side=3),
    layouts,
    layouts,
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 1000),
)
def test_broadcast_gradients(name, shapes, layout_x, layout_y, dtype, seed):
    function, slope_x, slope_y = BINARY[name]
    rng = np.random.default_rng(seed)
    values = [np.array(rng.integers(1, 8, shape) / 4) for shape in shapes.input_shapes]  # exact in float32, with ties
    x, y = (laid_out(v, layout).astype(dtype, order="K") for v, layout in zip(values, (layout_x, layout_y)))
    tx, ty = tensor(x, requires_grad=True), tensor(y, requires_grad=True)
    out = function(tx, ty)
    assert out.shape == shapes.result_shape and out.dtype == dtype
    dout = rng.standard_normal(out.shape).astype(dtype)
    out.backward(tensor(dout))
    x, y = (v.astype(np.float64) for v in values)
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    for t, slope, v in ((tx, slope_x, x), (ty, slope_y, y)):
        assert t.grad.dtype == dtype and t.grad.shape == v.shape
        expected = summed_to(dout * np.broadcast_to(slope(x, y), out.shape), v.shape)
        np.testing.assert_allclose(t.grad.data, expected, rtol=tolerance, atol=tolerance)


@settings(max_examples=60, deadline=None)
@given(mutually_broadcastable_shapes(num_shapes=3, min_side=0, max_side=3, max_dims=3), st.integers(0, 1000))
def test_where_broadcasts_three_ways(shapes, seed):
    rng = np.random.default_rng(seed)
    c, x, y = (np.array(rng.standard_normal(shape)) for shape in shapes.input_shapes)
    condition = np.asarray(c > 0)
    tx, ty = tensor(x, requires_grad=True), tensor(y, requires_grad=True)
    out = F.where(condition, tx, ty)
    assert np.array_equal(out.data, np.where(condition, x, y))
    dout = rng.standard_normal(out.shape)
    out.backward(tensor(dout))
    taken = np.broadcast_to(condition, out.shape)
    np.testing.assert_allclose(tx.grad.data, summed_to(dout * taken, np.shape(x)), atol=1e-12)
    np.testing.assert_allclose(ty.grad.data, summed_to(dout * ~taken, np.shape(y)), atol=1e-12)


def test_nothing_is_written_into_inputs():
    for function, _ in FUNCTIONS.values():
        x = np.linspace(0.5, 2.0, 5)
        before, t = x.copy(), tensor(x, requires_grad=True)
        dout = np.ones(5)
        function(t).backward(tensor(dout))
        assert np.array_equal(x, before) and np.array_equal(dout, np.ones(5))


# -------------------------------------------------------------------------------- the same as PyTorch


@pytest.mark.oracle
def test_pow_matches_pytorch_on_a_grid():
    torch = pytest.importorskip("torch")
    x, e = (v.ravel() for v in np.meshgrid([-2.0, -0.5, 0.0, 0.5, 2.0], [0.0, 1.0, 2.0, 3.0, 0.5]))
    fine = ~((x < 0) & (e == 0.5)) & ~((x == 0) & (e == 0.5))
    x, e = x[fine], e[fine]
    dx, de = gradient(F.pow, x, e)
    tx, te = torch.tensor(x, requires_grad=True), torch.tensor(e, requires_grad=True)
    (tx**te).sum().backward()
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-13)
    positive = x >= 0
    np.testing.assert_allclose(de[positive], te.grad.numpy()[positive], rtol=1e-13)
    assert np.isnan(de[x < 0]).all()


@pytest.mark.oracle
@pytest.mark.parametrize("kinds", ["float32 int64", "int64 float32", "float64 float32", "bool float32", "bool int64"])
def test_mixed_dtypes_match_pytorch(kinds):
    torch = pytest.importorskip("torch")
    a, b = (np.array(v).astype(k) for v, k in zip(([1, 0, 1], [2, 3, 1]), kinds.split()))
    for name in ("add", "mul", "div", "maximum"):
        ours, theirs = getattr(F, name)(tensor(a), tensor(b)), getattr(torch, name)(torch.tensor(a), torch.tensor(b))
        assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch."), name
        np.testing.assert_allclose(ours.data, theirs.numpy())
