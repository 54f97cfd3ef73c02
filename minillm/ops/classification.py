"""Losses of classes: the negative log-probability of the right one."""

from __future__ import annotations

from typing import Any

import numpy as np

import kernels

from ..device import array_module
from ..engine import op
from ..recording import is_grad_enabled
from .arrays import array_of, constant
from .elementwise import masked_fill
from .index import take_along_dim
from .loss_arguments import check_reduction, reduce
from .reduce import sum
from .softmax import log_softmax
from .views import movedim, reshape

__all__ = ["cross_entropy", "nll_loss"]


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """-log softmax(input)[target]: logits against classes.

    input            (C,), (N, C) or (N, C, d1, ...)
    target           class ids, the input's shape without C; or probabilities (floats) of the input's shape
    weight           (C,), a constant factor for each class
    ignore_index     rows with this target count for nothing, label smoothing included
    reduction        "mean": over the rows that count, each with its target's weight; "sum"; "none": the target's shape
    label_smoothing  s in [0, 1]: the target becomes (1 - s) target + s / C

    If no row counts, the mean is 0 with zero gradients (PyTorch gives NaN): a batch of padding does no harm.
    IndexError for a target outside 0 .. C-1. Probabilities: the mean is over all rows.

    >>> import numpy as np
    >>> cross_entropy(np.zeros((2, 4)), np.array([3, -100])).round(4)       # log 4, the ignored row left out
    np.float64(1.3863)
    """
    check_reduction("cross_entropy", reduction)
    weight = _class_weights("cross_entropy", weight, input)
    if target.dtype.kind == "f":
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    logits, targets = _rows("cross_entropy", input, array_of(target))  # (N, C), (N,)
    if reduction != "none" and type(targets) is np.ndarray:
        keep_grad = getattr(input, "requires_grad", False) and is_grad_enabled()
        return _reduced(logits, targets, ignore_index, label_smoothing, weight, reduction, keep_grad)
    rows = _cross_entropy(logits, targets, ignore_index, label_smoothing, weight)  # (N,)
    return reduce_rows(rows, target.shape, targets, ignore_index, weight, reduction)


def nll_loss(input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """-input[target]: log-probabilities (from log_softmax) against class ids. Arguments as in cross_entropy."""
    check_reduction("nll_loss", reduction)
    weight = _class_weights("nll_loss", weight, input)
    logp, targets = _rows("nll_loss", input, array_of(target))  # (N, C), (N,)
    _check_targets(targets, logp.shape[1], ignore_index)
    rows = _picked(logp, targets, ignore_index, weight)  # (N,)
    return reduce_rows(rows, target.shape, targets, ignore_index, weight, reduction)


def _picked(logp, targets, ignore_index, weight):
    """-w_y logp_ny of each row n with target y = targets[n], 0 for ignored rows: (N,)."""
    ignored = targets == ignore_index
    y = array_module(targets).where(ignored, 0, targets)
    rows = -reshape(take_along_dim(logp, y[:, None], 1), y.shape)
    return masked_fill(rows if weight is None else rows * weight[y], ignored, 0.0)


def cross_entropy_composite(logits, targets, ignore_index, label_smoothing, weight):
    """Cross-entropy of each row as its formula."""
    ignored = targets == ignore_index
    logp = log_softmax(masked_fill(logits, ignored[:, None], 0.0), 1)  # (N, C)
    rows = _picked(logp, targets, ignore_index, weight)
    if label_smoothing == 0:  # else 0 * inf at a class masked with -inf
        return rows
    spread = -sum(logp if weight is None else logp * weight, 1) / logits.shape[1]  # (N,)
    return (1 - label_smoothing) * rows + label_smoothing * masked_fill(spread, ignored, 0.0)


@op(composite=cross_entropy_composite)
def _cross_entropy(logits, targets, ignore_index, label_smoothing, weight):
    """The loss of each row: logits (N, C), targets (N,)."""
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "weight": weight}
    loss, lse = kernels.cross_entropy_forward(logits, targets, **options)
    return loss, {"lse": lse}


@_cross_entropy.vjp
def _(dout, logits, targets, ignore_index, label_smoothing, weight, lse):
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "weight": weight}
    return kernels.cross_entropy_backward(dout, logits, targets, lse, **options)


# ------------------------------------------------------- the loss of a batch: its gradient is known beforehand


def _reduced_composite(logits, targets, ignore_index, label_smoothing, weight, reduction, keep_grad):
    rows = cross_entropy_composite(logits, targets, ignore_index, label_smoothing, weight)
    return sum(rows) * factor_of(targets, ignore_index, weight, reduction, rows.dtype)


@op(composite=_reduced_composite)
def _reduced(logits, targets, ignore_index, label_smoothing, weight, reduction, keep_grad):
    """The mean or the sum of the rows' losses; what is kept for the backward pass is the gradient itself."""
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "weight": weight}
    each = factor_of(targets, ignore_index, weight, reduction)
    if keep_grad:
        loss, _, dlogits = kernels.cross_entropy_with_grad(logits, targets, each, **options)
    else:
        loss, dlogits = kernels.cross_entropy_forward(logits, targets, **options)[0], None
    return total_of(loss, each), {"dlogits": dlogits}


_reduced.__name__ = "cross_entropy"  # what errors and pictures of the graph show


@_reduced.vjp
def _(dout, dlogits):
    return times(dlogits, dout)


def factor_of(targets, ignore_index, weight, reduction, dtype=np.float64):
    """What each row's loss counts: 1 for a sum; 1 / (the rows that count, each with its weight) for a mean. A number,
    or, where Python would wait for a GPU to know it, a 0-d array of that dtype."""
    if reduction == "sum":
        return 1.0
    kept = targets != ignore_index
    xp = array_module(targets)
    count = kept.sum() if weight is None else (weight[xp.where(kept, targets, 0)] * kept).sum()
    if xp is not np:
        return (1.0 / xp.where(count == 0, 1, count).astype(xp.float64)).astype(dtype)
    count = float(count)
    return 1.0 / (count if count else 1.0)


def total_of(rows, factor):
    """factor * the sum of the rows, added up in float64: a 0-d array; of bfloat16 rows in float32, for its digits."""
    xp = array_module(rows)
    dtype = xp.float32 if rows.dtype.name == "bfloat16" else rows.dtype
    return xp.asarray(rows.sum(dtype=xp.float64) * factor, dtype=dtype)


def times(gradient, dout):
    """gradient * dout, dout a 0-d array: usually 1, and then there is nothing to do; on a GPU nobody asks."""
    if type(dout) is np.ndarray and dout == 1:
        return gradient
    return gradient * dout.astype(gradient.dtype, copy=False)


def _soft_cross_entropy(input, target, weight, reduction, label_smoothing):
    """Targets that are probabilities: -sum_c w_c target_c log softmax(input)_c."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing is {label_smoothing}; expected a number from 0 to 1")
    if input.shape != target.shape or input.ndim == 0:
        raise ValueError(
            f"cross_entropy: input {tuple(input.shape)}, target {tuple(target.shape)}: a floating target holds a "
            "probability for each class, in the input's shape. Class ids are integers: target.long()"
        )
    dim = _class_dim(input)
    target = (1 - label_smoothing) * target + label_smoothing / input.shape[dim]
    terms = -target * log_softmax(input, dim)
    if weight is not None:
        terms = terms * weight.reshape((-1,) + (1,) * (input.ndim - 1 - dim))
    return reduce(sum(terms, dim), reduction)


def _class_dim(input):
    return 0 if input.ndim == 1 else 1


def _rows(loss, input, target):
    """(N, C, d1, ...) -> (N * d1 * ..., C), and the target's ids in one row, once the shapes fit."""
    if target.dtype.kind not in "iu":
        raise TypeError(f"{loss}: target holds class ids, of an integer dtype; got {target.dtype}")
    if input.ndim == 0:
        raise ValueError(f"{loss}: input is 0-d; expected (C,), (N, C) or (N, C, d1, ...)")
    dim = _class_dim(input)
    C = input.shape[dim]
    expected = (*input.shape[:dim], *input.shape[dim + 1 :])
    if target.shape != expected:
        raise ValueError(
            f"{loss}: target has shape {target.shape}; for an input of shape {tuple(input.shape)}, whose dim {dim} is "
            f"the classes, it must be {expected}"
        )
    if input.ndim != 2:
        input = reshape(movedim(input, dim, -1), (target.size, C))
    return input, target.reshape(-1)


def _class_weights(loss, weight, input):
    """The weights (C,) in the input's dtype, or None."""
    if weight is None:
        return None
    weight = constant(loss, "weight", weight).astype(input.dtype)
    if weight.shape != input.shape[_class_dim(input) :][:1]:
        raise ValueError(
            f"{loss}: weight is {weight.shape}; expected a factor for each class of the {tuple(input.shape)} input"
        )
    return weight


def _check_targets(targets, C, ignore_index):
    bad = ((targets < 0) | (targets >= C)) & (targets != ignore_index)
    if bool(bad.any()):
        raise IndexError(
            f"nll_loss: target {int(targets[bad][0])} is outside 0 .. {C - 1} and is not ignore_index = {ignore_index}"
        )


def reduce_rows(rows, shape, targets, ignore_index, weight, reduction):
    """rows (N,) reduced; the mean divides by the rows that count, each with its weight (by 1 if that is nothing)."""
    if reduction == "none":
        return reshape(rows, tuple(shape))
    if reduction == "sum":
        return sum(rows)
    xp = array_module(targets)
    kept = targets != ignore_index
    count = kept.sum() if weight is None else (weight[xp.where(kept, targets, 0)] * kept).sum()
    return sum(rows) / xp.where(count == 0, 1, count).astype(rows.dtype)
