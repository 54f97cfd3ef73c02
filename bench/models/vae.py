"""-ELBO of the VAE of minillm/models/vae.py, Bernoulli likelihood, averaged over the batch, in torch and in JAX."""

from __future__ import annotations

from typing import Any


def loss_torch(p: dict[str, Any], x: Any, noise: Any) -> Any:
    """x (B, features), noise (B, latents)."""
    import torch.nn.functional as F

    h = F.relu(F.linear(x, p["trunk.0.weight"], p["trunk.0.bias"]))
    mean = F.linear(h, p["mean_head.weight"], p["mean_head.bias"])
    logvar = F.linear(h, p["logvar_head.weight"], p["logvar_head.bias"])
    z = mean + (0.5 * logvar).exp() * noise
    h = F.relu(F.linear(z, p["decoder.0.0.weight"], p["decoder.0.0.bias"]))
    logits = F.linear(h, p["decoder.1.weight"], p["decoder.1.bias"])
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = -0.5 * (1 + logvar - mean.pow(2) - logvar.exp()).sum()
    return (reconstruction + kl) / x.shape[0]


def loss_jax(p: dict[str, Any], x: Any, noise: Any) -> Any:
    import jax
    import jax.numpy as jnp

    def linear(x: Any, name: str) -> Any:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    h = jax.nn.relu(linear(x, "trunk.0"))
    mean, logvar = linear(h, "mean_head"), linear(h, "logvar_head")
    z = mean + jnp.exp(0.5 * logvar) * noise
    logits = linear(jax.nn.relu(linear(z, "decoder.0.0")), "decoder.1")
    reconstruction = (jax.nn.softplus(logits) - x * logits).sum()
    kl = -0.5 * (1 + logvar - mean**2 - jnp.exp(logvar)).sum()
    return (reconstruction + kl) / x.shape[0]


def flops(features: int, hidden: int, latents: int, batch: int) -> float:
    """Of forward and backward: 6 per weight of a product and example."""
    return 6.0 * batch * (2 * features * hidden + 3 * hidden * latents)
