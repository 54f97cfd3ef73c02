"""Gradient clipping."""

import math

import numpy as np
import pytest

from minillm import Tensor, nn, optim


def with_gradients(arrays):
    params = []
    for a in arrays:
        p = nn.Parameter(np.zeros(a.shape, a.dtype))
        p.grad = Tensor(a.copy())
        params.append(p)
    return [*params, nn.Parameter([1.0])]  # the last one has none


@pytest.mark.oracle
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_norm_and_the_clipped_gradients_are_those_of_pytorch(norm_type, max_norm, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.standard_normal(s), dtype) for s in [(5, 4), (3,), (), (2, 0)]]
    params = with_gradients(arrays)
    theirs = [torch.nn.Parameter(torch.zeros(a.shape, dtype=getattr(torch, dtype))) for a in arrays]
    for q, a in zip(theirs, arrays):
        q.grad = torch.tensor(a)
    norm_params = theirs[:-1] if norm_type == math.inf else theirs  # an empty one has no maximum in PyTorch
    norm_ = torch.nn.utils.clip_grad_norm_(norm_params, max_norm, norm_type)
    norm = optim.clip_grad_norm_(params, max_norm, norm_type)
    rtol = 1e-6 if dtype == "float32" else 1e-13
    assert norm.dtype == np.dtype(dtype)
    assert norm.shape == ()
    assert norm.item() == pytest.approx(norm_.item(), rel=rtol)
    for p, q, a in zip(params, theirs, arrays):
        assert p.grad.dtype == a.dtype
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=2 * rtol)
    assert params[-1].grad is None


def test_the_norm_after_clipping_is_the_limit_and_directions_stay():
    arrays = [np.full((100,), 3.0), np.full((7,), -4.0)]
    params = with_gradients(arrays)
    before = optim.clip_grad_norm_(params, 1.0)
    assert before.item() == pytest.approx(math.sqrt(900 + 112))
    after = math.sqrt(sum((p.grad.numpy() ** 2).sum() for p in params[:2]))
    assert 0.999 < after <= 1
    np.testing.assert_allclose(params[0].grad.numpy() / params[1].grad.numpy()[0], -0.75)


def test_gradients_inside_the_limit_keep_their_bits():
    a = np.array([0.3, -0.4], np.float32)
    params = with_gradients([a])
    assert optim.clip_grad_norm_(params, 1.0).item() == pytest.approx(0.5)
    assert np.array_equal(params[0].grad.numpy(), a)


def test_float32_norms_neither_overflow_nor_lose_small_terms():
    # squares of 1e25 overflow float32; a million 1s after 1e4 would be lost in a float32 running sum
    assert optim.clip_grad_norm_(with_gradients([np.full(4, 1e25, np.float32)]), 1.0).item() == pytest.approx(2e25)
    many = np.ones(1_000_000, np.float32)
    many[0] = 1e4
    norm = optim.clip_grad_norm_(with_gradients([many]), 1.0)
    assert norm.item() == pytest.approx(math.sqrt(1e8 + 999_999), rel=1e-7)


def test_a_norm_that_is_not_finite():
    bad = [np.array([np.nan, 1.0]), np.array([2.0])]
    params = with_gradients(bad)
    with pytest.raises(ValueError, match="is nan; nothing was clipped"):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert params[1].grad.tolist() == [2.0]
    assert math.isnan(optim.clip_grad_norm_(params, 1.0).item())
    assert math.isnan(params[1].grad.item())


def test_nothing_to_clip_one_tensor_and_bad_limits():
    assert optim.clip_grad_norm_([nn.Parameter([1.0])], 1.0).item() == 0
    p = with_gradients([np.array([3.0, 4.0])])[0]
    assert optim.clip_grad_norm_(p, 10.0).item() == 5
    for bad in [(-1.0, 2.0), (1.0, 0.0), (math.nan, 2.0)]:
        with pytest.raises(ValueError, match="max_norm >= 0 and norm_type > 0"):
            optim.clip_grad_norm_([p], *bad)
    with pytest.raises(ValueError, match="clip_value >= 0"):
        optim.clip_grad_value_([p], -1)


def test_clipping_by_value():
    params = with_gradients([np.array([-3.0, 0.5, 2.0], np.float32)])
    optim.clip_grad_value_(params, 1.0)
    assert params[0].grad.tolist() == [-1.0, 0.5, 1.0]
    assert params[0].grad.dtype == np.float32
