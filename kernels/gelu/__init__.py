"""GELU, the activation x * Phi(x) (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415)."""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape
from ..dispatch import implementation


def gelu_forward(x: Any, approximate: str = "none", *, impl: str | None = None) -> Any:
    """x * Phi(x), Phi the normal distribution function; x of any shape and a floating dtype, out the same.

    approximate="none": Phi(x) = erfc(-x / sqrt(2)) / 2, which is (1 + erf(x / sqrt(2))) / 2 without its cancellation
    approximate="tanh": Phi(x) ~ (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2, GPT-2's

    0 at -inf and inf at inf, for both. ValueError for another `approximate`.
    """
    _check("gelu_forward", approximate, x=x)
    return implementation("gelu", impl, x).gelu_forward(x, approximate)


def gelu_backward(dout: Any, x: Any, approximate: str = "none", *, impl: str | None = None) -> Any:
    """dx = dout * (Phi(x) + x * Phi'(x)), the gradient of `gelu_forward` with the same `approximate`.

    dout and x of one shape and dtype. The derivative is 0 at -inf and 1 at inf.
    """
    _check("gelu_backward", approximate, x=x, dout=dout)
    check_shape("gelu_backward", "dout", dout, x.shape, "that of x")
    return implementation("gelu", impl, x).gelu_backward(dout, x, approximate)


def _check(kernel: str, approximate: str, **arrays: Any) -> None:
    check_arrays(kernel, **arrays)
    if approximate not in ("none", "tanh"):
        raise ValueError(f'{kernel}: approximate must be "none" or "tanh", got {approximate!r}')
