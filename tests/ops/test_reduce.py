"""Reductions, running sums and products: NumPy at random, conventions, precision, edge shapes, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillm
from minillm import Tensor, tensor
from minillm import functional as F


def gradient(function, x, dtype=np.float64):
    """The gradient of function(x).sum()."""
    x = tensor(np.array(x, dtype), requires_grad=True)
    function(x).sum().backward()
    assert x.grad.dtype == dtype
    return x.grad.data


# ------------------------------------------------------------------------------- the same as NumPy, at random


def _norm(p):
    return lambda x, axis, keepdims: (np.abs(x) ** p).sum(axis, keepdims=keepdims) ** (1 / p)


def _logsumexp(x, axis, keepdims):
    return np.log(np.exp(x).sum(axis, keepdims=keepdims))


def _largest(x, axis, keepdims):
    return np.abs(x).max(axis, keepdims=keepdims)


REDUCTIONS = {
    "sum": (F.sum, np.sum),
    "mean": (F.mean, np.mean),
    "var": (lambda x, dim, keepdim: F.var(x, dim, 0, keepdim), np.var),
    "std": (lambda x, dim, keepdim: F.std(x, dim, 0, keepdim), np.std),
    "prod": (F.prod, np.prod),
    "amax": (F.amax, np.max),
    "amin": (F.amin, np.min),
    "logsumexp": (F.logsumexp, _logsumexp),
    "norm 2": (lambda x, dim, keepdim: F.norm(x, 2.0, dim, keepdim), _norm(2)),
    "norm 1": (lambda x, dim, keepdim: F.norm(x, 1, dim, keepdim), _norm(1)),
    "norm 3.5": (lambda x, dim, keepdim: F.norm(x, 3.5, dim, keepdim), _norm(3.5)),
    "norm inf": (lambda x, dim, keepdim: F.norm(x, math.inf, dim, keepdim), _largest),
    "all": (F.all, np.all),
    "any": (F.any, np.any),
}


@st.composite
def array_and_dims(draw):
    """An array of up to 4 dims, in some layout, and the dims to reduce: None, one, several; counted from either end."""
    ndim = draw(st.integers(0, 4))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=ndim, max_size=ndim)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    x = np.array(rng.standard_normal(shape))
    if draw(st.booleans()):
        x = x.T
    if draw(st.booleans()):
        x = x[(slice(None, None, -1),) * ndim + (...,)]
    if ndim == 0:
        return x, draw(st.sampled_from([None, 0, -1]))
    chosen = draw(st.lists(st.integers(0, ndim - 1), min_size=1, max_size=ndim, unique=True))
    chosen = [d - ndim if draw(st.booleans()) else d for d in chosen]
    return x, draw(st.sampled_from([None, chosen[0], tuple(chosen)]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(REDUCTIONS)), array_and_dims(), st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_equal_to_numpy(name, x_and_dim, keepdim, dtype):
    (function, expected), (x, dim) = REDUCTIONS[name], x_and_dim
    x = x.astype(dtype, order="K")
    t = tensor(x, requires_grad=True)
    y = function(t, dim, keepdim)
    z = np.asarray(expected(x.astype(np.float64), axis=None if x.ndim == 0 else dim, keepdims=keepdim))
    assert y.shape == z.shape
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y.data, z, rtol=tolerance, atol=tolerance)
    assert y.dtype == (bool if name in ("all", "any") else dtype)
    if y.requires_grad:
        y.sum().backward()
        assert t.grad.dtype == dtype and t.grad.shape == x.shape


SMOOTH = ["sum", "mean", "var", "prod", "logsumexp", "norm 2", "norm 3.5"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SMOOTH), array_and_dims(), st.booleans())
def test_gradient_is_the_slope_in_a_random_direction(name, x_and_dim, keepdim):
    """<gradient, v> against (f(x + h v) - f(x - h v)) / 2h, with a random weight on each output."""
    (function, _), (x, dim) = REDUCTIONS[name], x_and_dim
    if name.startswith("norm"):
        x = np.where(np.abs(x) < 0.1, 0.5, x)  # a norm of one element has a kink at 0
    rng = np.random.default_rng(0)
    v, h = np.array(rng.standard_normal(x.shape)), 1e-5
    t = tensor(x, requires_grad=True)
    y = function(t, dim, keepdim)
    weight = np.array(rng.standard_normal(y.shape))
    y.backward(tensor(weight))
    ahead, behind = (function(tensor(np.array(x + s * h * v)), dim, keepdim).data for s in (1, -1))
    slope = ((ahead - behind) * weight).sum() / (2 * h)
    np.testing.assert_allclose((t.grad.data * v).sum(), slope, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(array_and_dims(), st.data())
def test_scans_equal_numpy(x_and_dim, data):
    x, _ = x_and_dim
    dim = data.draw(st.integers(-max(x.ndim, 1), max(x.ndim, 1) - 1))
    for function, expected in ((F.cumsum, np.cumsum), (F.cumprod, np.cumprod)):
        t = tensor(x, requires_grad=True)
        y = function(t, dim)
        assert y.shape == x.shape
        np.testing.assert_allclose(y.data, expected(x, axis=dim) if x.ndim else x, rtol=1e-12, atol=1e-14)
        y.sum().backward()
        assert t.grad.shape == x.shape


# ------------------------------------------------------------------------------------ dtypes and precision


def test_integers_and_bools():
    for dtype in (bool, np.int8, np.uint8, np.int64):
        x = tensor(np.array([1, 1, 0], dtype))
        for y in (F.sum(x), F.prod(x), F.cumsum(x, 0), F.cumprod(x, 0)):
            assert y.dtype == np.int64
        for y in (F.mean(x), F.var(x), F.std(x), F.logsumexp(x), F.norm(x)):
            assert y.dtype == np.float32
    assert F.sum(tensor(np.full(10, 200, np.uint8))).item() == 2000
    assert F.mean(tensor([True, False])).item() == 0.5


def test_variance_of_large_numbers_close_together():
    """One pass in float32, E[x^2] - E[x]^2, gives 0 or a negative number here."""
    x = np.arange(40000, 40010, dtype=np.float32)
    exact = np.var(np.arange(10.0), ddof=1)
    assert F.var(tensor(x)).item() == pytest.approx(exact, rel=1e-6)
    assert F.std(tensor(x)).item() == pytest.approx(math.sqrt(exact), rel=1e-6)
    dx = gradient(F.var, x, np.float32)
    np.testing.assert_allclose(dx, 2 * (np.arange(10) - 4.5) / 9, rtol=1e-6)
    np.testing.assert_allclose(gradient(F.std, x, np.float32), (np.arange(10) - 4.5) / 9 / math.sqrt(exact), rtol=1e-6)


@pytest.mark.parametrize("shape, dim", [((65536,), None), ((65536, 2), 0), ((2, 65536), 1)])
def test_float32_mean_of_65536_values(shape, dim):
    x = np.full(shape, 0.1, np.float32)
    x[:1] += np.float32(1000)
    exact = x.astype(np.float64).mean(dim)
    np.testing.assert_allclose(F.mean(tensor(x), dim).data, exact, rtol=6e-8)
    running = F.cumsum(tensor(x), 0 if dim is None else dim).data.astype(np.float64)
    np.testing.assert_allclose(running, np.cumsum(x.astype(np.float64), 0 if dim is None else dim), rtol=6e-8)


def test_norm_neither_overflows_nor_vanishes_in_float32():
    for scale in (1e30, 1e-30):
        x = np.array([3.0, 4.0], np.float32) * np.float32(scale)
        assert F.norm(tensor(x)).item() == pytest.approx(5 * scale, rel=1e-6)
        np.testing.assert_allclose(gradient(F.norm, x, np.float32), [0.6, 0.8], rtol=1e-6)


# ------------------------------------------------------------------------------------------- conventions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_split_evenly(dtype):
    x = [[3.0, 1.0, 3.0], [0.0, 0.0, 0.0]]
    third = dtype(1) / dtype(3)
    assert gradient(lambda x: F.amax(x, dim=1), x, dtype).tolist() == [[0.5, 0.0, 0.5], [third] * 3]
    assert gradient(lambda x: F.max(x, 1).values, x, dtype).tolist() == [[0.5, 0.0, 0.5], [third] * 3]
    assert gradient(F.max, x, dtype).tolist() == [[0.5, 0.0, 0.5], [0.0] * 3]
    assert gradient(F.amin, x, dtype).tolist() == [[0.0] * 3, [third] * 3]
    assert gradient(lambda x: F.norm(x, p=math.inf), [3.0, -3.0, 1.0], dtype).tolist() == [0.5, -0.5, 0.0]


def test_max_and_min_in_their_three_forms():
    x = tensor([[3.0, 7.0, 7.0], [5.0, 2.0, 2.0]])
    assert F.max(x).item() == 7.0 and F.min(x).item() == 2.0
    top = F.max(x, dim=1)
    assert top.values.tolist() == [7.0, 5.0] and top.indices.tolist() == [1, 0] and top.indices.dtype == np.int64
    values, indices = F.min(x, dim=-1, keepdim=True)
    assert values.tolist() == [[3.0], [2.0]] and indices.tolist() == [[0], [1]]
    assert F.max(x, tensor([4.0, 4.0, 4.0])).tolist() == [[4.0, 7.0, 7.0], [5.0, 4.0, 4.0]]
    assert F.min(x, np.array([4.0, 4.0, 4.0], np.float32)).tolist() == [[3.0, 4.0, 4.0], [4.0, 2.0, 2.0]]
    assert x.max(axis=0).values.tolist() == [5.0, 7.0, 7.0]


def test_argmax_and_argmin():
    x = tensor([[3.0, 7.0, 7.0], [5.0, 2.0, 2.0]], requires_grad=True)
    assert F.argmax(x).item() == 1 and F.argmin(x).item() == 4
    assert F.argmax(x, 1).tolist() == [1, 0] and F.argmin(x, dim=0).tolist() == [0, 1, 1]
    y = F.argmax(x, dim=-1, keepdim=True)
    assert y.tolist() == [[1], [0]] and y.dtype == np.int64 and not y.requires_grad
    assert F.argmax(tensor(3.0)).item() == F.argmax(tensor(3.0), 0).item() == 0


def test_all_and_any():
    x = tensor([[True, False], [True, True]])
    assert (F.all(x).item(), F.any(x).item()) == (False, True)
    assert F.all(x, dim=0).tolist() == [True, False] and F.any(x, 1, True).tolist() == [[True], [True]]
    assert F.all(tensor(np.zeros((0, 2)))).item() and not F.any(tensor(np.zeros((0, 2)))).item()


def test_std_of_equal_elements_has_gradient_0():
    dx = gradient(lambda x: F.std(x, dim=1), [[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
    assert dx.tolist() == [[0.0, 0.0, 0.0], [-0.5, 0.0, 0.5]]


def test_variance_of_too_few_elements_is_nan():
    assert np.isnan(F.var(tensor([1.0])).item()) and np.isnan(F.std(tensor([1.0])).item())
    assert F.var(tensor([1.0]), correction=0).item() == 0.0
    assert np.isnan(F.mean(tensor(np.zeros((0,)))).item()) and np.isnan(F.var(tensor(np.zeros((0,)))).item())


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 2.0, 3, math.inf])
def test_norm_at_0(p):
    x = [[0.0, 0.0], [0.0, 2.0]]
    assert F.norm(tensor(x), p, dim=1).tolist() == [0.0, 2.0]
    assert gradient(lambda x: F.norm(x, p, 1), x).tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_norm_of_2_has_a_second_derivative_beside_0():
    x = tensor(np.array([0.0, 2.0]), requires_grad=True)  # Hessian (I - u u^T) / |x| with u = (0, 1)
    hessian = [minillm.gradients(minillm.gradients(F.norm(x), x, create_graph=True)[i], x).tolist() for i in range(2)]
    assert hessian == [[0.5, 0.0], [0.0, 0.0]]


def test_logsumexp_far_out():
    x = [[1e4, 1e4], [-1e4, -1e4], [1000.0, -1000.0], [-math.inf, 0.0], [-math.inf, -math.inf]]
    expected = [1e4 + math.log(2), -1e4 + math.log(2), 1000.0, 0.0, -math.inf]
    np.testing.assert_allclose(F.logsumexp(tensor(np.array(x)), dim=1).data, expected, rtol=1e-15)
    dx = gradient(lambda x: F.logsumexp(x, 1), x)
    np.testing.assert_allclose(dx, [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], rtol=1e-11)
    t = tensor(np.array(x), requires_grad=True)
    first = minillm.gradients(F.logsumexp(t, 1).sum(), t, create_graph=True)
    second = minillm.gradients(first[:, 0].sum(), t)
    np.testing.assert_allclose(second.data[:2], [[0.25, -0.25], [0.25, -0.25]], rtol=1e-11)
    assert second.data[4].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "x, dx",
    [([2.0, 3.0, 4.0], [12.0, 8.0, 6.0]), ([0.0, 3.0, 4.0], [12.0, 0.0, 0.0]), ([0.0, 0.0, 4.0], [0.0, 0.0, 0.0])],
)
def test_prod_gradient_with_zeros(x, dx):
    assert gradient(F.prod, x).tolist() == dx
    second = np.zeros((3, 3))  # d^2 / dx_i dx_j is the product of the others
    for i in range(3):
        for j in range(3):
            second[i, j] = 0.0 if i == j else x[3 - i - j]
    t = tensor(np.array(x), requires_grad=True)
    first = minillm.gradients(F.prod(t), t, create_graph=True)
    got = [minillm.gradients(first[i], t, retain_graph=True).tolist() for i in range(3)]
    assert got == second.tolist()


def test_cumprod_gradient_with_zeros():
    # y = a, ab, abc, abcd with b = c = 0
    a, b, c, d = x = [2.0, 0.0, 0.0, 5.0]
    expected = [1 + b + b * c + b * c * d, a + a * c + a * c * d, a * b + a * b * d, a * b * c]
    assert gradient(lambda x: F.cumprod(x, 0), x).tolist() == expected


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 100])
def test_products_of_any_length(n):
    x = np.random.default_rng(n).uniform(0.8, 1.2, (n, 2))
    np.testing.assert_allclose(F.prod(tensor(x), 0).data, x.prod(0), rtol=1e-13)
    np.testing.assert_allclose(F.cumprod(tensor(x), 0).data, x.cumprod(0), rtol=1e-13)
    np.testing.assert_allclose(gradient(lambda x: F.prod(x, 0), x), x.prod(0) / x, rtol=1e-13)


# --------------------------------------------------------------------------------- edge shapes and errors


def test_nothing_to_reduce():
    x = tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    assert F.sum(x).item() == 0.0 and F.sum(x, 0).tolist() == [0.0] * 3 and F.sum(x, 1).shape == (0,)
    assert F.prod(x, 0).tolist() == [1.0] * 3
    assert F.logsumexp(x, 0).tolist() == [-math.inf] * 3 and F.norm(x).item() == 0.0
    assert F.cumsum(x, 0).shape == F.cumprod(x, 1).shape == (0, 3)
    for y in (F.sum(x, 0), F.prod(x, 0), F.mean(x, 1), F.amax(x, 1), F.logsumexp(x, 0), F.norm(x), F.cumsum(x, 0)):
        y.sum().backward()
    assert x.grad.shape == (0, 3)
    with pytest.raises(ValueError, match=r"(?s)amax: .*\(0, 3\)"):
        F.amax(x, 0)
    with pytest.raises(ValueError, match=r"(?s)argmax: .*\(0, 3\)"):
        F.argmax(x)


def test_plain_arrays_in_and_out():
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    functions = [F.sum, F.mean, F.var, F.std, F.prod, F.amax, F.amin, F.argmax, F.argmin, F.logsumexp, F.norm]
    for function in [*functions, F.cumsum, F.cumprod, F.all, F.any]:
        y = function(x, dim=1)
        assert type(y) is np.ndarray and np.array_equal(y, function(tensor(x), dim=1).data), function.__name__
    assert isinstance(F.max(tensor(x), 0).values, Tensor) and isinstance(F.max(x, 0).values, np.ndarray)


def test_errors_name_the_op_and_the_dims():
    x = tensor([[1.0, 2.0, 3.0]])
    with pytest.raises(IndexError, match=r"(?s)sum: dim 2 is out of range: the input has dims -2 to 1.*\(1, 3\)"):
        F.sum(x, dim=2)
    with pytest.raises(ValueError, match=r"mean: dims \(1, -1\) name one dim twice"):
        F.mean(x, dim=(1, -1))
    with pytest.raises(TypeError, match=r"argmax: dim is one dim or None; got \(0, 1\)"):
        F.argmax(x, dim=(0, 1))
    with pytest.raises(ValueError, match=r"norm: p is a positive number or math\.inf; got -1"):
        F.norm(x, p=-1)
    with pytest.raises(IndexError, match="cumsum: dim 3 is out of range"):
        F.cumsum(x, dim=3)


def test_pytorch_and_numpy_names_for_arguments():
    x = tensor([[1.0, 2.0], [3.0, 4.0]])
    assert F.sum(x, axis=0, keepdims=True).tolist() == x.sum(dim=0, keepdim=True).tolist() == [[4.0, 6.0]]
    assert F.max(x, axis=1).values.tolist() == [2.0, 4.0]


def test_gradients_and_inputs_share_no_memory():
    x = np.ones((2, 3))
    t = tensor(x, requires_grad=True)
    dout = np.ones(3)
    F.sum(t, 0).backward(tensor(dout))
    t.grad.data[...] = 7.0
    assert (x == 1).all() and (dout == 1).all()
