"""LayerNorm over the last axis (Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450)."""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape
from ..dispatch import implementation


def layernorm_forward(
    x: Any, weight: Any | None, bias: Any | None, eps: float = 1e-5, *, impl: str | None = None
) -> tuple[Any, Any, Any]:
    """out = (x - mean) * rstd * weight + bias, with rstd = 1 / sqrt(var + eps): eps stands inside the root.

    x (..., N) with N >= 1; weight, bias (N,), or None for ones and zeros; all of one floating dtype.
    The variance is the biased one, the mean of (x - mean)^2, taken in a second pass: nothing cancels.

    Returns out (..., N), and for the backward pass mean (...,) and rstd (...,), in the dtype of x.
    TypeError for dtypes that differ, ValueError for shapes that do not fit.
    """
    _check("layernorm_forward", x, weight=weight, bias=bias)
    return implementation("layernorm", impl, x).layernorm_forward(x, weight, bias, eps)


def layernorm_backward(
    dout: Any, x: Any, weight: Any | None, mean: Any, rstd: Any, *, impl: str | None = None
) -> tuple[Any, Any, Any]:
    """Gradients of `layernorm_forward`, from its mean and rstd; with xhat = (x - mean) * rstd and g = dout * weight:

        dx      = rstd * (g - mean_j(g) - xhat * mean_j(g * xhat))     (..., N)
        dweight = sum over rows of dout * xhat                         (N,)
        dbias   = sum over rows of dout                                (N,)

    All three are always returned (weight None counts as ones). Bitwise the same for any number of threads.
    TypeError for dtypes that differ, ValueError for shapes that do not fit.
    """
    _check("layernorm_backward", x, weight=weight, dout=dout, mean=mean, rstd=rstd)
    return implementation("layernorm", impl, x).layernorm_backward(dout, x, weight, mean, rstd)


def _check(kernel: str, x: Any, **others: Any) -> None:
    check_arrays(kernel, x=x, **others)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{kernel}: x has shape {x.shape}, expected (..., N) with N >= 1: no mean over nothing")
    shapes = {"weight": x.shape[-1:], "bias": x.shape[-1:], "dout": x.shape, "mean": x.shape[:-1], "rstd": x.shape[:-1]}
    for name, array in others.items():
        check_shape(kernel, name, array, shapes[name], f"as x is {x.shape}")
