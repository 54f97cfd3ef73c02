"""softmax and log_softmax where a plain formula would overflow, and at the edges of shape."""

import numpy as np
import pytest

from minillm import functional as F
from minillm import tensor


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_large_logits_are_shifted_not_overflown(name, dtype):
    x = np.array([[1e4, 1e4 - 1, -1e4], [1e30, 0.0, -1e30]], dtype)
    out = getattr(F, name)(x)
    p = np.exp(out) if name == "log_softmax" else out
    assert out.dtype == dtype
    e = np.exp(-1.0)
    np.testing.assert_allclose(p, [[1 / (1 + e), e / (1 + e), 0], [1, 0, 0]], rtol=2e-7, atol=0)


def test_log_softmax_is_exact_where_softmax_rounds_to_zero():
    x = tensor([[0.0, -300.0]], requires_grad=True)
    out = F.log_softmax(x)
    assert out.tolist() == [[0.0, -300.0]]
    out[0, 1].backward()
    np.testing.assert_array_equal(x.grad.data, [[-1.0, 1.0]])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_minus_infinity_is_probability_zero_with_zero_gradient(name):
    x = tensor([1.0, -np.inf, 2.0], requires_grad=True)
    out = getattr(F, name)(x)
    assert out.tolist()[1] == (0.0 if name == "softmax" else -np.inf)
    (out[0] * 3 + out[2]).backward()
    assert np.isfinite(x.grad.data).all() and x.grad.tolist()[1] == 0


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_row_of_minus_infinity_is_nan_as_in_pytorch(name):
    with np.errstate(invalid="ignore"):
        out = getattr(F, name)(np.array([[-np.inf, -np.inf], [0.0, 0.0]]))
    assert np.isnan(out[0]).all() and np.isfinite(out[1]).all()


@pytest.mark.parametrize("shape, dim", [((0, 3), 1), ((3, 0), 1), ((3, 0), 0), ((), 0), ((1,), -1)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_shapes_without_much_in_them(name, shape, dim):
    x = tensor(np.zeros(shape, np.float32), requires_grad=True)
    out = getattr(F, name)(x, dim)
    assert out.shape == shape and out.dtype == np.float32
    out.sum().backward()
    assert x.grad.shape == shape


def test_layouts_do_not_matter():
    x = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    view = x[::-2, 1::3].T
    np.testing.assert_array_equal(F.softmax(view, dim=0), F.softmax(view.copy(), dim=0))


def test_axis_is_dim():
    x = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_array_equal(F.softmax(tensor(x), axis=0).data, F.softmax(x, dim=0))


def test_the_jacobian_is_diag_p_minus_p_p():
    x = tensor(np.random.default_rng(0).standard_normal((2, 4)), requires_grad=True)
    c = np.random.default_rng(1).standard_normal((2, 4))
    out = F.softmax(x)
    out.backward(tensor(c))
    for row in range(2):
        p = out.data[row]
        np.testing.assert_allclose(x.grad.data[row], (np.diag(p) - np.outer(p, p)) @ c[row], rtol=1e-12)
