"""Activation functions: kinks, far-out values, dtypes, edge shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minillm import functional as F
from minillm import gradients, tensor

ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, "tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "logsigmoid": F.logsigmoid,
}


def value_and_gradient(function, x, dtype=np.float64):
    x = tensor(np.array(x, dtype), requires_grad=True)
    y = function(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    return y.data, x.grad.data


def test_slopes_at_kinks():
    at_0 = {"relu": 0.0, "leaky_relu": 0.01, "elu": 1.0, "mish": 0.6}  # 0.5 for the others, which are smooth there
    for name, function in ACTIVATIONS.items():
        slope = at_0.get(name, 0.5)
        np.testing.assert_allclose(value_and_gradient(function, [0.0])[1], [slope], rtol=1e-14, err_msg=name)


def test_known_values():
    for name, value in [
        ("relu", 1.0),
        ("elu", 1.0),
        ("gelu", 0.5 * (1 + math.erf(1 / math.sqrt(2)))),
        ("silu", 1 / (1 + math.exp(-1))),
        ("mish", math.tanh(math.log(1 + math.e))),
        ("softplus", math.log(1 + math.e)),
        ("logsigmoid", -math.log(1 + math.exp(-1))),
    ]:
        np.testing.assert_allclose(ACTIVATIONS[name](tensor(np.array([1.0]))).data, [value], rtol=1e-14)
    assert value_and_gradient(lambda x: F.elu(x, alpha=2.0), [-math.inf])[0][0] == -2.0
    assert value_and_gradient(lambda x: F.leaky_relu(x, negative_slope=0.5), [-2.0])[0][0] == -1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_far_out_values_are_finite_and_silent(name, dtype):
    """At +-1000 and +-10000 each is 0, a constant, or a straight line, and warnings are errors here."""
    left = {"relu": 0.0, "leaky_relu": 0.01, "elu": 0.0, "logsigmoid": 1.0}.get(name, 0.0)
    right = 0.0 if name == "logsigmoid" else 1.0
    x = [-10000.0, -1000.0, 1000.0, 10000.0]
    y, dx = value_and_gradient(ACTIVATIONS[name], x, dtype)
    np.testing.assert_allclose(dx, [left, left, right, right], atol=1e-30, rtol=1e-6)
    offset = -1.0 if name == "elu" else 0.0
    expected = [left * x[0] + offset, left * x[1] + offset, right * x[2], right * x[3]]
    np.testing.assert_allclose(y, expected, atol=1e-30, rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_derivative_is_finite_far_out(name):
    x = tensor(np.array([-1000.0, -30.0, 30.0, 1000.0]), requires_grad=True)
    first = gradients(ACTIVATIONS[name](x).sum(), x, create_graph=True)
    second = gradients((first * x).sum(), x)
    assert np.isfinite(second.data).all()


def test_softplus_and_logsigmoid_keep_their_small_values():
    y, dx = value_and_gradient(F.softplus, [-40.0])
    np.testing.assert_allclose([y[0], dx[0]], math.exp(-40), rtol=1e-12)
    y, dx = value_and_gradient(F.logsigmoid, [40.0])
    np.testing.assert_allclose([-y[0], dx[0]], math.exp(-40), rtol=1e-12)


def test_softplus_beyond_its_threshold_is_the_line():
    y, dx = value_and_gradient(lambda x: F.softplus(x, beta=2.0, threshold=1.0), [0.4, 0.6])
    assert y[0] == pytest.approx(math.log1p(math.exp(0.8)) / 2, rel=1e-14)
    assert (y[1], dx[1]) == (0.6, 1.0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_any_layout(name):
    base = np.random.default_rng(0).standard_normal((4, 6))
    views = [base.T, base[::-1, ::-2], np.broadcast_to(base[0], (3, 6)), base[:, :0], base[1, 1:2].reshape(())]
    for view in views:
        y, dx = value_and_gradient(ACTIVATIONS[name], view)
        assert y.shape == dx.shape == view.shape
        x = tensor(view, requires_grad=True)
        strided = ACTIVATIONS[name](x)
        strided.sum().backward()
        np.testing.assert_allclose(strided.data, y, rtol=1e-13)
        np.testing.assert_allclose(x.grad.data, dx, rtol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_0_d_in_the_middle_of_a_graph(name):
    x, column = tensor(np.array(0.7), requires_grad=True), tensor(np.array([0.7]), requires_grad=True)
    F.exp(F.square(ACTIVATIONS[name](x))).backward()
    F.exp(F.square(ACTIVATIONS[name](column))).sum().backward()
    assert x.grad.shape == () and x.grad.dtype == np.float64
    np.testing.assert_allclose(x.grad.data, column.grad.data[0], rtol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_plain_arrays_and_integers(name):
    x = np.linspace(-3, 3, 7, dtype=np.float32)
    y = ACTIVATIONS[name](x)
    assert type(y) is np.ndarray and y.dtype == np.float32
    assert np.array_equal(y, ACTIVATIONS[name](tensor(x)).data)
    n = ACTIVATIONS[name](tensor([-1, 2]))
    assert n.dtype == (np.int64 if name == "relu" else np.float32)


def test_gelu_of_two_kinds():
    x = tensor([1.0])
    assert F.gelu(x).item() != F.gelu(x, approximate="tanh").item()
    with pytest.raises(ValueError, match=r'(?s)gelu: .*approximate must be "none" or "tanh".*sigmoid'):
        F.gelu(x, approximate="sigmoid")
