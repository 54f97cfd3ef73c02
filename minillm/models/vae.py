"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114).

    q(z|x) = N(mean(x), exp(logvar(x)))       two linear heads on a shared trunk
    z      = mean + exp(logvar / 2) * noise   reparameterised: noise ~ N(0, 1) carries no gradient
    p(x|z) = Bernoulli(decoder(z)) or N(decoder(z), std^2)

    log p(x) >= ELBO(x) = E_q[log p(x|z)] - beta * KL(q(z|x) || N(0, 1))      at beta = 1

The gap of the bound is KL(q(z|x) || p(z|x)); `log_prob` closes it with importance weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import functional as F
from .. import nn
from ..creation import randn
from ..random import Generator
from ..tensor import Tensor
from .common import activation_layer, check_sizes, from_dict

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class VAEConfig:
    input_dim: int = 784  # features of one example
    hidden: tuple[int, ...] = (400,)  # widths of the trunk; the decoder mirrors them
    latent_dim: int = 20  # size of z
    beta: float = 1.0  # weight of the KL term (Higgins et al. 2017)
    likelihood: str = "bernoulli"  # or "gaussian"
    std: float = 0.1  # standard deviation of the Gaussian likelihood
    activation: str = "relu"


class VAEOutput(NamedTuple):
    logits: Tensor  # (B, input_dim), the decoder's output before its sigmoid (Gaussian: the mean itself)
    mean: Tensor  # (B, latent_dim)
    logvar: Tensor  # (B, latent_dim), log of the variance: std = exp(logvar / 2)
    kl: Tensor  # (B,), summed over latents


class VAE(nn.Module):
    """VAE(input_dim=784, hidden=(400,), latent_dim=20): x -> hidden -> (mean, logvar) -> z -> hidden -> x."""

    def __init__(self, input_dim: int = 784, hidden: Sequence[int] = (400,), latent_dim: int = 20, **settings: Any):
        super().__init__()
        sizes = {"input_dim": input_dim, "hidden": tuple(hidden), "latent_dim": latent_dim}
        self.config = config = from_dict(VAEConfig, {**sizes, **settings})
        check_sizes(config, *sizes)
        if config.likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"VAE: likelihood must be 'bernoulli' or 'gaussian', got {config.likelihood!r}")
        if not 0 < config.std < math.inf or not 0 <= config.beta < math.inf:
            raise ValueError(f"VAE: std must be above 0 and beta at least 0, got std={config.std}, beta={config.beta}")
        widths = [input_dim, *config.hidden]
        self.trunk = _mlp(widths, config.activation)
        self.mean_head = nn.Linear(widths[-1], latent_dim)
        self.logvar_head = nn.Linear(widths[-1], latent_dim)
        mirror = [latent_dim, *reversed(config.hidden)]
        self.decoder = nn.Sequential(_mlp(mirror, config.activation), nn.Linear(mirror[-1], input_dim))

    @classmethod
    def from_config(cls, config: VAEConfig | dict) -> VAE:
        config = from_dict(VAEConfig, config)
        return cls(**{f: getattr(config, f) for f in config.__dataclass_fields__})

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x): (B, input_dim) -> two of (B, latent_dim)."""
        h = self.trunk(x)
        return self.mean_head(h), self.logvar_head(h)

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z): (B, latent_dim) -> (B, input_dim); probabilities for a Bernoulli likelihood."""
        logits = self.decoder(z)
        return F.sigmoid(logits) if self.config.likelihood == "bernoulli" else logits

    def forward(self, x: Tensor, noise: Tensor | None = None) -> VAEOutput:
        """One sample of z per example. `noise` (B, latent_dim) stands in for the random draw where it must be known."""
        mean, logvar = self.encode(x)
        if noise is None:
            noise = randn(mean.shape, dtype=mean.dtype, device=mean.device)
        z, kl = F.reparameterize(mean, logvar, noise)  # (B, latent_dim), (B,)
        return VAEOutput(self.decoder(z), mean, logvar, kl)

    def log_likelihood(self, logits: Tensor, x: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over features: (..., input_dim) -> (...,)."""
        return -self._nll(logits, x)

    def _nll(self, logits: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z)."""
        if self.config.likelihood == "bernoulli":
            return F.bernoulli_nll(logits, x)
        d = (x - logits) * (1 / self.config.std)
        return (d * d).sum(-1) * 0.5 + x.shape[-1] * (math.log(self.config.std) + 0.5 * _LOG_2PI)

    def elbo(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """log p(x|z) - beta KL in nats per example, (B,), from one sample of z: at beta = 1 a bound on log p(x).

        x (B, input_dim); a Bernoulli likelihood takes x in [0, 1], grey values as probabilities.
        """
        return -self._negative_elbo(x, noise)

    def _negative_elbo(self, x: Tensor, noise: Tensor | None) -> Tensor:
        out, beta = self(x, noise), self.config.beta
        return self._nll(out.logits, x) + (out.kl if beta == 1 else beta * out.kl)

    def loss(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """-ELBO, averaged over the batch: what training minimises."""
        return self._negative_elbo(x, noise).mean()

    def log_prob(self, x: Tensor, samples: int = 64) -> Tensor:
        """Importance-weighted estimate of log p(x) in nats, (B,); tighter than the ELBO, exact as samples grows.

        log p(x) ~ log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x)      (Burda et al. 2016, arXiv:1509.00519)
        """
        if samples < 1:
            raise ValueError(f"VAE.log_prob: samples must be at least 1, got {samples}")
        mean, logvar = self.encode(x)
        noise = randn(samples, *mean.shape, dtype=mean.dtype, device=mean.device)  # (K, B, latent_dim)
        z = mean + (logvar * 0.5).exp() * noise
        log_prior = (z * z).sum(-1) * -0.5  # up to the constant that log_q has too
        log_q = (noise * noise + logvar).sum(-1) * -0.5
        x_k = x.unsqueeze(0).expand(samples, *x.shape)
        log_weights = self.log_likelihood(self.decoder(z), x_k) + log_prior - log_q  # (K, B)
        return F.logsumexp(log_weights, 0) - math.log(samples)

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """`count` new examples: z from the prior, decoded to the mean of p(x|z): (count, input_dim)."""
        like = self.mean_head.weight
        z = randn(count, self.config.latent_dim, dtype=like.dtype, device=like.device, generator=generator)
        return self.decode(z)


def _mlp(widths: Sequence[int], activation: str) -> nn.Sequential:
    """A Linear and an activation for each pair of neighbouring widths."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), activation_layer(activation)]
    return nn.Sequential(*layers)


__all__ = ["VAE", "VAEConfig", "VAEOutput"]
