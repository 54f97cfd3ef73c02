"""RMSNorm over the last axis (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape, check_wide
from ..dispatch import implementation


def rmsnorm_forward(
    x: Any, weight: Any | None, eps: float, *, residual: Any | None = None, impl: str | None = None
) -> tuple[Any, ...]:
    """out = x * rstd * weight, with rstd = 1 / sqrt(mean_j(x_j^2) + eps): eps stands inside the root.

    x (..., N) with N >= 1; weight (N,), or None for ones; residual, of the shape of x, is added to x first; all of one
    floating dtype.

    Returns out (..., N) and rstd (...,), and with a residual, as third, total = x + residual, which is then what the
    backward pass calls x. All in the dtype of x, but rstd float32 beside 16 bits (float16, bfloat16).
    TypeError for dtypes that differ, ValueError for shapes that do not fit.
    """
    _check("rmsnorm_forward", x, weight=weight, residual=residual)
    return implementation("rmsnorm", impl, x).rmsnorm_forward(x, weight, eps, residual)


def rmsnorm_backward(
    dout: Any,
    x: Any,
    weight: Any | None,
    rstd: Any,
    *,
    dresidual: Any | None = None,
    dweight: Any | None = None,
    impl: str | None = None,
) -> tuple[Any, Any]:
    """Gradients of `rmsnorm_forward`, from its rstd; with xhat = x * rstd and g = dout * weight:

        dx      = rstd * (g - xhat * mean_j(g * xhat)) + dresidual     (..., N)
        dweight = sum over rows of dout * xhat                         (N,)

    x       what was normalised: with a residual, the total that forward returned
    dresidual  the gradient that reaches x on another path, in the shape of x; None is zeros
    dweight    an array to add the sum into, which is then returned; None makes a new one
    Bitwise the same for any number of threads. Errors as in forward.
    """
    check_arrays("rmsnorm_backward", x=x)
    check_wide("rmsnorm_backward", "x", x, rstd=rstd)
    _check("rmsnorm_backward", x, weight=weight, dout=dout, dresidual=dresidual, dweight=dweight)
    check_shape("rmsnorm_backward", "rstd", rstd, x.shape[:-1], f"as x is {x.shape}")
    return implementation("rmsnorm", impl, x).rmsnorm_backward(dout, x, weight, rstd, dresidual, dweight)


def _check(kernel: str, x: Any, **others: Any) -> None:
    check_arrays(kernel, x=x, **others)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{kernel}: x has shape {x.shape}, expected (..., N) with N >= 1: no mean over nothing")
    for name, array in others.items():
        shape = x.shape[-1:] if name in ("weight", "dweight") else x.shape
        if array is not None and array.shape != shape:
            check_shape(kernel, name, array, shape, f"as x is {x.shape}")
