"""Label smoothing: the formula is what the fused losses compute, and it bounds how far logits grow apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_checks import with_grad

from minillm import functional as F
from minillm import nn, optim
from minillm.training.label_smoothing import least_loss, logit_gap, smoothed_cross_entropy, smoothed_targets


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.floats(0, 1), st.integers(0, 99))
def test_the_fused_losses_are_the_formula(n, classes, s, seed):
    rng = np.random.default_rng(seed)
    logits, y = 3 * rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    value, grad = with_grad(lambda x: smoothed_cross_entropy(x, y, s), logits)
    for fused in (
        lambda x: F.cross_entropy(x, y, label_smoothing=s),
        lambda x: F.linear_cross_entropy(x, np.eye(classes), y, label_smoothing=s),
    ):
        got, got_grad = with_grad(fused, logits)
        assert got == pytest.approx(value, rel=1e-10, abs=1e-12)
        np.testing.assert_allclose(got_grad, grad, rtol=1e-9, atol=1e-12)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(grad, (p - smoothed_targets(y, classes, s, "float64")) / n, rtol=1e-8, atol=1e-12)


def test_targets_are_probabilities():
    q = smoothed_targets(np.array([[0, 2], [1, 1]]), 5, 0.3, "float64")
    np.testing.assert_allclose(q.sum(-1), 1)
    assert q.shape == (2, 2, 5) and q.max() == pytest.approx(0.7 + 0.06)
    assert (smoothed_targets(np.array([0, 1]), 2, 0.0) == np.eye(2)).all()


def train(s, steps, classes=6):
    """Logits that are free to become anything: (gap between the right and the next one, loss)."""
    y = np.arange(classes)
    logits = nn.Parameter(np.zeros((classes, classes)))
    adam = optim.Adam([logits], lr=0.1)
    for _ in range(steps):
        adam.zero_grad()
        loss = F.cross_entropy(logits, y, label_smoothing=s)
        loss.backward()
        adam.step()
    right = np.eye(classes, dtype=bool)
    z = logits.numpy()
    return (z[right][:, None] - z[~right].reshape(classes, -1)).min(), loss.item()


@pytest.mark.parametrize("s", [0.05, 0.2])
def test_it_bounds_the_gap_between_logits(s):
    gap, loss = train(s, 400)
    assert gap == pytest.approx(logit_gap(6, s), rel=0.01)
    assert loss == pytest.approx(least_loss(6, s), rel=1e-3)
    early, late = train(0.0, 400)[0], train(0.0, 800)[0]
    assert late > early + 0.5 and early > logit_gap(6, s) + 1  # without it they grow on and on


def test_corners():
    assert logit_gap(10, 0.0) == math.inf and logit_gap(10, 1.0) == 0
    assert least_loss(10, 0.0) == 0 and least_loss(10, 1.0) == pytest.approx(math.log(10))
    assert logit_gap(4, 0.4) == pytest.approx(math.log(0.7 / 0.1))


def test_what_it_refuses():
    with pytest.raises(ValueError, match="0 <= smoothing <= 1"):
        smoothed_targets(np.array([0]), 3, 1.5)
    with pytest.raises(IndexError, match=r"outside 0 \.\. 2"):
        smoothed_targets(np.array([0, 3]), 3, 0.1)
    with pytest.raises(TypeError, match="integer"):
        smoothed_targets(np.array([0.5]), 3, 0.1)
    with pytest.raises(ValueError, match=r"logits \(N, C\)"):
        smoothed_cross_entropy(np.zeros((2, 3)), np.zeros(3, int), 0.1)
