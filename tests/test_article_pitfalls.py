"""Four faults of a widely copied tutorial, each built as written: a property that it breaks, and that ours keeps.

1. One encoder output is both the mean and the log-variance of q(z|x), through a sigmoid.
2. The loss has no KL term.
3. Attention weights are a softmax over an axis of length 1.
4. "log p(x) =" is written over a lower bound.
"""

from __future__ import annotations

import numpy as np
import pytest

import minillm
from minillm import functional as F
from minillm import nn, optim
from minillm.data import load_digits
from minillm.models import VAE, AttentionModel
from minillm.training import fit

# ------------------------------------------------------------------- as written in the tutorial, in our words


class VAEAsWritten(nn.Module):
    """z_mean = encoder(x); z_log_var = encoder(x); loss = binary cross-entropy of the reconstruction, nothing else."""

    def __init__(self, input_dim=64, encoding_dim=32, output_dim=16):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(input_dim, encoding_dim), nn.ReLU(), nn.Linear(encoding_dim, output_dim), nn.Sigmoid()
        )
        self.decoder = nn.Sequential(
            nn.Linear(output_dim, encoding_dim), nn.ReLU(), nn.Linear(encoding_dim, input_dim), nn.Sigmoid()
        )

    def encode(self, x):
        return self.encoder(x), self.encoder(x)

    def forward(self, x):
        mean, logvar = self.encode(x)
        z = mean + (logvar * 0.5).exp() * minillm.randn(mean.shape)
        return self.decoder(z)

    def loss(self, x):
        return F.binary_cross_entropy(self(x), x)


class AttentionAsWritten(nn.Module):
    """weights = softmax(W2(tanh(W1(query)))), with W2 of one output; the weighted values are summed over axis 1."""

    def __init__(self, features):
        super().__init__()
        self.W1 = nn.Linear(features, 1)
        self.W2 = nn.Linear(1, 1)

    def weights(self, query):
        return F.softmax(self.W2(F.tanh(self.W1(query))), dim=-1)  # (..., 1): the softmax of one number

    def forward(self, query, values):
        return (self.weights(query) * values).sum(1)


@pytest.fixture(scope="module")
def images():
    return load_digits("train")[0][:512]


def train(model, images, epochs=40):
    minillm.manual_seed(0)
    fit(model, images, optimizer=optim.Adam(model.parameters(), lr=3e-3), epochs=epochs, batch_size=64, progress=False)
    return model


# ------------------------------------------------------------------------ 1. mean and variance are one number


def encodes_mean_apart_from_variance(model, x):
    mean, logvar = model.encode(x)
    return bool((abs(mean.data - logvar.data) > 1e-3).any())


def can_be_surer_than_the_prior(model, x):
    """Some posterior standard deviation is below 1: the data said something about z."""
    return bool((model.encode(x)[1].data < 0).any())


def can_put_a_mean_below_zero(model, x):
    return bool((model.encode(x)[0].data < 0).any())


@pytest.mark.parametrize(
    "holds", [encodes_mean_apart_from_variance, can_be_surer_than_the_prior, can_put_a_mean_below_zero]
)
def test_one_output_cannot_be_mean_and_log_variance(holds, images):
    x = minillm.tensor(images[:64])
    minillm.manual_seed(0)
    assert not holds(train(VAEAsWritten(), images, 5), x)
    assert holds(train(VAE(64, (32,), 16), images, 5), x)


def test_no_weights_repair_it():
    """Not a matter of training: a sigmoid keeps the log-variance above 0, whatever the weights are."""
    model = VAEAsWritten()
    rng = np.random.default_rng(0)
    for _ in range(20):
        for p in model.parameters():
            p.data[...] = 10 * rng.standard_normal(p.shape)
        x = minillm.tensor(rng.random((8, 64), dtype=np.float32))
        assert encodes_mean_apart_from_variance(model, x) is False
        assert can_be_surer_than_the_prior(model, x) is False


# --------------------------------------------------------------------------------- 2. no KL term in the loss


def responds_to_kl(loss_of):
    """The loss changes when q(z|x) moves away from the prior and the reconstruction stays what it was."""
    return loss_of(0.0) < loss_of(3.0)


def test_a_loss_without_kl_does_not_notice_the_prior():
    minillm.manual_seed(0)
    x = minillm.tensor(np.random.default_rng(0).random((4, 64), dtype=np.float32))

    def shifted_loss(model, heads, decoder_input, shift):
        """Move the mean of q by `shift`, and let the decoder subtract it again."""
        layer, mean_bias = decoder_input, heads
        before = layer.bias.data.copy(), mean_bias.data.copy()
        mean_bias.data += shift
        layer.bias.data -= layer.weight.data.sum(1) * shift
        minillm.manual_seed(1)
        value = model.loss(x).item()
        layer.bias.data[...], mean_bias.data[...] = before
        return value

    ours = VAE(64, (32,), 16)
    assert responds_to_kl(lambda s: shifted_loss(ours, ours.mean_head.bias, ours.decoder[0][0], s))

    class NoKL(VAE):
        def loss(self, x, noise=None):
            return -self.log_likelihood(self(x, noise).logits, x).mean()

    theirs = NoKL(64, (32,), 16)
    a, b = (shifted_loss(theirs, theirs.mean_head.bias, theirs.decoder[0][0], s) for s in (0.0, 3.0))
    assert a == pytest.approx(b, rel=1e-5)  # float32 rounding only


def test_without_kl_the_samples_from_the_prior_are_worse(images):
    """What a VAE is for: z from N(0, 1) should decode to something like the data. Here: log p(x) of unseen images."""

    class NoKL(VAE):
        def loss(self, x, noise=None):
            return -self.log_likelihood(self(x, noise).logits, x).mean()

    test = minillm.tensor(load_digits("test")[0][:200])
    minillm.manual_seed(0)
    ours, theirs = train(VAE(64, (64,), 8), images, 60), train(NoKL(64, (64,), 8), images, 60)
    with minillm.no_grad():
        assert ours.log_prob(test, 64).mean().item() > theirs.log_prob(test, 64).mean().item() + 1.0  # nats an image


# ------------------------------------------------------------------ 3. a softmax over an axis of length 1 is 1


def weights_depend_on_the_input(weights):
    return bool((abs(weights - weights.flat[0]) > 1e-6).any())


def test_softmax_over_one_element_is_always_one():
    rng = np.random.default_rng(0)
    x = minillm.tensor(rng.standard_normal((5, 7, 3)).astype(np.float32))  # (B, S, features)
    theirs = AttentionAsWritten(3)
    weights = theirs.weights(x).numpy()
    assert not weights_depend_on_the_input(weights)
    np.testing.assert_array_equal(weights, 1.0)  # so they add up to S, not to 1, over the sequence
    np.testing.assert_allclose(theirs(x, x).numpy(), x.numpy().sum(1), rtol=1e-6)  # "attention" is a plain sum
    ours = AttentionModel(3, 7, 2)(x).weights.numpy()  # (B, S)
    assert weights_depend_on_the_input(ours)
    np.testing.assert_allclose(ours.sum(1), 1.0, rtol=1e-5)


def test_its_score_layers_never_learn():
    rng = np.random.default_rng(0)
    x = minillm.tensor(rng.standard_normal((5, 7, 3)).astype(np.float32))
    theirs, ours = AttentionAsWritten(3), AttentionModel(3, 7, 2)
    (theirs(x, x) * rng.standard_normal((5, 3)).astype(np.float32)).sum().backward()
    assert all(not p.grad.data.any() for p in theirs.parameters())
    ours.loss(x, rng.integers(0, 2, 5)).backward()
    for layer in (ours.previous, ours.current, ours.v):
        assert layer.weight.grad.data.any()


# ------------------------------------------------------------------------- 4. the ELBO is a bound, not log p(x)


class LinearGaussian:
    """p(z) = N(0, 1), p(x|z) = N(w z, std^2) for scalar z: log p(x) = log N(0, w w^T + std^2) is known."""

    def __init__(self, dim=3, std=0.5, seed=0):
        rng = np.random.default_rng(seed)
        self.w, self.std = rng.standard_normal(dim), std
        self.model = VAE(dim, (), 1, likelihood="gaussian", std=std)
        for p in self.model.parameters():
            p.data = p.data.astype(np.float64)
            p.data[...] = 0
        self.model.to(np.float64)
        self.model.decoder[-1].weight.data[...] = self.w[:, None]
        self.x = rng.standard_normal((6, dim))

    def log_p(self):
        covariance = np.outer(self.w, self.w) + self.std**2 * np.eye(len(self.w))
        quadratic = np.einsum("bi,ij,bj->b", self.x, np.linalg.inv(covariance), self.x)
        return -0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + len(self.w) * np.log(2 * np.pi))

    def posterior(self):
        """p(z|x) = N(mean, variance) in closed form."""
        variance = 1 / (1 + self.w @ self.w / self.std**2)
        return variance * self.x @ self.w / self.std**2, variance

    def set_q(self, scale, variance):
        """q(z|x) = N(scale * posterior mean, variance)."""
        posterior_variance = self.posterior()[1]
        self.model.mean_head.weight.data[...] = scale * posterior_variance * self.w / self.std**2
        self.model.logvar_head.bias.data[...] = np.log(variance)

    def elbo(self):
        """Exact: the bound is quadratic in the noise, and -1 and +1 have the mean and the variance of N(0, 1)."""
        x, ones = minillm.tensor(self.x), np.ones((len(self.x), 1))
        with minillm.no_grad():
            return sum(self.model.elbo(x, minillm.tensor(noise)).numpy() for noise in (ones, -ones)) / 2


def test_the_elbo_lies_below_log_p_unless_q_is_the_posterior():
    exact = LinearGaussian()
    mean, variance = exact.posterior()
    exact.set_q(scale=0.5, variance=4 * variance)
    gap = exact.log_p() - exact.elbo()
    q_mean, q_variance = 0.5 * mean, 4 * variance
    kl = 0.5 * (q_variance / variance + (q_mean - mean) ** 2 / variance - 1 - np.log(q_variance / variance))
    assert (gap > 0.1).all()  # "log p(x) = ELBO" is false here
    np.testing.assert_allclose(gap, kl, rtol=1e-9)  # the gap is KL(q(z|x) || p(z|x))
    exact.set_q(scale=1.0, variance=variance)
    np.testing.assert_allclose(exact.elbo(), exact.log_p(), rtol=1e-9)  # equality needs the true posterior


def test_importance_weights_close_the_gap():
    exact = LinearGaussian()
    exact.set_q(scale=0.5, variance=4 * exact.posterior()[1])
    minillm.manual_seed(0)
    with minillm.no_grad():
        estimate = exact.model.log_prob(minillm.tensor(exact.x), 20_000).numpy()
    np.testing.assert_allclose(estimate, exact.log_p(), atol=0.05)
