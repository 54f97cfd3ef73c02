from __future__ import annotations

import math

import numpy as np
import pytest

from minillm.baselines import LogisticRegression
from minillm.data import load_digits

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = (X @ RNG.normal(size=(4, 3)) + RNG.normal(size=(60, 3))).argmax(axis=1)


def objective(weight, bias, l2, x=X, y=Y):
    """The penalised mean loss, row by row with math.log: nothing shared with the code under test."""
    total = 0.0
    for row, label in zip(x.tolist(), y.tolist()):
        logits = [sum(v * w for v, w in zip(row, column)) + b for column, b in zip(weight.T.tolist(), bias.tolist())]
        total += math.log(sum(map(math.exp, logits))) - logits[label]
    return total / len(x) + l2 / 2 * float((weight**2).sum())


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_the_fit_is_the_minimum(l2):
    """f is convex: where its differences vanish in every coordinate stands the only minimum."""
    model = LogisticRegression(l2, tolerance=1e-8).fit(X, Y)
    h = 1e-4
    for array in (model.weight, model.bias):
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + h
            up = objective(model.weight, model.bias, l2)
            array[place] = kept - h
            down = objective(model.weight, model.bias, l2)
            array[place] = kept
            assert abs(up - down) / (2 * h) < 1e-7
            assert min(up, down) > objective(model.weight, model.bias, l2)


def test_against_another_minimiser():
    optimize = pytest.importorskip("scipy.optimize")
    model = LogisticRegression(1e-2, tolerance=1e-8).fit(X, Y)
    found = optimize.minimize(lambda t: objective(t[:12].reshape(4, 3), t[12:], 1e-2), np.zeros(15), tol=1e-10)
    assert objective(model.weight, model.bias, 1e-2) <= found.fun + 1e-12
    np.testing.assert_allclose(model.weight, found.x[:12].reshape(4, 3), atol=1e-4)


def test_predictions_and_scores():
    model = LogisticRegression().fit(X, Y)
    log_p = model.log_probabilities(X)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1)
    assert (model.predict(X) == (X @ model.weight + model.bias).argmax(axis=1)).all()
    assert model.accuracy(X, Y) == np.mean(model.predict(X) == Y)
    without_penalty = objective(model.weight, model.bias, 0)
    assert model.cross_entropy(X, Y) == pytest.approx(without_penalty)


def test_a_strong_penalty_leaves_the_frequencies_of_the_classes():
    model = LogisticRegression(l2=1e6).fit(X, Y)
    np.testing.assert_allclose(np.exp(model.log_probabilities(X[:1]))[0], np.bincount(Y) / len(Y), atol=1e-4)


def test_digits():
    train, labels = load_digits("train")
    test, test_labels = load_digits("test")
    model = LogisticRegression().fit(train, labels)
    assert 0.94 < model.accuracy(test, test_labels) < model.accuracy(train, labels) < 1


def test_separable_classes_and_large_features_stay_finite():
    x = np.array([[-1000.0], [1000.0]])
    model = LogisticRegression().fit(x, np.array([0, 1]))
    assert model.accuracy(x, np.array([0, 1])) == 1 and np.isfinite(model.log_probabilities(10 * x)).all()


def test_wrong_calls():
    for call in (
        lambda: LogisticRegression(l2=0),
        lambda: LogisticRegression().fit(X, Y[:-1]),
        lambda: LogisticRegression().fit(X, Y - 1),
        lambda: LogisticRegression().fit(X, Y.astype(float)),
        lambda: LogisticRegression().fit(X[:0], Y[:0]),
        lambda: LogisticRegression().fit(X * np.nan, Y),
        lambda: LogisticRegression().predict(X),
        lambda: LogisticRegression().fit(X, Y).predict(X[:, :2]),
    ):
        with pytest.raises(ValueError, match=r"expected|first"):
            call()
    with pytest.raises(FloatingPointError, match="after 1 steps"):
        LogisticRegression(max_steps=1).fit(X, Y)
