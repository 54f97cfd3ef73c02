"""Accumulated gradients are those of the large batch, also where parts have different numbers of targets."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minillm
from minillm.models import GPT
from minillm.training.accumulation import accumulate

rng = np.random.default_rng(0)


def batch():
    ids, targets = rng.integers(0, 7, (2, 6, 8))
    targets[0, :6] = targets[3] = -100  # a part with few targets, and one row with none
    return ids, targets


def gradients(parts, weights):
    minillm.manual_seed(0)
    model = GPT(7, context=8, layers=1, heads=2, width=8).double()
    value = accumulate(lambda part: model.loss(*part), parts, weights)
    return value, [p.grad.numpy() for p in model.parameters()]


@pytest.mark.parametrize("cuts", [[2, 4], [1, 2, 3, 4, 5], [3]])
def test_the_same_gradient_as_the_large_batch(cuts):
    ids, targets = batch()
    parts = list(zip(np.split(ids, cuts), np.split(targets, cuts)))
    counts = [int((t != -100).sum()) for _, t in parts]
    value, got = gradients(parts, counts)
    whole, want = gradients([(ids, targets)], [1])
    assert value == pytest.approx(whole, rel=1e-12)
    for g, w in zip(got, want):
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-14)
    if len(set(counts)) > 1:
        _, unweighted = gradients([p for p, n in zip(parts, counts) if n], [1 for n in counts if n])
        assert max(abs(g - w).max() for g, w in zip(unweighted, want)) > 1e-4


def test_parts_may_be_one_array():
    minillm.manual_seed(0)
    w = minillm.tensor(np.ones(3), requires_grad=True)
    value = accumulate(lambda x: (w * minillm.tensor(x)).sum(), np.arange(6.0).reshape(2, 3), np.array([1, 3]))
    assert value == pytest.approx((3 + 3 * 12) / 4)
    np.testing.assert_allclose(w.grad.numpy(), np.array([9, 13, 17]) / 4)


def test_one_part_is_backward():
    ids, targets = batch()
    minillm.manual_seed(0)
    model = GPT(7, context=8, layers=1, heads=2, width=8)
    model.loss(ids, targets).backward()
    minillm.manual_seed(0)
    other = GPT(7, context=8, layers=1, heads=2, width=8)
    accumulate(lambda part: other.loss(*part), [(ids, targets)], [1.0])
    for p, q in zip(model.parameters(), other.parameters()):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


def test_what_it_refuses():
    wrong = [([], []), ([1], [1, 2]), ([1], [0]), ([1, 2], [1, -1]), ([1], [math.inf]), ([1], [math.nan])]
    for parts, weights in wrong:
        with pytest.raises(ValueError, match="weight"):
            accumulate(lambda part: part, parts, weights)
