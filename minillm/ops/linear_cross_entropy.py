"""The head of a language model and its loss as one op: the logits of all tokens never exist at once."""

from __future__ import annotations

from typing import Any

import numpy as np

import kernels
from kernels.arrays import array_module, is_array

from ..engine import op
from ..recording import is_grad_enabled
from .arrays import array_of, by_kernel
from .classification import cross_entropy_composite, factor_of, reduce_rows, times, total_of
from .elementwise import masked_fill, square, tanh, to_dtype
from .linalg import linear
from .loss_arguments import check_reduction
from .reduce import logsumexp, sum
from .views import reshape

__all__ = ["linear_cross_entropy"]


def linear_cross_entropy(
    input: Any,
    weight: Any,
    target: Any,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
) -> Any:
    """cross_entropy(linear(input, weight), target) without the logits of all tokens at once: a language model's loss.

    input    (..., D)            weight  (C, D), the classes' vectors            target  (...), class ids
    softcap  c: the logits u become c tanh(u / c)      z_loss  z: z lse^2 is added to each token's loss, lse the
    logarithm of its sum of exponentials. The other arguments as in `cross_entropy`. float16 is taken as float32, and
    the loss is float32: its gradients are multiplied by a loss scale while they are still in float32's range.

    >>> import numpy as np
    >>> linear_cross_entropy(np.zeros((2, 3)), np.ones((4, 3)), np.array([3, -100])).round(4)
    np.float64(1.3863)
    """
    check_reduction("linear_cross_entropy", reduction)
    targets = array_of(target)
    if input.ndim == 0 or targets.shape != input.shape[:-1]:
        raise ValueError(
            f"linear_cross_entropy: target has shape {targets.shape}; for an input of shape {tuple(input.shape)}, "
            f"whose last dim is the features, it must be {tuple(input.shape[:-1])}"
        )
    if targets.dtype.kind not in "iu":
        raise TypeError(f"linear_cross_entropy: target holds class ids, of an integer dtype; got {targets.dtype}")
    input, weight = [to_dtype(a, np.float32) if a.dtype == np.float16 else a for a in (input, weight)]
    targets, x = targets.reshape(-1), input if input.ndim == 2 else reshape(input, (targets.size, input.shape[-1]))
    ours = type(targets) is np.ndarray or by_kernel("linear_cross_entropy", array_of(x))
    if reduction == "none" or not ours or x.dtype != weight.dtype:
        rows = _linear_rows(x, weight, targets, ignore_index, label_smoothing, softcap, z_loss)
        return reduce_rows(rows, target.shape, targets, ignore_index, None, reduction)
    keep_grad = any(getattr(a, "requires_grad", False) for a in (input, weight)) and is_grad_enabled()
    settings = (ignore_index, label_smoothing, softcap, z_loss, reduction, keep_grad)
    return _linear_cross_entropy(x, weight, targets, *settings)


def _linear_rows(x, weight, targets, ignore_index, label_smoothing, softcap, z_loss):
    """The loss of each token, of logits that are there: (N,)."""
    logits = linear(x, weight)  # (N, C)
    if softcap is not None:
        logits = tanh(logits / softcap) * softcap
    rows = cross_entropy_composite(logits, targets, ignore_index, label_smoothing, None)
    if z_loss:
        rows = rows + z_loss * masked_fill(square(logsumexp(logits, 1)), targets == ignore_index, 0.0)
    return rows


def _linear_composite(
    x, weight, targets, ignore_index, label_smoothing, softcap, z_loss, reduction="sum", keep_grad=True
):
    rows = _linear_rows(x, weight, targets, ignore_index, label_smoothing, softcap, z_loss)
    return sum(rows) * factor_of(targets, ignore_index, None, reduction, rows.dtype)


@op(composite=_linear_composite)
def _linear_cross_entropy(x, weight, targets, ignore_index, label_smoothing, softcap, z_loss, reduction, keep_grad):
    each = factor_of(targets, ignore_index, None, reduction)
    known = 1.0 if is_array(each) else each  # on a GPU the factor is known later: gradients are multiplied by it then
    loss, dx, dweight = kernels.linear_cross_entropy(
        x, weight, targets, known, ignore_index=ignore_index, label_smoothing=label_smoothing, softcap=softcap,
        z_loss=z_loss, needs_grad=keep_grad,
    )  # fmt: skip
    return total_of(loss, each), {"dx": dx, "dweight": dweight, "later": each if is_array(each) else None}


_linear_cross_entropy.__name__ = "linear_cross_entropy"


@_linear_cross_entropy.vjp
def _(dout, dx, dweight, later, into=None):
    place = into[1] if into else None
    dout = dout if later is None else dout * later
    if place is not None:
        array_module(dweight).multiply(dweight, dout.astype(dweight.dtype, copy=False), out=place)
    return times(dx, dout), place if place is not None else times(dweight, dout)
