"""PCA, the mean image and the entropies against computations that share nothing with them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minillm.baselines import PCA, MeanImage, bernoulli_entropy, unigram_entropy
from minillm.data import load_digits

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 7)) @ RNG.normal(size=(7, 7)) + RNG.normal(size=7)


@pytest.mark.parametrize("components", [1, 3, 7])
def test_pca_against_singular_values(components):
    pca = PCA(components).fit(X)
    u, s, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(pca.explained_variance, s[:components] ** 2 / 39, rtol=1e-10)
    np.testing.assert_allclose(pca.explained_variance_ratio, (s**2 / (s**2).sum())[:components], rtol=1e-10)
    np.testing.assert_allclose(abs(pca.transform(X)), abs(u * s)[:, :components], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(pca.directions.T @ pca.directions, np.eye(components), atol=1e-12)
    rest = (s[components:] ** 2).sum() / X.size  # Eckart and Young: nothing of this rank comes nearer
    assert pca.reconstruction_error(X) == pytest.approx(rest, rel=1e-9, abs=1e-25)


def test_pca_is_the_best_projection_and_has_one_sign():
    pca = PCA(2).fit(X)
    for seed in range(20):
        q = np.linalg.qr(np.random.default_rng(seed).normal(size=(7, 2)))[0]
        centred = X - X.mean(axis=0)
        assert pca.reconstruction_error(X) < np.mean((centred - centred @ q @ q.T) ** 2)
    strongest = pca.directions[abs(pca.directions).argmax(axis=0), [0, 1]]
    assert (strongest > 0).all()
    np.testing.assert_allclose(PCA(2).fit(X[::-1]).directions, pca.directions, atol=1e-10)


def test_pca_keeps_float32_and_takes_few_rows_and_constant_columns():
    pca = PCA(3).fit(X.astype(np.float32))
    z = pca.transform(X.astype(np.float32))
    assert z.dtype == pca.inverse_transform(z).dtype == np.float32 and z.shape == (40, 3)
    assert PCA(2).fit(X[:3]).reconstruction_error(X[:3]) < 1e-20  # three points lie in a plane
    constant = PCA(1).fit(np.ones((4, 3)))
    assert constant.reconstruction_error(np.ones((4, 3))) == 0
    assert constant.explained_variance_ratio.tolist() == [0]


def test_pca_wrong_calls():
    for call in (
        lambda: PCA(0),
        lambda: PCA(8).fit(X),
        lambda: PCA(3).fit(X[:2]),
        lambda: PCA(1).fit(X[:1]),
        lambda: PCA(1).fit(X[0]),
        lambda: PCA(1).transform(X),
        lambda: PCA(1).fit(X).transform(X[:, :3]),
        lambda: PCA(1).fit(X).inverse_transform(X),
    ):
        with pytest.raises(ValueError, match=r"expected|first"):
            call()


def test_mean_image_against_loops():
    train = np.array([[0.0, 0.5, 1.0], [0.0, 0.25, 1.0]])
    test = np.array([[0.5, 0.0, 1.0], [0.0, 1.0, 0.75]])
    mean = [0, 0.375, 1]
    p = [1 / 4, 1.75 / 4, 3 / 4]  # (sum + 1) / (N + 2)
    squares = [(x - m) ** 2 for row in test for x, m in zip(row, mean)]
    costs = [-x * math.log(q) - (1 - x) * math.log(1 - q) for row in test for x, q in zip(row, p)]
    model = MeanImage().fit(train)
    assert model.mse(test) == pytest.approx(sum(squares) / 6)
    assert model.bce(test) == pytest.approx(sum(costs) / 6)
    assert model.negative_log_likelihood(test) == pytest.approx(sum(costs) / 2)


def test_the_order_of_the_baselines_on_the_digits():
    train, _ = load_digits("train")
    test, _ = load_digits("test")
    mean = MeanImage().fit(train)
    errors = [mean.mse(test)] + [PCA(k).fit(train).reconstruction_error(test) for k in (1, 8, 32, 64)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-10
    assert bernoulli_entropy(test) < mean.bce(test) < math.log(2)


def test_entropies():
    assert bernoulli_entropy(np.array([[0, 1, 1, 0]])) == 0
    assert bernoulli_entropy(np.full((3, 4), 0.5, np.float32)) == pytest.approx(math.log(2))
    assert bernoulli_entropy(np.array([0.2])) == pytest.approx(-0.2 * math.log(0.2) - 0.8 * math.log(0.8))
    assert unigram_entropy(np.array([7, 7, 7])) == 0
    assert unigram_entropy(np.arange(10)) == pytest.approx(math.log(10))
    assert unigram_entropy(np.array([0, 0, 0, 5])) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


@pytest.mark.parametrize("pixels", [[[0.0, 1.5]], [[-0.1, 0.0]], [[np.nan, 0.0]], np.zeros((0, 2))])
def test_pixels_that_are_none(pixels):
    for call in (bernoulli_entropy, MeanImage().fit, MeanImage().fit(np.zeros((1, 2))).mse):
        with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
            call(np.array(pixels))


def test_mean_image_and_entropy_wrong_calls():
    for call in (
        lambda: MeanImage().mse(np.zeros((1, 2))),
        lambda: MeanImage().fit(np.zeros(2)),
        lambda: MeanImage().fit(np.zeros((1, 2))).bce(np.zeros((1, 3))),
        lambda: unigram_entropy(np.zeros(0, int)),
        lambda: unigram_entropy(np.zeros((2, 2), int)),
    ):
        with pytest.raises(ValueError, match=r"expected|first"):
            call()


def test_probabilistic_pca_and_the_mean_image_are_the_densities_they_say():
    rng = np.random.default_rng(0)
    x = np.clip(0.5 + 0.1 * rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6)), 0, 1)
    new = x[:50] * 0.9

    def gaussian(mean, covariance):
        d = new - mean
        quadratic = np.einsum("bi,ij,bj->b", d, np.linalg.inv(covariance), d)
        return 0.5 * (np.mean(quadratic) + np.linalg.slogdet(2 * np.pi * covariance)[1])

    for components in (1, 3, 5):
        pca = PCA(components).fit(x)
        W, noise = pca.directions, pca.noise_variance
        covariance = W @ np.diag(pca.explained_variance - noise) @ W.T + noise * np.eye(6)
        assert pca.negative_log_likelihood(new) == pytest.approx(gaussian(pca.mean, covariance), rel=1e-9)
    mean = MeanImage().fit(x)
    expected = gaussian(mean.mean, mean.variance * np.eye(6))
    assert mean.gaussian_negative_log_likelihood(new) == pytest.approx(expected, rel=1e-9)
