"""LayerNorm over the last axis (Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450)."""

from __future__ import annotations

from typing import Any

from ..checks import check_arrays, check_shape, check_wide
from ..dispatch import implementation

_OF_COLUMNS, _OF_ROWS = frozenset(("weight", "bias", "dweight", "dbias")), frozenset(("mean", "rstd"))


def layernorm_forward(
    x: Any,
    weight: Any | None,
    bias: Any | None,
    eps: float = 1e-5,
    *,
    residual: Any | None = None,
    impl: str | None = None,
) -> tuple[Any, ...]:
    """out = (x - mean) * rstd * weight + bias, with rstd = 1 / sqrt(var + eps): eps stands inside the root.

    x (..., N) with N >= 1; weight, bias (N,), or None for ones and zeros; residual, of the shape of x, is added to x
    first; all of one floating dtype.
    The variance is the biased one, the mean of (x - mean)^2, taken in a second pass: nothing cancels.

    Returns out (..., N), and for the backward pass mean (...,) and rstd (...,), and with a residual, as fourth,
    total = x + residual, which is then what the backward pass calls x. All in the dtype of x, but mean and rstd float32
    beside 16 bits (float16, bfloat16).
    TypeError for dtypes that differ, ValueError for shapes that do not fit.
    """
    _check("layernorm_forward", x, weight=weight, bias=bias, residual=residual)
    return implementation("layernorm", impl, x).layernorm_forward(x, weight, bias, eps, residual)


def layernorm_backward(
    dout: Any,
    x: Any,
    weight: Any | None,
    mean: Any,
    rstd: Any,
    *,
    dresidual: Any | None = None,
    dweight: Any | None = None,
    dbias: Any | None = None,
    impl: str | None = None,
) -> tuple[Any, Any, Any]:
    """Gradients of `layernorm_forward`, from its mean and rstd; with xhat = (x - mean) * rstd and g = dout * weight:

        dx      = rstd * (g - mean_j(g) - xhat * mean_j(g * xhat)) + dresidual     (..., N)
        dweight = sum over rows of dout * xhat                                     (N,)
        dbias   = sum over rows of dout                                            (N,)

    x              what was normalised: with a residual, the total that forward returned
    dresidual      the gradient that reaches x on another path, in the shape of x; None is zeros
    dweight, dbias arrays to add the sums into, which are then returned; None makes new ones
    All three are always returned (weight None counts as ones). Bitwise the same for any number of threads.
    TypeError for dtypes that differ, ValueError for shapes that do not fit.
    """
    others = {"mean": mean, "rstd": rstd, "dresidual": dresidual, "dweight": dweight, "dbias": dbias}
    _check("layernorm_backward", x, weight=weight, dout=dout, **others)
    module = implementation("layernorm", impl, x)
    return module.layernorm_backward(dout, x, weight, mean, rstd, dresidual, dweight, dbias)


def _check(kernel: str, x: Any, **others: Any) -> None:
    of_rows = {name: others[name] for name in _OF_ROWS if name in others}
    check_arrays(kernel, x=x, **{name: a for name, a in others.items() if name not in of_rows})
    if of_rows:
        check_wide(kernel, "x", x, **of_rows)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{kernel}: x has shape {x.shape}, expected (..., N) with N >= 1: no mean over nothing")
    for name, array in others.items():
        if array is not None:
            shape = x.shape[-1:] if name in _OF_COLUMNS else x.shape[:-1] if name in _OF_ROWS else x.shape
            if array.shape != shape:
                check_shape(kernel, name, array, shape, f"as x is {x.shape}")
