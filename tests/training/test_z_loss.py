"""z-loss: the formula is what the fused loss computes, and it keeps log Z near 0 where cross-entropy lets it drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_checks import with_grad

import minillm
from minillm import functional as F
from minillm import nn, optim
from minillm.training.z_loss import cross_entropy_with_z_loss, log_z


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.floats(0, 1), st.integers(0, 99))
def test_the_fused_loss_is_the_formula(n, classes, z, seed):
    rng = np.random.default_rng(seed)
    logits, y = 3 * rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    y[rng.random(n) < 0.3] = -100
    value, grad = with_grad(lambda x: cross_entropy_with_z_loss(x, y, z), logits)
    got, got_grad = with_grad(lambda x: F.linear_cross_entropy(x, np.eye(classes), y, z_loss=z), logits)
    assert got == pytest.approx(value, rel=1e-10, abs=1e-12)
    np.testing.assert_allclose(got_grad, grad, rtol=1e-9, atol=1e-12)
    kept = max(1, (y != -100).sum())
    p, hit = np.exp(logits - log_z(logits)[:, None]), y[:, None] == np.arange(classes)
    plain = (p - hit + 2 * z * log_z(logits)[:, None] * p) / kept
    np.testing.assert_allclose(grad, np.where((y == -100)[:, None], 0, plain), rtol=1e-8, atol=1e-12)


def test_cross_entropy_does_not_see_the_height_of_the_logits_and_the_penalty_does():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(4, 5)), rng.integers(0, 5, 4)
    plain, higher = cross_entropy_with_z_loss(logits, y, 0.0), cross_entropy_with_z_loss(logits + 50, y, 0.0)
    assert higher == pytest.approx(plain)
    _, grad = with_grad(lambda x: cross_entropy_with_z_loss(x, y, 0.0), logits)
    np.testing.assert_allclose(grad.sum(1), 0, atol=1e-12)  # nothing pulls the height anywhere
    _, grad = with_grad(lambda x: cross_entropy_with_z_loss(x, y, 0.1), logits + 50)
    np.testing.assert_allclose(grad.sum(1), 2 * 0.1 * log_z(logits + 50) / 4)


def train(z):
    """Softmax regression whose logits start 20 too high: (mean |log Z|, cross-entropy) afterwards."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype(np.float32)
    y = (x @ rng.normal(size=(8, 5)) + rng.gumbel(size=(256, 5))).argmax(1)
    minillm.manual_seed(0)
    body, head = nn.Linear(8, 16), nn.Parameter(0.1 * rng.normal(size=(5, 16)).astype(np.float32))
    with minillm.no_grad():
        body.bias[0] = 20.0
        head[:, 0] = 1.0
    adam = optim.Adam([*body.parameters(), head], lr=0.05)
    inputs = minillm.tensor(x)
    for _ in range(300):
        adam.zero_grad()
        F.linear_cross_entropy(body(inputs), head, y, z_loss=z).backward()
        adam.step()
    logits = F.linear(body(inputs), head).numpy()
    return np.abs(log_z(logits)).mean(), F.cross_entropy(logits, y)


def test_it_keeps_log_z_near_0_and_costs_nothing():
    height, loss = train(1e-3)
    drifted, plain = train(0.0)
    assert height < 1 and drifted > 15
    assert loss == pytest.approx(plain, abs=1e-3)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="0 or more"):
        cross_entropy_with_z_loss(np.zeros((2, 3)), np.zeros(2, int), -1.0)
    with pytest.raises(ValueError, match=r"logits \(N, C\)"):
        cross_entropy_with_z_loss(np.zeros((2, 3)), np.zeros(3, int))
    assert cross_entropy_with_z_loss(np.zeros((2, 3)), np.full(2, -100)) == 0
