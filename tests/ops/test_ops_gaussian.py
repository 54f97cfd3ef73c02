"""The KL divergence against its closed forms and a Monte-Carlo estimate; the reparameterized sample."""

import numpy as np
import pytest

from minillm import Generator, tensor
from minillm import functional as F


def test_the_kl_of_the_standard_normal_is_zero_and_a_minimum():
    mean, logvar = (tensor(np.zeros((2, 3)), requires_grad=True) for _ in range(2))
    kl = F.gaussian_kl(mean, logvar)
    kl.backward()
    assert kl.item() == 0 and not mean.grad.data.any() and not logvar.grad.data.any()


def test_the_kl_is_positive_everywhere_else():
    rng = np.random.default_rng(0)
    kl = F.gaussian_kl(rng.standard_normal((200, 1)), rng.standard_normal((200, 1)), "none")
    assert (kl > 0).all()


def test_the_kl_is_summed_over_latents_and_averaged_over_the_batch():
    rng = np.random.default_rng(0)
    mean, logvar = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    once = F.gaussian_kl(mean, logvar)
    np.testing.assert_allclose(F.gaussian_kl(np.tile(mean, 2), np.tile(logvar, 2)), 2 * once)  # more latents
    np.testing.assert_allclose(F.gaussian_kl(np.tile(mean, (2, 1)), np.tile(logvar, (2, 1))), once)  # more examples
    np.testing.assert_allclose(F.gaussian_kl(mean, logvar, "sum"), 4 * once)


def test_the_kl_agrees_with_a_monte_carlo_estimate():
    mean, logvar = np.array([[0.7, -0.3]]), np.array([[0.4, -1.0]])
    noise = Generator(0).normal((200_000, 2), dtype=np.float64)
    z = mean + np.exp(0.5 * logvar) * noise
    log_ratio = (-0.5 * noise**2 - 0.5 * logvar + 0.5 * z**2).sum(axis=1)  # log q(z) - log p(z)
    assert abs(float(F.gaussian_kl(mean, logvar)) - log_ratio.mean()) < 5 * log_ratio.std() / np.sqrt(len(log_ratio))


def test_the_samples_spread_is_the_standard_deviation():
    shape = (20_000, 1)
    noise = Generator(1).normal(shape, dtype=np.float64)
    z, kl = F.reparameterize(np.full(shape, 3.0), np.full(shape, np.log(4.0)), noise)
    assert abs(z.mean() - 3) < 0.07 and abs(z.std() - 2) < 0.05
    np.testing.assert_allclose(kl, 0.5 * (4 - 1 - np.log(4) + 9))


def test_both_outputs_and_gradients_keep_float32():
    mean, logvar, noise = (tensor(np.ones((2, 3), np.float32), requires_grad=True) for _ in range(3))
    z, kl = F.reparameterize(mean, logvar, noise)
    assert z.dtype == kl.dtype == np.float32 and kl.shape == (2,)
    (z.sum() + kl.sum()).backward()
    assert mean.grad.dtype == logvar.grad.dtype == noise.grad.dtype == np.float32
    np.testing.assert_allclose(noise.grad.data, np.exp(0.5), rtol=1e-6)


def test_wrong_arguments():
    a, b = tensor(np.zeros((2, 3))), tensor(np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 1\)"):
        F.gaussian_kl(a, b)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 1\)"):
        F.reparameterize(a, a, b)
    with pytest.raises(ValueError, match="batch"):
        F.gaussian_kl(tensor([0.0]), tensor([0.0]))
    with pytest.raises(ValueError, match="Did you mean 'batchmean'"):
        F.gaussian_kl(a, a, reduction="batch_mean")
