"""Stochastic depth: whole sequences drop out of a branch, what is left is scaled, and evaluation sees the branch."""

from __future__ import annotations

import numpy as np
import pytest

import minillm
from minillm import nn, ones, randn
from minillm.models import GPT
from minillm.nn import StochasticDepth


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_one_draw_for_each_sequence_and_the_expectation_stays(p):
    minillm.manual_seed(0)
    y = StochasticDepth(p)(ones(4000, 3, 2)).numpy().reshape(4000, -1)
    assert y.dtype == np.float32
    assert (y == y[:, :1]).all()
    left_out = y[:, 0] == 0
    np.testing.assert_allclose(y[~left_out], 1 / (1 - p), rtol=1e-6)
    assert abs(left_out.mean() - p) < 5 * (p * (1 - p) / 4000) ** 0.5
    assert y.mean() == pytest.approx(1, abs=5 * (p / (1 - p) / 4000) ** 0.5)


def test_a_branch_that_is_left_out_gets_no_gradient():
    minillm.manual_seed(1)
    x, branch = randn(64, 5), randn(64, 5, requires_grad=True)
    out = x + StochasticDepth(0.5)(branch)
    out.sum().backward()
    left_out = (out.numpy() == x.numpy()).all(1)
    assert 10 < left_out.sum() < 54
    np.testing.assert_array_equal(branch.grad.numpy(), np.where(left_out, 0, 2)[:, None] * np.ones((1, 5)))


def test_draws_differ_and_a_seed_fixes_them():
    layer, x = StochasticDepth(0.5), ones(64, 1)
    minillm.manual_seed(2)
    first, second = layer(x).numpy(), layer(x).numpy()
    minillm.manual_seed(2)
    np.testing.assert_array_equal(layer(x).numpy(), first)
    assert not np.array_equal(first, second)


def test_corners():
    x = ones(8, 2)
    assert StochasticDepth(0.0)(x) is x
    assert StochasticDepth(0.9).eval()(x) is x
    assert not StochasticDepth(1.0)(x).numpy().any()
    assert StochasticDepth(0.5)(ones(0, 3)).shape == (0, 3)
    assert "p=0.25" in repr(nn.Sequential(StochasticDepth(0.25)))
    for p in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="0 <= p <= 1"):
            StochasticDepth(p)
    with pytest.raises(ValueError, match="0-d"):
        StochasticDepth(0.5)(minillm.tensor(1.0))


def test_later_blocks_of_a_gpt_are_left_out_more_often():
    """With p_i growing from 0 to 0.6 the mean number of blocks that a sequence passes is known."""
    model = GPT(5, context=4, layers=4, heads=1, width=4, stochastic_depth=0.6)
    assert [block.skip.p for block in model.blocks] == pytest.approx([0, 0.2, 0.4, 0.6])
    ids = np.zeros((1, 4), int)
    minillm.manual_seed(0)
    assert len({model(ids).numpy().tobytes() for _ in range(30)}) > 10
    model.eval()
    assert len({model(ids).numpy().tobytes() for _ in range(3)}) == 1


def test_on_another_device():
    from minillm.testing import strict

    strict.install()
    results = []
    for device in ("cpu", "strict"):
        minillm.manual_seed(3)
        results.append(StochasticDepth(0.5)(ones(16, 2).to(device)).cpu().numpy())
    np.testing.assert_array_equal(*results)
