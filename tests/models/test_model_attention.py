"""The attention model: weights that sum to 1, both scores, both heads, an encoder that looks both ways."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minillm
from minillm.models import AttentionModel

rng = np.random.default_rng(0)
SCORES = ("additive", "scaled_dot")


def small(**settings) -> AttentionModel:
    minillm.manual_seed(0)
    return AttentionModel(3, 5, settings.pop("classes", 4), width=8, heads=2, **settings).double()


x = minillm.tensor(rng.standard_normal((6, 5, 3)))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_weights_sum_to_one_over_positions(score, blocks):
    out = small(score=score, blocks=blocks)(x)
    assert out.output.shape == (6, 4)
    assert out.weights.shape == (6, 5)
    weights = out.weights.numpy()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-12)
    assert (weights > 0).all() and weights.std() > 0


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_the_formula(score):
    model = small(score=score)
    s = rng.standard_normal((2, 5, 8))
    model.start.data[...] = rng.standard_normal(8)
    before = (
        np.concatenate([np.broadcast_to(model.start.numpy(), (2, 1, 8)), s[:, :-1]], 1)
        @ model.previous.weight.numpy().T
    )
    now = s @ model.current.weight.numpy().T + model.current.bias.numpy()
    if score == "additive":
        expected = np.tanh(before + now) @ model.v.weight.numpy()[0]
    else:
        expected = (before * now).sum(-1) / math.sqrt(8)
    np.testing.assert_allclose(model.scores(minillm.tensor(s)).numpy(), expected, rtol=1e-12)


def test_the_context_is_the_weighted_mean_of_the_states():
    model = small()
    s = model.encode(x).numpy()
    out = model(x)
    context = np.einsum("bs,bsw->bw", out.weights.numpy(), s)
    np.testing.assert_allclose(out.output.numpy(), model.head(minillm.tensor(context)).numpy(), rtol=1e-10)


def test_the_encoder_looks_both_ways():
    """A later position changes an earlier state: an encoder, not a causal decoder."""
    model = small()
    changed = x.numpy().copy()
    changed[:, -1] += 1
    difference = abs(model.encode(x).numpy() - model.encode(minillm.tensor(changed)).numpy())
    assert (difference[:, 0] > 1e-6).any()


@pytest.mark.parametrize("score", SCORES)
def test_every_parameter_gets_a_gradient(score):
    model = small(score=score)
    model.loss(x, rng.integers(0, 4, 6)).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_shorter_sequences():
    model = small()
    out = model(x[:, :2])
    assert out.output.shape == (6, 4) and out.weights.shape == (6, 2)
    np.testing.assert_allclose(model(x[:, :1]).weights.numpy(), 1.0)


def test_reconstruction():
    model = small(classes=0)
    assert model(x).output.shape == (6, 5, 3)
    assert model(x[:, :2]).output.shape == (6, 2, 3)
    expected = ((model(x).output.numpy() - x.numpy()) ** 2).mean()
    assert model.loss(x).item() == pytest.approx(expected, rel=1e-12)
    assert model.loss(x, x).item() == pytest.approx(expected, rel=1e-12)
    assert model.loss(x[:, :2]).item() > 0
    with pytest.raises(ValueError, match="reconstructs"):
        model.predict(x)


def test_loss_is_the_cross_entropy():
    model, y = small(), rng.integers(0, 4, 6)
    logits = model(x).output.numpy()
    expected = (np.log(np.exp(logits).sum(1)) - logits[np.arange(6), y]).mean()
    assert model.loss(x, y).item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="needs targets"):
        model.loss(x)


def test_predict_is_the_likeliest_class_without_dropout():
    model = small(dropout=0.5)
    a = model.predict(x)
    assert a.shape == (6,) and a.dtype == np.int64
    assert all(np.array_equal(a, model.predict(x)) for _ in range(5))
    assert model.training  # left as it was
    np.testing.assert_array_equal(a, model.eval()(x).output.numpy().argmax(1))


@pytest.mark.parametrize("shape", [(6, 6, 3), (6, 0, 3), (6, 5, 4), (5, 3)])
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(ValueError, match="expected x of shape"):
        small()(minillm.zeros(shape))
