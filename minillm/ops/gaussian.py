"""The two pieces of a variational autoencoder's loss that are about its Gaussian: a sample, and a distance to N(0, 1).

Source: Kingma and Welling 2013, Auto-Encoding Variational Bayes, arXiv:1312.6114, section 2.4 and appendix B.
"""

from __future__ import annotations

from typing import Any

import kernels

from ..engine import op
from .elementwise import exp, expm1, square
from .loss_arguments import check_reduction, same_shape
from .reduce import sum

__all__ = ["gaussian_kl", "reparameterize"]


def gaussian_kl(mean: Any, logvar: Any, reduction: str = "batchmean") -> Any:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats; mean, logvar (B, ...), logvar the logarithm of the variance.

        kl_b = 1/2 sum over latents of (exp(logvar) - 1 - logvar + mean^2)        >= 0, and 0 at mean = logvar = 0

    reduction  "batchmean" the mean over the batch of the sums over latents; "sum" over both; "none": kl (B,)

    >>> import numpy as np
    >>> mean, logvar = np.array([[1.0, 0.0], [0.0, 0.0]]), np.zeros((2, 2))
    >>> float(gaussian_kl(mean, logvar)), gaussian_kl(mean, logvar, reduction="none")
    (0.25, array([0.5, 0. ]))
    """
    check_reduction("gaussian_kl", reduction, ("batchmean", "sum", "none"))
    same_shape("gaussian_kl", mean=mean, logvar=logvar)
    if mean.ndim < 2:
        raise ValueError(
            f"gaussian_kl: mean has shape {mean.shape}; expected (B, latents): the first axis is the batch"
        )
    kl = 0.5 * sum(expm1(logvar) - logvar + square(mean), tuple(range(1, mean.ndim)))  # (B,)
    if reduction == "none":
        return kl
    return sum(kl) / (max(mean.shape[0], 1) if reduction == "batchmean" else 1)


def reparameterize_composite(mean, logvar, noise):
    """`reparameterize` as its formulas."""
    return mean + exp(0.5 * logvar) * noise, gaussian_kl(mean, logvar, "none")


@op(outputs=2, composite=reparameterize_composite)
def reparameterize(mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
    """(z, kl): a sample of N(mean, exp(logvar)) that gradients flow through, and that distribution's KL to N(0, 1).

        z  = mean + exp(logvar / 2) * noise                                     (B, L)     noise (B, L) from N(0, 1)
        kl = 1/2 sum over latents of (exp(logvar) - 1 - logvar + mean^2)        (B,)

    The standard deviation is exp(logvar / 2), not exp(logvar).
    """
    same_shape("reparameterize", mean=mean, logvar=logvar, noise=noise)
    return kernels.reparameterize_forward(mean, logvar, noise)


@reparameterize.vjp
def _(douts, mean, logvar, noise, needs_grad):
    dz, dkl = douts
    dmean, dlogvar = kernels.reparameterize_backward(dz, dkl, mean, logvar, noise)
    dnoise = dz * exp(0.5 * logvar) if needs_grad[2] and dz is not None else None
    return dmean, dlogvar, dnoise
