"""layer_norm and rms_norm: cancellation, eps, shapes, and what they say to wrong ones."""

import numpy as np
import pytest

from minillm import functional as F
from minillm import tensor


def test_variance_does_not_cancel_far_from_zero():
    x = (40_000 + np.arange(4, dtype=np.float32)).reshape(1, 4)
    out = F.layer_norm(x, 4)
    np.testing.assert_allclose(out[0], (np.arange(4) - 1.5) / np.sqrt(1.25 + 1e-5), rtol=1e-6)


@pytest.mark.parametrize("name, eps", [("layer_norm", 1e-5), ("rms_norm", 1e-6)])
def test_eps_stands_inside_the_root(name, eps):
    x = tensor(np.zeros((2, 3)), requires_grad=True)
    out = getattr(F, name)(x, 3, eps=eps)
    assert not out.data.any()
    out.backward(tensor(np.array([[1.0, -1.0, 0.0]] * 2)))
    np.testing.assert_allclose(x.grad.data, np.array([[1.0, -1.0, 0.0]] * 2) / np.sqrt(eps))


def test_rms_norm_default_eps_is_the_dtypes():
    x = np.full((1, 2), 1e-4, np.float32)
    expected = 1e-4 / np.sqrt(1e-8 + np.finfo(np.float32).eps)
    np.testing.assert_allclose(F.rms_norm(x, 2), [[expected] * 2], rtol=1e-6)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_float32_in_float32_out(name):
    x, w = (tensor(np.ones(s, np.float32), requires_grad=True) for s in ((2, 3), (3,)))
    out = getattr(F, name)(x, 3, w)
    out.sum().backward()
    assert out.dtype == x.grad.dtype == w.grad.dtype == np.float32


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_no_rows(name):
    x, w = (tensor(np.zeros(s, np.float32), requires_grad=True) for s in ((0, 3), (3,)))
    getattr(F, name)(x, 3, w).sum().backward()
    assert x.grad.shape == (0, 3) and w.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_layouts_do_not_matter(name):
    base = np.random.default_rng(0).standard_normal((7, 10))
    for view in (base[::-2, ::3], base.T[:5], np.asfortranarray(base)):
        function = getattr(F, name)
        np.testing.assert_array_equal(function(view, view.shape[1:]), function(view.copy(), view.shape[1:]))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("shape, weight", [((4,), None), ((2, 3), (3,)), ((3,), (1,)), ((), None), ((1, 2, 3), None)])
def test_wrong_shapes_are_named(name, shape, weight):
    w = None if weight is None else tensor(np.ones(weight))
    with pytest.raises(ValueError, match="normalized_shape"):
        getattr(F, name)(tensor(np.zeros((2, 3))), shape, w)
