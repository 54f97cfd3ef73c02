"""dropout: how much, how scaled, with which mask, and when not at all."""

import numpy as np
import pytest

from minillm import Generator, get_rng_state, grad, manual_seed, tensor
from minillm import functional as F


def test_the_kept_are_scaled_and_the_share_is_right():
    out = F.dropout(np.ones((100, 200), np.float32), 0.3, generator=Generator(1))
    assert out.dtype == np.float32
    assert set(np.unique(out)) == {0, np.float32(1 / 0.7)}
    assert abs((out == 0).mean() - 0.3) < 5 * np.sqrt(0.21 / out.size)
    assert abs(out.mean() - 1) < 0.025


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_backward_has_the_mask_of_its_forward(dtype):
    manual_seed(3)
    x = tensor(np.random.default_rng(0).standard_normal((5, 7)).astype(dtype), requires_grad=True)
    first, second = F.dropout(x, 0.4), F.dropout(x, 0.4)
    assert (first.data != second.data).any()
    for out in (first, second):
        x.grad = None
        out.sum().backward()
        np.testing.assert_allclose(x.grad.data * x.data, out.data, rtol=1e-6)
        assert x.grad.dtype == dtype


def test_the_seed_fixes_the_mask_for_every_dtype_and_layout():
    x = np.ones((6, 4))
    masks = [F.dropout(a, 0.5, generator=Generator(9)) != 0 for a in (x, x.astype(np.float32), np.ones((4, 6)).T)]
    assert masks[0].any() and not masks[0].all()
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


def test_second_derivative_has_the_mask_too():
    x = tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    out = F.dropout(x, 0.5, generator=Generator(2))
    (g,) = grad_of((out**3).sum(), x)
    (h,) = grad_of(g.sum(), x)
    scale = (out.data / x.data).astype(np.float64)
    assert 0 < (scale == 0).sum() < 4
    np.testing.assert_allclose(h.data, 6 * x.data * scale**3, rtol=1e-6)


def grad_of(y, x):
    x.grad = None
    y.backward(create_graph=True)
    return (x.grad,)


def test_off_in_evaluation_and_at_zero():
    before = get_rng_state()
    x = tensor([1.0, 2.0])
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert get_rng_state() == before


def test_one_drops_everything_even_infinity():
    x = tensor([np.inf, -1.0, np.nan], requires_grad=True)
    out = F.dropout(x, 1.0)
    out.sum().backward()
    assert out.tolist() == [0, 0, 0] and x.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_is_a_probability(p):
    with pytest.raises(ValueError, match="probability"):
        F.dropout(tensor([1.0]), p)


def test_numpys_own_generator_is_left_alone():
    before = np.random.get_state()[1].copy()
    F.dropout(np.ones(10), 0.5)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_inside_a_transform():
    g = grad(lambda x: F.dropout(x, 0.5, generator=Generator(4)).sum())(tensor(np.ones(50)))
    assert set(np.unique(g.data)) == {0.0, 2.0}
