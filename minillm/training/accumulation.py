"""Gradient accumulation: the gradient of a batch that does not fit into memory, part by part.

    loss     = sum w_i loss_i / sum w_i           loss_i the mean over part i, w_i how much it counts: its targets
    gradient = sum (w_i / sum w) d loss_i         each part's graph is freed before the next is built

With equal weights where parts have different numbers of targets, a token of a short part would count more: the weights
are the numbers of targets, and the gradient is that of the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..tensor import Tensor


def accumulate(loss_of: Callable[[Any], Tensor], parts: Sequence[Any], weights: Sequence[float]) -> float:
    """Add the gradient of the weighted mean of loss_of(part) to the parameters' .grad; returns that mean.

    weights  of the parts, 0 or more and not all 0: their numbers of targets, or ones where they are alike
    """
    if len(parts) == 0 or len(parts) != len(weights):
        raise ValueError(f"accumulate: expected a weight for each part; got {len(parts)} parts, {len(weights)} weights")
    whole = math.fsum(weights)
    if not 0 < whole < math.inf or min(weights) < 0:
        raise ValueError(f"accumulate: weights must be finite, 0 or more, and one above 0; got {list(weights)}")
    losses: list[tuple[Tensor, float]] = []
    for part, weight in zip(parts, weights):
        if weight == 0:  # no targets: its mean is 0 / 0
            continue
        loss, share = loss_of(part), weight / whole
        (loss if share == 1 else loss * share).backward()
        losses.append((loss.detach(), share))
    total = 0.0
    for loss, share in losses:  # a GPU is waited for once, after all parts
        total += loss.item() * share
    return total
