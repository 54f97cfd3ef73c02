"""Label smoothing: a target that leaves a little probability to every class, so that logits have no reason to grow.

    q_c  = (1 - s) [c = y] + s / C
    loss = -sum_c q_c log p_c                      p = softmax(logits)
         = (1 - s) (-log p_y) + s mean_c (-log p_c)
    dlogits = p - q

The loss is least where p = q, at a finite gap between the right logit and each other one,

    gap  = log(q_y / q_other) = log((1 - s) C / s + 1)

where without smoothing it is least at infinity: s bounds how sure a model becomes. Its least value is no longer 0 but
the entropy of q, so losses with and without smoothing are not to be compared: measure without.

F.cross_entropy and F.linear_cross_entropy do this in their one pass, as `label_smoothing=s`; what stands here is the
formula, and what they are tested against.

Source: Szegedy et al. 2015, Rethinking the Inception Architecture, arXiv:1512.00567, section 7; what it does to a
model: Mueller et al. 2019, arXiv:1906.02629.
"""

from __future__ import annotations

import math
from typing import Any

from .. import functional as F
from ..device import array_module
from ..ops.arrays import array_of


def smoothed_targets(target: Any, classes: int, smoothing: float, dtype: Any = "float32") -> Any:
    """q: class ids (...) -> probabilities (..., C), an array.

    >>> import numpy as np
    >>> smoothed_targets(np.array([0, 2]), 4, 0.4, "float64").round(2).tolist()
    [[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]]
    """
    _check(classes, smoothing)
    ids = array_of(target)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"smoothed_targets: target holds class ids, of an integer dtype; got {ids.dtype}")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= classes):
        raise IndexError(f"smoothed_targets: target has ids {ids.min()} .. {ids.max()}, outside 0 .. {classes - 1}")
    xp = array_module(ids)
    hit = ids[..., None] == xp.arange(classes)  # (..., C)
    return ((1 - smoothing) * hit + smoothing / classes).astype(dtype)


def smoothed_cross_entropy(logits: Any, target: Any, smoothing: float) -> Any:
    """-sum_c q_c log p_c, the mean over the rows: logits (N, C), class ids (N,) -> one number."""
    if logits.ndim != 2 or tuple(target.shape) != tuple(logits.shape[:1]):
        raise ValueError(
            f"smoothed_cross_entropy: expected logits (N, C) and class ids (N,); got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
        )
    q = smoothed_targets(target, logits.shape[1], smoothing, logits.dtype)  # (N, C)
    return -(F.log_softmax(logits, 1) * q).sum(1).mean()


def logit_gap(classes: int, smoothing: float) -> float:
    """By how much the right logit is above each other one where the loss is least; inf without smoothing.

    >>> round(logit_gap(1000, 0.1), 2)
    9.11
    """
    _check(classes, smoothing)
    return math.inf if smoothing == 0 else math.log((1 - smoothing) * classes / smoothing + 1)


def least_loss(classes: int, smoothing: float) -> float:
    """The entropy of q, in nats: no model gets below it.

    >>> least_loss(10, 0.0), round(least_loss(10, 1.0), 4)      # nothing left to chance; log 10
    (0.0, 2.3026)
    """
    _check(classes, smoothing)
    other = smoothing / classes
    right = 1 - smoothing + other
    return _information(right) + (classes - 1) * _information(other)


def _information(q: float) -> float:
    return -q * math.log(q) if 0 < q < 1 else 0.0


def _check(classes: int, smoothing: float) -> None:
    if classes < 1 or not 0 <= smoothing <= 1:
        raise ValueError(f"label smoothing: expected classes >= 1 and 0 <= smoothing <= 1; got {classes}, {smoothing}")
