"""The noise scale of problems where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minillm
from minillm import nn
from minillm.training.accumulation import accumulate
from minillm.training.noise_scale import NoiseScale, squared_norms


def problem(distance, sigma, dims=50):
    """loss = mean over examples x of |w - x|^2 / 2, x ~ N(0, sigma^2 I): G = w, S = dims sigma^2."""
    w = nn.Parameter(np.full(dims, distance / math.sqrt(dims)))
    rng = np.random.default_rng(0)

    def part(n):
        return minillm.tensor(sigma * rng.normal(size=(n, dims)))

    return w, part, lambda x: (w - x).square().sum() * (0.5 / x.shape[0])


@pytest.mark.parametrize(("distance", "sigma"), [(1.0, 1.0), (3.0, 0.5), (2.0, 2.0)])
@pytest.mark.parametrize(("small", "parts"), [(4, 4), (1, 16), (16, 2)])
def test_a_known_noise_scale(distance, sigma, small, parts):
    w, part, loss = problem(distance, sigma)
    noise = NoiseScale(small, small * parts, decay=0.999)
    for _ in range(400):
        noise.update(*squared_norms(loss, [part(small) for _ in range(parts)], [w]))
    assert noise.noise == pytest.approx(50 * sigma**2, rel=0.05)
    assert noise.signal == pytest.approx(distance**2, rel=0.2)
    assert noise.value == pytest.approx(50 * sigma**2 / distance**2, rel=0.25)


def test_two_batch_sizes_give_the_sample_variance():
    """With parts b of one batch, S is b times the variance of the parts' gradients, without bias."""
    rng = np.random.default_rng(0)
    g = rng.normal(size=(5, 7))
    w = nn.Parameter(np.zeros(7))
    small, large = squared_norms(lambda row: (w * minillm.tensor(row)).sum(), list(g), [w])
    assert small == pytest.approx((g**2).sum(1).mean(), rel=1e-12)
    assert large == pytest.approx((g.mean(0) ** 2).sum(), rel=1e-12)
    noise = NoiseScale(3, 15)
    noise.update(small, large)
    assert noise.noise == pytest.approx(3 * g.var(0, ddof=1).sum(), rel=1e-10)


def test_a_step_at_the_noise_scale_is_worth_half():
    """Best steps with batches of B = scale: the loss falls by half of what it would without noise."""
    w, part, loss = problem(distance=5.0, sigma=1.0)
    noise = NoiseScale(1, 2)
    noise.update(25 + 50, 25 + 25)  # what they are in expectation: a scale of 2
    assert noise.value == pytest.approx(2.0) and noise.efficiency(2) == pytest.approx(0.5)
    for batch in (1, 2, 8):
        lr = noise.efficiency(batch)  # the best one, as the curvature is 1
        fall = []
        for _ in range(3000):
            g = w.numpy() - part(batch).numpy().mean(0)
            fall.append(25 - ((w.numpy() - lr * g) ** 2).sum())
        assert np.mean(fall) / 25 == pytest.approx(noise.efficiency(batch), rel=0.05)


def test_the_large_norm_is_that_of_accumulated_gradients_and_grad_stays():
    minillm.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    parts = list(np.random.default_rng(0).normal(size=(3, 6, 3)))

    def loss(x):
        return model(minillm.tensor(x)).square().mean()

    accumulate(loss, parts, [1, 1, 1])
    grads = [p.grad for p in model.parameters()]
    copies = [g.numpy().copy() for g in grads]
    _, large = squared_norms(loss, parts, model.parameters())
    assert large == pytest.approx(sum((g**2).sum() for g in copies), rel=1e-12)
    for p, grad, copy in zip(model.parameters(), grads, copies):
        assert p.grad is grad and np.array_equal(grad.numpy(), copy)


def test_averages_are_taken_before_the_quotient_and_have_no_bias_to_0():
    noise = NoiseScale(1, 2, decay=0.9)
    noise.update(6.0, 4.0)  # S = 4, |G|^2 = 2
    assert (noise.noise, noise.signal, noise.value) == pytest.approx((4.0, 2.0, 2.0))
    noise.update(2.0, 0.5)  # S = 3, |G|^2 = -1: alone, no answer
    assert noise.signal == pytest.approx((0.9 * 2 - 1) / 1.9)
    assert noise.value == pytest.approx((0.9 * 4 + 3) / (0.9 * 2 - 1))
    again = NoiseScale(1, 2, decay=0.9)
    again.load_state_dict(noise.state_dict())
    assert again.value == noise.value
    for _ in range(5):
        noise.update(2.0, 0.5)
    assert noise.value == math.inf and noise.efficiency(100) == 0


def test_what_it_refuses():
    for wrong in ((0, 2), (2, 2), (4, 2), (1, math.inf)):
        with pytest.raises(ValueError, match="small < large"):
            NoiseScale(*wrong)
    with pytest.raises(ValueError, match="decay"):
        NoiseScale(1, 2, decay=1.0)
    noise, w = NoiseScale(1, 2), nn.Parameter([1.0])
    with pytest.raises(ValueError, match="nothing was measured"):
        noise.value  # noqa: B018
    with pytest.raises(ValueError, match="finite"):
        noise.update(math.nan, 1.0)
    with pytest.raises(ValueError, match="at least two"):
        squared_norms(lambda x: w.sum(), [1], [w])
    with pytest.raises(ValueError, match="no parameter has a gradient"):
        squared_norms(lambda x: w.sum(), [1, 2], [nn.Parameter([1.0])])
