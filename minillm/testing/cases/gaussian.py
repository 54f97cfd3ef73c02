"""The sample and the KL divergence of a variational autoencoder."""

from __future__ import annotations

from ... import functional as F
from .case import Case, case, normal


def _kl(mean, logvar):
    return 0.5 * (logvar.exp() - 1 - logvar + mean**2)


CASES: list[Case] = [
    case(
        "reparameterize", F.reparameterize, normal(3, 4), normal(3, 4), normal(3, 4),
        torch=lambda torch, m, v, e: (m + (0.5 * v).exp() * e, _kl(m, v).sum(1)),
    ),
    case(
        "reparameterize", lambda m, v, e: F.reparameterize(m, v, e)[0], normal(3, 2), normal(3, 2), normal(3, 2),
        torch=lambda torch, m, v, e: m + (0.5 * v).exp() * e, label="sample only",
    ),
    case(
        "reparameterize", lambda m, v: F.reparameterize(m, v, m)[1], normal(3, 2), normal(3, 2),
        torch=lambda torch, m, v: _kl(m, v).sum(1), label="KL only",
    ),
    case("gaussian_kl", F.gaussian_kl, normal(3, 4), normal(3, 4), torch=lambda torch, m, v: _kl(m, v).sum() / 3),
    case(
        "gaussian_kl", lambda m, v: F.gaussian_kl(m, v, reduction="sum"), normal(3, 4), normal(3, 4),
        torch=lambda torch, m, v: _kl(m, v).sum(), label="sum",
    ),
    case(
        "gaussian_kl", lambda m, v: F.gaussian_kl(m, v, reduction="none"), normal(3, 2, 2), normal(3, 2, 2),
        torch=lambda torch, m, v: _kl(m, v).sum((1, 2)), label="none, two latent axes",
    ),
]  # fmt: skip
