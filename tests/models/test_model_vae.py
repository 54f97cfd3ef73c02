"""The VAE against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minillm
from minillm import Generator, nn
from minillm.models import VAE

rng = np.random.default_rng(0)


def small(**settings) -> VAE:
    minillm.manual_seed(0)
    return VAE(6, (8,), 3, **settings).double()


x = minillm.tensor(rng.random((16, 6)))


def test_shapes():
    out = small()(x)
    assert out.logits.shape == (16, 6)
    assert out.mean.shape == out.logvar.shape == (16, 3)
    assert out.kl.shape == (16,)
    model = VAE(6, (5, 4), 2)
    assert model(minillm.rand(3, 6)).logits.dtype == np.float32
    linears = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    assert linears == [(6, 5), (5, 4), (4, 2), (4, 2), (2, 4), (4, 5), (5, 6)]  # the decoder mirrors the trunk


def test_noise_that_is_given_is_the_noise():
    model, noise = small(), minillm.randn(16, 3, dtype=np.float64)
    a, b = model(x, noise), model(x, noise)
    np.testing.assert_array_equal(a.logits.numpy(), b.logits.numpy())
    z = a.mean.numpy() + np.exp(a.logvar.numpy() / 2) * noise.numpy()
    np.testing.assert_allclose(a.logits.numpy(), model.decoder(minillm.tensor(z)).numpy(), rtol=1e-12)
    assert not np.array_equal(model(x).logits.numpy(), model(x).logits.numpy())


def test_kl_is_the_closed_form_summed_over_latents():
    out = small()(x)
    mean, logvar = out.mean.numpy(), out.logvar.numpy()
    expected = 0.5 * (np.exp(logvar) + mean**2 - 1 - logvar).sum(1)
    np.testing.assert_allclose(out.kl.numpy(), expected, rtol=1e-12)
    assert (expected > 0).all()


def test_bernoulli_likelihood_is_the_probability_of_the_pixels():
    model = small()
    logits, bits = rng.standard_normal((4, 6)), rng.integers(0, 2, (4, 6)).astype(float)
    p = 1 / (1 + np.exp(-logits))
    expected = np.log(np.where(bits == 1, p, 1 - p)).sum(1)
    got = model.log_likelihood(minillm.tensor(logits), minillm.tensor(bits)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("std", [0.1, 1.0, 2.5])
def test_gaussian_likelihood_is_normalised(std):
    mean, at = rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
    model = small(likelihood="gaussian", std=std)
    expected = (-0.5 * ((at - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))).sum(1)
    np.testing.assert_allclose(
        model.log_likelihood(minillm.tensor(mean), minillm.tensor(at)).numpy(), expected, rtol=1e-12
    )
    one = VAE(1, (), 1, likelihood="gaussian", std=std).double()
    grid = np.linspace(-15 * std, 15 * std, 20_001)
    density = np.exp(
        one.log_likelihood(minillm.tensor(np.zeros((len(grid), 1))), minillm.tensor(grid[:, None])).numpy()
    )
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_elbo_is_below_the_importance_weighted_bound(likelihood):
    model = small(likelihood=likelihood, std=0.5)
    minillm.manual_seed(1)
    with minillm.no_grad():
        elbo = np.mean([model.elbo(x).numpy() for _ in range(400)], axis=0)
        weighted = np.mean([model.log_prob(x, 50).numpy() for _ in range(20)], axis=0)
    assert (weighted > elbo).all()
    single = np.mean([model.log_prob(x, 1).numpy() for _ in range(1)])
    assert np.isfinite(single)


def test_beta_weighs_the_kl_term_alone():
    noise = minillm.randn(16, 3, dtype=np.float64)
    model, doubled = small(), small(beta=2.0)  # the same weights
    a, b = model.elbo(x, noise).numpy(), doubled.elbo(x, noise).numpy()
    np.testing.assert_allclose(a - b, model(x, noise).kl.numpy(), rtol=1e-9)
    assert model.loss(x, noise).item() == pytest.approx(-a.mean(), rel=1e-12)


def test_samples():
    model = VAE(6, (8,), 3)
    a, b, c = (model.sample(5, Generator(seed)).numpy() for seed in (1, 1, 2))
    assert a.shape == (5, 6) and a.dtype == np.float32
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    assert a.min() > 0 and a.max() < 1  # probabilities
    minillm.manual_seed(3)
    first = model.sample(2).numpy()
    assert not np.array_equal(first, model.sample(2).numpy())  # no generator: the default one, which moves on
    minillm.manual_seed(3)
    np.testing.assert_array_equal(first, model.sample(2).numpy())


def test_a_gaussian_decodes_to_its_mean():
    model = small(likelihood="gaussian")
    z = minillm.randn(4, 3, dtype=np.float64)
    np.testing.assert_array_equal(model.decode(z).numpy(), model.decoder(z).numpy())


def test_log_prob_needs_a_sample():
    with pytest.raises(ValueError, match="samples must be at least 1"):
        small().log_prob(x, 0)
