"""The reparameterization trick and the KL divergence of a variational autoencoder, together.

D. P. Kingma and M. Welling, "Auto-Encoding Variational Bayes", 2013, https://arxiv.org/abs/1312.6114, section 2.4 and
appendix B.
"""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape
from ..dispatch import implementation


def reparameterize_forward(mean: Any, logvar: Any, noise: Any, *, impl: str | None = None) -> tuple[Any, Any]:
    """A sample of N(mean, exp(logvar)) that gradients flow through, and that distribution's KL divergence to N(0, 1).

        z  = mean + exp(logvar / 2) * noise                            (B, L)   noise drawn from N(0, 1)
        kl = sum over latents of (exp(logvar) + mean^2 - 1 - logvar) / 2   (B,)   nats, one for each example

    mean, logvar, noise (B, L), of one floating dtype. logvar is the logarithm of the variance: the standard deviation
    is exp(logvar / 2). kl is >= 0, and 0 for mean = logvar = 0.
    """
    _check("reparameterize_forward", mean, logvar=logvar, noise=noise)
    return implementation("reparameterize", impl, mean).reparameterize_forward(mean, logvar, noise)


def reparameterize_backward(
    dz: Any | None, dkl: Any | None, mean: Any, logvar: Any, noise: Any, *, impl: str | None = None
) -> tuple[Any, Any]:
    """Gradients of `reparameterize_forward`:

        dmean   = dz + dkl * mean                                                    (B, L)
        dlogvar = dz * noise * exp(logvar / 2) / 2 + dkl * (exp(logvar) - 1) / 2     (B, L)

    dz (B, L) or dkl (B,) may be None: that output was not used. ValueError where both are.
    """
    kernel = "reparameterize_backward"
    _check(kernel, mean, logvar=logvar, noise=noise, dz=dz, dkl=dkl)
    if dz is None and dkl is None:
        raise ValueError(f"{kernel}: dz and dkl are both None; give the gradient of at least one output")
    return implementation("reparameterize", impl, mean).reparameterize_backward(dz, dkl, mean, logvar, noise)


def _check(kernel: str, mean: Any, **others: Any) -> None:
    check_arrays(kernel, mean=mean, **others)
    if mean.ndim != 2:
        raise ValueError(f"{kernel}: mean has shape {mean.shape}, expected (B, L): one row of latents for each example")
    for name, array in others.items():
        check_shape(kernel, name, array, mean.shape[:1] if name == "dkl" else mean.shape, "to go with mean")
